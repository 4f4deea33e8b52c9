"""
Rows without objects: read, prepared and sent in bulk.

    given -> source (a chunk at a time) -> records (defaults, binds) -> copying or pages
                     target, catalogue -> method: COPY where it comes to what INSERT does
    insert_rows.py, by_key.py, given.py, counts.py    what users call, give and get
    calling.py                    whose connection, and of asyncio or not
    inserting.py, loading.py      all the rows of one call, or none
    staging.py                    rows in a temporary table, for one statement that uses them:
    upserts.py, changing.py       INSERT ... ON CONFLICT; UPDATE and DELETE by a key
"""
