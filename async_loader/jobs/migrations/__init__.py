"""
What migrations and jobs have to do with each other.

    require.py       whether a job is done, in one database and schema
    script.py        the same as a check in a migration's script, for when nobody is connected
    state_tables.py  the jobs' own tables, made by a migration
"""
