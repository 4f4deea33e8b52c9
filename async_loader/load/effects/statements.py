"""What a statement does, as far as its text tells."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

# In a statement of ours: who looks at what the server counted leaves it out.
OURS = "/* async_loader */"

Sort = Literal[
    "read", "passing", "write", "savepoint", "commit", "rollback", "rollback to", "unknown"
]
"""`passing`: it takes a number for its transaction as a write does, and writes nothing to keep."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A word and a parenthesis in a SELECT may be a function that writes; these are known not to.
_HARMLESS = _words(
    "and any array as avg between by case coalesce count exists filter from greatest having in "
    "interval into join json_agg jsonb_agg lateral least length like limit lower max min nextval "
    "not now numeric nullif on or order over partition row select some string_agg sum then unnest "
    "upper using values varchar when where with"
)
_FIRST = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*([a-z]+)", re.IGNORECASE | re.DOTALL)
_CALLED = re.compile(r"([a-z_][a-z0-9_$.]*)\s*\(", re.IGNORECASE)
_WITHIN = re.compile(
    r"\b(?:insert\s+into|(?<!for )(?<!for no key )update|delete\s+from|merge\s+into)\s",
    re.IGNORECASE,
)
_ROLLS_BACK_TO = re.compile(
    r"\s*rollback\s+(?:(?:work|transaction)\s+)?to\s+(?:savepoint\s+)?(\S+)", re.IGNORECASE
)
_SAVES = re.compile(r"\s*savepoint\s+(\S+)", re.IGNORECASE)
_PASSING = re.compile(
    r"\bfor\s+(?:no\s+key\s+)?update\b|\bfor\s+(?:key\s+)?share\b|\b(?:nextval|setval)\s*\(",
    re.IGNORECASE,
)
_EXECUTES = re.compile(r"\bexplain\s*(?:\([^)]*)?\banaly[sz]e\b", re.IGNORECASE)
_QUOTED = re.compile(r"'(?:[^']|'')*'")
_WRITES = _words(
    "insert update delete merge replace copy create alter drop truncate grant revoke comment "
    "reindex refresh import"
)
_READS = _words(
    "begin start set reset show release explain declare fetch close pragma listen "
    "unlisten deallocate discard lock values table"
)
_MARKS: dict[str, Sort] = {"commit": "commit", "end": "commit", "savepoint": "savepoint"}


@lru_cache(maxsize=2048)
def sort_of(sql: str) -> Sort:
    """Return what a statement does, as far as its text tells."""
    first = first_word(sql)
    if first in _WRITES:
        temporary = first == "create" and re.match(r"\s*create\s+(?:\w+\s+)?temp", sql, re.I)
        return "passing" if temporary else "write"
    if first in _MARKS:
        return _MARKS[first]
    if first in ("rollback", "abort"):
        return "rollback to" if _ROLLS_BACK_TO.match(sql) else "rollback"
    bare = _QUOTED.sub("''", sql)
    performs = first == "with" or (first == "explain" and _EXECUTES.search(bare))
    if performs and _WITHIN.search(bare):
        return "write"
    if first in ("select", "with"):
        return _of_select(bare)
    return "read" if first in _READS else "unknown"


def _of_select(sql: str) -> Sort:
    called = {name.lower() for name in _CALLED.findall(sql)}
    if not called <= _HARMLESS:
        return "unknown"
    return "passing" if passes(sql) else "read"


def passes(sql: str) -> bool:
    """Return whether a SELECT gives its transaction a number, whatever else it does."""
    return _PASSING.search(sql) is not None


def savepoint_in(sql: str) -> str:
    """Return the savepoint that a statement makes, or rolls back to."""
    found = _SAVES.match(sql) or _ROLLS_BACK_TO.match(sql)
    return found[1].rstrip(";").lower() if found is not None else ""


def first_word(sql: str) -> str:
    found = _FIRST.match(sql)
    return found[1].lower() if found is not None else ""
