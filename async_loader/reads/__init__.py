"""
Reads: the same objects, with less of the client's CPU spent around the database.

    enable.py, targets.py    turns it on and off, for an engine, factories, classes, sessions
    supported.py             whether this SQLAlchemy is one that was read
    selectin.py              `selectinload`: its statement is kept
    key_list.py              its keys, as the driver takes them best
    explaining.py            which way a statement goes, and why
    _sqlalchemy.py           what is private to SQLAlchemy
"""

from typing import TYPE_CHECKING, Any

from .enable import disable_fast_paths, enable_fast_paths

if TYPE_CHECKING:
    from .explaining import explain

__all__ = ["disable_fast_paths", "enable_fast_paths", "explain"]


def __getattr__(name: str) -> Any:
    """Import `explain` where it is first used: it knows every way there is, and so imports all."""
    if name != "explain":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .explaining import explain  # noqa: PLC0415  as above

    globals()[name] = explain
    return explain
