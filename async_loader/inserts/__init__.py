"""
Batched units of work: the same rows and objects, in few statements and with less CPU.

    flush -> unit_of_work
                |-> flush_order (new objects only) -+-> save -> rows -> calls -> insert -> execute
                |-> prefetch (all else new) --------'                              |
                |-> changes/ (updates, deletes)                                    v
                `-> SQLAlchemy's own (no plan)         persistent <- keys and defaults that came

    enable.py, sessions.py     turns it on, for a factory, a class of sessions or a session
    unit_of_work.py            the flush: SQLAlchemy's actions in SQLAlchemy's order
    flush_order.py, places.py  the short way: new objects only, and which tables come when
    prefetch.py, keys.py       the middle way: keys drawn beforehand (reserve.py: blocks)
    tree.py                    objects that refer to others of their own table
    plans.py, catalogue.py     may a mapper's rows be batched, by the model and by the server
    save.py, rows.py, calls.py objects to columns: defaults and types called once each, in order
    column_types.py, statements.py, expressions.py, names.py    of what statements are
    sizes.py, statement_bytes.py    how much of it one statement carries
    insert.py, execute.py      the statement, and what its results do to the objects
    refusals.py                what the server or the values say against a batch
    resending.py               what is refused, sent again as SQLAlchemy would have
    persistent.py, adding.py, garbage.py, equated.py    many objects at once, at less cost
    explaining.py              which way a model goes, and why
    bulk/                      rows without objects: `insert_rows`, `update_rows`, `delete_rows`
    changes/                   updates and deletes; bench/ measures ways to insert
    _sqlalchemy.py             what is private to SQLAlchemy
"""

from typing import TYPE_CHECKING, Any

from .bulk.by_key import delete_rows, update_rows
from .bulk.insert_rows import insert_rows
from .changes.deleting import delete_all
from .changes.merging import merge_all
from .enable import enable_batch_inserting, enable_batching

if TYPE_CHECKING:
    from .explaining import explain

__all__ = [
    "delete_all",
    "delete_rows",
    "enable_batch_inserting",
    "enable_batching",
    "explain",
    "insert_rows",
    "merge_all",
    "update_rows",
]


def __getattr__(name: str) -> Any:
    """Import `explain` where it is first used: it knows every way there is, and so imports all."""
    if name != "explain":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .explaining import explain  # noqa: PLC0415  as above

    globals()[name] = explain
    return explain


def preload() -> None:
    """
    Import what `insert_rows`, its like and `delete_all` import when they are first called.

    For who measures the call, or must not hold an event loop for so long: 0.1 s.
    """
    from .bulk import changing, inserting  # noqa: F401, PLC0415  for its being imported
    from .changes import children, flush  # noqa: F401, PLC0415  as above
