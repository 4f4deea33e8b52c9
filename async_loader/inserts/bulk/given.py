"""What `insert_rows` is given, and how what is not right is called."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any] | Sequence[Any] | object
Rows = Iterable[Row] | AsyncIterable[Row]


def a_kind(given: Any) -> str:
    """Return the kind of what was given, with its article; its value may be a secret."""
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return with_article(type(given).__name__)


def with_article(name: str) -> str:
    """Return a noun with its indefinite article."""
    return f"a{'n' if name[0] in 'aeiouAEIOU' else ''} {name}"
