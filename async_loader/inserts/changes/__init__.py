"""
Updates and deletes of a flush: SQLAlchemy's own, in fewer trips.

    flush -> ../unit_of_work -> flush.py (SQLAlchemy's steps, its events and its order)
                                  |-> updates.py (runs of rows that SQLAlchemy sends alike)
                                  |     |-> pipeline.py   a run in one trip, one-row statements
                                  |     |-> arrays.py     several runs in one statement a set
                                  |     `-> SQLAlchemy    what is one trip already, or not ours
                                  `-> deletes.py

    children.py    children of deleted objects, loaded at once; deleting.py: `delete_all`
    merging.py     `merge_all`: what objects are merged into, loaded at once
    post_updates.py, array_text.py    columns of relationships; the text of an update by arrays
    results.py     what an update does to its objects, and the counts that SQLAlchemy checks
    statements.py  the statements of SQLAlchemy, and what their rows may be sent as
    seen.py        what the server's catalogue says: who sees the order of rows
    reasons.py     why rows go the way they go, for `explain`
"""
