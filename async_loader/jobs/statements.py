"""What a statement does to transactions and names, by its text; no comment hides it."""

from __future__ import annotations

import re
from functools import lru_cache

_NAMES = r"(search_path|schema|role|session\s+authorization)"
_STAYING = re.compile(
    rf"(^|;)\s*(set\s+(session\s+(?!authorization))?{_NAMES}|reset\s+(all|{_NAMES})"
    r"|set\s+session\s+characteristics|set\s+(session\s+)?default_transaction_\w+)\b"
    r"|\bset_config\s*\(\s*'(search_path|role)'\s*,[^,()]*,\s*(false|'f)",
    re.IGNORECASE,
)
_ENDS = re.compile(
    r"^\s*end\b|(^|;)\s*(commit|abort|rollback(?!\s+(work\s+|transaction\s+)?to\b)"
    r"|prepare\s+transaction)\b",
    re.IGNORECASE,
)
_ROLLS_BACK = re.compile(r"(^|;)\s*rollback\b", re.IGNORECASE)
_PART = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/", re.DOTALL)


@lru_cache(maxsize=1024)
def bare(statement: str) -> str:
    """Return a statement without comments, and without what dollars quote."""
    return _PART.sub(lambda m: m[0] if m[0][0] in "'\"" else " ", statement).strip()


@lru_cache(maxsize=1024)
def _unquoted(statement: str) -> str:
    return _PART.sub(lambda m: m[0][0] * 2 if m[0][0] in "'\"" else " ", statement)


@lru_cache(maxsize=1024)
def ends(statement: str) -> bool:
    """Return whether a statement ends its transaction."""
    return bool(_ENDS.search(_unquoted(statement)))


@lru_cache(maxsize=1024)
def rolls_back(statement: str) -> bool:
    """Return whether a statement rolls something back, a savepoint perhaps."""
    return bool(_ROLLS_BACK.search(_unquoted(statement)))


@lru_cache(maxsize=1024)
def limits(statement: str) -> bool:
    """Return whether a statement sets how long one may take."""
    return "statement_timeout" in statement.lower()


@lru_cache(maxsize=1024)
def stays(statement: str) -> bool:
    """Return whether a statement's effect on names outlasts the transaction."""
    return bool(_STAYING.search(bare(statement)))
