"""
What a migration asks of jobs: that one is done, before its column becomes NOT NULL or goes.

    require.py    whether a job is done, in one database and schema
    script.py     the same as a check in a migration's script, for when nobody is connected
"""
