"""
Rows without objects: read, prepared and sent in bulk.

    given -> source (a chunk at a time) -> records (defaults, binds) -> copying or pages
                     target, catalogue -> method: COPY where it comes to what INSERT does
    insert_rows.py, given.py      what users call, and what they give it
    inserting.py, loading.py      into whose connection; all the rows of one call, or none
"""
