"""
What the application commits on other connections while a chunk is applied.

It is not rolled back with the chunk: if that were tried again, it would be done twice. What
is committed by a task or thread that knows nothing of the chunk, one that was started before, or by
an executor, may be its doing, and counts. Nothing can be said of a driver's connection that
SQLAlchemy does not know, nor of another process.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import ref

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from . import connections
from .statements import bare

# What a job does by itself has `_ours`, and what apply does its `Elsewhere`, too.
_ours: ContextVar[bool] = ContextVar("ours", default=False)
_watching: ContextVar[Elsewhere | None] = ContextVar("elsewhere", default=None)
_under_way: set[Elsewhere] = set()
_listeners = 0
_ONLY_READS = re.compile(
    r"(select\b(?=.*\bfrom\b)|show\b|set\b|reset\b|begin\b|start\b|rollback\b|abort\b|savepoint\b|pragma\b"
    r"|with\b(?!.*\b(insert|update|delete|merge)\b))",
    re.IGNORECASE | re.DOTALL,
)


class Elsewhere:
    """What apply commits on other connections than the chunk's, to the same database."""

    def __init__(self) -> None:
        self.committed = False
        self._own: ref[Connection] | None = None

    @contextmanager
    def watch(self, own: Connection) -> Iterator[None]:
        """Watch what is committed by whatever this block calls, tasks and threads too."""
        self._own = ref(own)
        token = _watching.set(self)
        _under_way.add(self)
        try:
            yield
        finally:
            _under_way.discard(self)
            _watching.reset(token)

    def note(self, connection: Connection) -> None:
        """Take note of a commit."""
        own = None if self._own is None else self._own()
        if own is not None and connection is not own and _same_database(connection, own):
            self.committed = True


@asynccontextmanager
async def ours() -> AsyncIterator[None]:
    """Have what a block commits counted as a job's own, and as nobody's apply."""
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)


@contextmanager
def listening() -> Iterator[None]:
    """Hear of every commit of the process, for as long as a job runs."""
    global _listeners  # noqa: PLW0603  one set of listeners for all jobs of the process
    if not _listeners:
        for name, hear in _HEARD:
            event.listen(Engine, name, hear)
    _listeners += 1
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)
        _listeners -= 1
        if not _listeners:
            for name, hear in _HEARD:
                event.remove(Engine, name, hear)


def _note(connection: Connection, *_: Any) -> None:
    watching = _watching.get()
    if watching in _under_way:
        watching.note(connection)
    elif watching is not None or not _ours.get():  # begun before, or by who knows nothing of it
        for elsewhere in list(_under_way):
            elsewhere.note(connection)


def _after_statement(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
    """Note what is committed without a word, in AUTOCOMMIT, or by a COMMIT that is a text."""
    if not _under_way or (_ours.get() and _watching.get() is None):
        return
    if not _is_in_transaction(connection) and not _ONLY_READS.match(bare(statement)):
        _note(connection)


def _is_in_transaction(connection: Connection) -> bool:
    try:
        return connections.in_transaction(connections.driver_of(connection))
    except AttributeError:  # another driver's: in doubt it is not
        return False


_HEARD = (
    ("commit", _note),
    ("commit_twophase", _note),
    ("after_cursor_execute", _after_statement),
)


def _same_database(one: Connection, other: Connection) -> bool:
    """
    Whether two connections may be to one database.

    A host has many names and a pooler a port of its own, and what connects by a function has no
    URL: in doubt it is the same.
    """
    names = one.engine.url.database, other.engine.url.database
    return one.dialect.name == other.dialect.name and (None in names or names[0] == names[1])
