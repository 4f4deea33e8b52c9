"""What `insert_rows` is given, and how what is not right is called."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

Row = Mapping[str, Any] | Sequence[Any] | object
Rows = Iterable[Row] | AsyncIterable[Row]
Keys = Iterable[Any] | AsyncIterable[Any]
Changes = Sequence[str] | Mapping[str, Any]  # attributes, or what they become
Progress = Callable[[int], Any]  # told the number of rows so far

AnyAsyncSession = AsyncSession | AsyncConnection | async_scoped_session[Any]
AnySession = Session | Connection | scoped_session[Any]


def a_kind(given: Any) -> str:
    """Return the kind of what was given, with its article; its value may be a secret."""
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return with_article(type(given).__name__)


def with_article(name: str) -> str:
    """Return a noun with its indefinite article."""
    return f"a{'n' if name[0] in 'aeiouAEIOU' else ''} {name}"
