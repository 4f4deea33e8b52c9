"""
What `apply` does with the driver's connection, past SQLAlchemy: statements, and closing it.

asyncpg tells of statements once they were executed, psycopg before. Nobody hears of one that
asyncpg has prepared for the application, nor of one on SQLite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import Any

Hear = Callable[[str], None]

_block: ContextVar[object] = ContextVar("block", default=None)
_HEARD_BY = "_async_loader_hear"


@contextmanager
def hearing(driver: Any, hear: Hear) -> Iterator[None]:
    """Have the text of each statement told for a block; with asyncpg a turn of the loop later."""
    if hasattr(driver, "add_query_logger"):
        with _logged(driver, hear):
            yield
    elif isinstance(getattr(driver, "cursor_factory", None), type):
        with _watched(driver, hear):
            yield
    else:
        yield


@contextmanager
def _logged(driver: Any, hear: Hear) -> Iterator[None]:
    def log(record: Any) -> None:
        hear(record.query)

    driver.add_query_logger(log)
    try:
        yield
    finally:
        driver.remove_query_logger(log)


@contextmanager
def _watched(driver: Any, hear: Hear) -> Iterator[None]:
    theirs = driver.cursor_factory
    driver.cursor_factory = _watching(theirs)
    setattr(driver, _HEARD_BY, hear)
    try:
        yield
    finally:
        driver.cursor_factory = theirs
        setattr(driver, _HEARD_BY, None)


@cache
def _watching(factory: type) -> type:
    """Return a class of psycopg's cursors that tell what they are given."""

    def tells(name: str) -> Callable[..., Any]:
        def method(self: Any, query: Any, *args: Any, **options: Any) -> Any:
            hear = getattr(self.connection, _HEARD_BY, None)
            if hear is not None:
                hear(_text(query, self))
            return getattr(super(watching, self), name)(query, *args, **options)

        return method

    names = ("execute", "executemany", "stream")
    watching = type(factory.__name__, (factory,), {name: tells(name) for name in names})
    return watching


def _text(query: Any, cursor: Any) -> str:
    if isinstance(query, str):
        return query
    with suppress(Exception):  # what cannot be written cannot be sent
        as_text: Any = query.decode() if isinstance(query, bytes) else query.as_string(cursor)
        return str(as_text)
    return ""


def is_closed(driver: Any) -> bool:
    """Return whether a driver's connection is closed, whoever did it."""
    return bool(driver.is_closed() if hasattr(driver, "is_closed") else driver.closed)


@contextmanager
def hearing_of_end(driver: Any, closed: Callable[[], None]) -> Iterator[None]:
    """
    Have it told that the connection was closed by what a block calls, tasks too.

    asyncpg tells so a turn of the loop later, in the context of whoever closed it: what the
    server or the network ends is told in the context that made the connection. psycopg has a
    state for what was closed and not lost.
    """
    if not hasattr(driver, "add_termination_listener"):
        try:
            yield
        finally:
            if not getattr(driver, "broken", True) and is_closed(driver):
                closed()
        return
    token = _block.set(block := object())

    def told(_: object) -> None:
        if _block.get() is block:
            closed()

    driver.add_termination_listener(told)
    try:
        yield
    finally:
        driver.remove_termination_listener(told)
        _block.reset(token)
