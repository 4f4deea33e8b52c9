"""
Commits by other sessions and connections of the application while a chunk is applied.

What is committed so is not rolled back with the chunk: if the chunk were tried again, it would
be done twice. Nothing can be said of a driver's connection that SQLAlchemy does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import ref

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

_watching: ContextVar[Elsewhere | None] = ContextVar("elsewhere", default=None)
_listeners = 0


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
        try:
            yield
        finally:
            _watching.reset(token)

    def note(self, connection: Connection) -> None:
        """Take note of a commit."""
        own = None if self._own is None else self._own()
        if own is not None and connection is not own and _same_database(connection, own):
            self.committed = True


@contextmanager
def listening() -> Iterator[None]:
    """Hear of every commit of the process, for as long as a job runs."""
    global _listeners  # noqa: PLW0603  one listener for all jobs of the process
    if not _listeners:
        event.listen(Engine, "commit", _note)
    _listeners += 1
    try:
        yield
    finally:
        _listeners -= 1
        if not _listeners:
            event.remove(Engine, "commit", _note)


def _note(connection: Connection) -> None:
    elsewhere = _watching.get()
    if elsewhere is not None:
        elsewhere.note(connection)


def _same_database(one: Connection, other: Connection) -> bool:
    """Whether two connections may be to one database: a host has many names."""
    ones, others = one.engine.url, other.engine.url
    if one.dialect.name != other.dialect.name:
        return False
    database = ones.database is None or others.database in (None, ones.database)
    return database and (ones.port or 5432) == (others.port or 5432)
