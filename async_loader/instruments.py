"""
Where an operation's time goes, read off one engine's pool and dialect.

`PoolWatch` counts connections and times the wait for one; `DialectTimer` times statements,
BEGIN, COMMIT and ROLLBACK and counts the statements. Both touch the engine handed in and
nothing else, and leave it as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AsyncExitStack, ExitStack
from contextvars import ContextVar
from time import perf_counter_ns
from typing import Any, Literal, Self

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, Pool, QueuePool

from .errors import ConfigurationError
from .metrics.repeats import Site, repeat_site


class OperationTimes:
    """
    One operation's nanoseconds in the pool and in the database, and its statements.

    Nothing is counted twice: what a new connection says to the server is part of the wait
    for it, and of statements that an operation runs side by side one is timed. `timing` is
    what is being timed now. `seen`: how often each statement was executed, and `repeated`
    where those come from that were often (see `repeats`).
    """

    __slots__ = ("database_ns", "pool_ns", "repeated", "seen", "statements", "timing")

    def __init__(self) -> None:
        self.pool_ns = 0
        self.database_ns = 0
        self.statements = 0
        self.timing: Literal["pool", "database"] | None = None
        self.seen: dict[str, int] = {}
        self.repeated: dict[str, Site] = {}

    def tried_again(self) -> None:
        """Forget the statements of a try that failed: doing it again is no N+1."""
        self.seen.clear()
        self.repeated.clear()


# A context variable: SQLAlchemy's greenlets run in the context of the task that spawned them.
current_times: ContextVar[OperationTimes | None] = ContextVar("current_times", default=None)

# Who takes connections, in tasks of their own too: a session closes in one that is shielded.
holder: ContextVar[object | None] = ContextVar("holder", default=None)


def attached(
    sessions: async_sessionmaker[AsyncSession] | sessionmaker[Session] | None,
    stack: ExitStack | AsyncExitStack,
    *,
    time_split: bool,
    n_plus_one: int = 0,
) -> PoolWatch | None:
    """Watch the engine of the factory's sessions, where it names one, until the stack ends."""
    bind = sessions.kw.get("bind") if sessions is not None else None
    engine = bind.sync_engine if isinstance(bind, AsyncEngine) else bind
    if not isinstance(engine, Engine):
        return None
    pool = stack.enter_context(PoolWatch(engine))
    if time_split:
        stack.enter_context(DialectTimer(engine, n_plus_one=n_plus_one))
    return pool


def break_off(pool: PoolWatch | None, holders: Collection[object]) -> None:
    """Break off the connections that these have in a pool that is watched."""
    if pool is not None:
        for whose in tuple(holders):
            pool.break_off(whose)


class PoolWatch:
    """
    A context manager that counts the connections of one engine's pool.

    `in_use`, `waiting` (tasks that asked and have none yet, those who open one included)
    and their peaks are exact, not sampled. A new pool after `dispose()` is watched too.
    Raises `ConfigurationError` for an engine that is being watched already.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pool: Pool | None = None
        # A set and a dictionary: their changes are atomic for threads, and a count's `+=` is not.
        self._out: dict[int, tuple[object | None, DBAPIConnection]] = {}
        self._asking: set[object] = set()
        self.peak_in_use = 0
        self.peak_waiting = 0

    @property
    def in_use(self) -> int:
        """Connections that are checked out now."""
        return len(self._out)

    @property
    def waiting(self) -> int:
        """Tasks or threads that have asked for a connection and have none yet."""
        return len(self._asking)

    @property
    def size(self) -> int:
        """The most connections that the pool opens; 0 where it has no limit."""
        pool = self._engine.pool
        if not isinstance(pool, QueuePool):
            return 0
        overflow = pool._max_overflow
        return pool.size() + overflow if overflow >= 0 else 0

    def break_off(self, whose: object) -> None:
        """Break off the connections that a holder has, without a word to the server."""
        dialect = self._engine.dialect
        for owner, connection in tuple(self._out.values()):
            if owner is whose and dialect.has_terminate:
                dialect.do_terminate(connection)

    def __enter__(self) -> Self:
        if "connect" in vars(self._engine.pool):
            raise ConfigurationError(
                "another run is measuring this engine: give each run an engine of its own"
            )
        self._attach(self._engine)
        event.listen(self._engine, "engine_disposed", self._attach)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "engine_disposed", self._attach)
        self._detach()

    def _attach(self, engine: Engine) -> None:
        """Watch the engine's present pool; `dispose()` replaces it and all that was set on it."""
        self._detach()
        pool = self._pool = engine.pool
        # An attribute of this one pool: no event tells who waits.
        pool.connect = self._watched(pool.connect)  # type: ignore[method-assign]
        event.listen(pool, "checkout", self._taken)
        event.listen(pool, "checkin", self._returned)

    def _detach(self) -> None:
        if self._pool is not None:
            del self._pool.connect
            event.remove(self._pool, "checkout", self._taken)
            event.remove(self._pool, "checkin", self._returned)
            self._pool = None

    def _watched(self, connect: Callable[[], Any]) -> Callable[[], Any]:
        def watched_connect() -> Any:
            times = current_times.get() or OperationTimes()
            self._asking.add(times)
            self.peak_waiting = max(self.peak_waiting, len(self._asking))
            outer, times.timing = times.timing, "pool"
            started = perf_counter_ns()
            try:
                return connect()
            finally:
                self._asking.discard(times)
                times.timing = outer
                if outer is None:
                    times.pool_ns += perf_counter_ns() - started

        return watched_connect

    def _taken(
        self, connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object
    ) -> None:
        self._out[id(record)] = (holder.get(), connection)
        self.peak_in_use = max(self.peak_in_use, len(self._out))

    def _returned(self, _connection: object, record: ConnectionPoolEntry) -> None:
        # A connection that could not be opened comes back without ever having been taken.
        self._out.pop(id(record), None)


class DialectTimer:
    """
    A context manager that times what one engine's dialect asks of the database.

    The dialect's methods, not events: COMMIT and ROLLBACK fire none after them. A statement
    that one operation executes `n_plus_one` times is noted as repeated; 0 notes none.
    """

    _EXECUTES = ("do_execute", "do_execute_no_params", "do_executemany")
    _OTHERS = ("do_begin", "do_commit", "do_rollback")

    def __init__(self, engine: Engine, *, n_plus_one: int = 0) -> None:
        self._dialect = engine.dialect
        self._n_plus_one = n_plus_one

    def __enter__(self) -> Self:
        for name in self._EXECUTES:
            method = getattr(self._dialect, name)
            setattr(self._dialect, name, _timed_execute(method, self._n_plus_one))
        for name in self._OTHERS:
            setattr(self._dialect, name, _timed(getattr(self._dialect, name)))
        return self

    def __exit__(self, *_: object) -> None:
        for name in (*self._EXECUTES, *self._OTHERS):
            delattr(self._dialect, name)


def _timed(method: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        times = current_times.get()
        if times is None or times.timing is not None:
            return method(*args, **kwargs)
        times.timing = "database"
        started = perf_counter_ns()
        try:
            return method(*args, **kwargs)
        finally:
            times.database_ns += perf_counter_ns() - started
            times.timing = None

    return timed


def _timed_execute(method: Callable[..., Any], n_plus_one: int) -> Callable[..., Any]:
    timed = _timed(method)
    many = method.__name__ == "do_executemany"

    def timed_execute(cursor: Any, statement: Any, parameters: Any, *args: Any, **kw: Any) -> Any:
        times = current_times.get()
        if times is not None and times.timing != "pool":
            times.statements += len(parameters) if many else 1
            if n_plus_one and not many:
                times.seen[statement] = seen = times.seen.get(statement, 0) + 1
                # Once an operation: the look at the stack is what costs.
                if seen == n_plus_one and (site := repeat_site()) is not None:
                    times.repeated[statement] = site
        timed(cursor, statement, parameters, *args, **kw)
        if times is not None and getattr(cursor, "server_side", False):
            _time_fetches(cursor, times)

    return timed_execute


def _time_fetches(cursor: Any, times: OperationTimes) -> None:
    """Time a server-side cursor of asyncpg, which asks for its rows after the statement."""
    if getattr(cursor, "_cursor", None) is not None:
        cursor._cursor = _TimedCursor(cursor._cursor, times)


class _TimedCursor:
    def __init__(self, cursor: Any, times: OperationTimes) -> None:
        self._cursor = cursor
        self._times = times

    async def fetch(self, *args: Any, **kwargs: Any) -> Any:
        started = perf_counter_ns()
        try:
            return await self._cursor.fetch(*args, **kwargs)
        finally:
            self._times.database_ns += perf_counter_ns() - started
