"""Watching one engine's connection pool: how many are in use, how many tasks wait."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import ConnectionPoolEntry, Pool, QueuePool


class PoolWatch:
    """
    A context manager that counts the connections of one engine's pool.

    `in_use`, `waiting` (tasks that asked and have none yet, those who open one included)
    and their peaks are exact, not sampled. Only this engine's pool is touched; a new pool
    after `dispose()` is watched too, and at the end everything is as it was.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pool: Pool | None = None
        self._out: set[int] = set()
        self.waiting = 0
        self.peak_in_use = 0
        self.peak_waiting = 0

    @property
    def in_use(self) -> int:
        """Connections that are checked out now."""
        return len(self._out)

    @property
    def size(self) -> int:
        """The most connections that the pool opens; 0 where it has no limit."""
        pool = self._engine.pool
        if not isinstance(pool, QueuePool):
            return 0
        overflow = pool._max_overflow
        return pool.size() + overflow if overflow >= 0 else 0

    def __enter__(self) -> Self:
        self._attach(self._engine)
        event.listen(self._engine, "engine_disposed", self._attach)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        event.remove(self._engine, "engine_disposed", self._attach)
        self._detach()

    def _attach(self, engine: Engine) -> None:
        """Watch the engine's present pool; `dispose()` replaces it and all that was set on it."""
        self._detach()
        pool = self._pool = engine.pool
        connect = pool.connect

        def watched_connect() -> Any:
            self.waiting += 1
            self.peak_waiting = max(self.peak_waiting, self.waiting)
            try:
                return connect()
            finally:
                self.waiting -= 1

        pool.connect = watched_connect  # type: ignore[method-assign]  # no event tells who waits
        event.listen(pool, "checkout", self._taken)
        event.listen(pool, "checkin", self._returned)

    def _detach(self) -> None:
        if self._pool is not None:
            del self._pool.connect
            event.remove(self._pool, "checkout", self._taken)
            event.remove(self._pool, "checkin", self._returned)
            self._pool = None

    def _taken(self, _connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
        self._out.add(id(record))
        self.peak_in_use = max(self.peak_in_use, len(self._out))

    def _returned(self, _connection: object, record: ConnectionPoolEntry) -> None:
        # A connection that could not be opened comes back without ever having been taken.
        self._out.discard(id(record))
