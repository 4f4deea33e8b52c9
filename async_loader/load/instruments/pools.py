"""
Counting the connections of all pools of the process, and who has them.

`Pool.connect` of the class is replaced for the time of a run, as no event tells who waits. So an
engine counts whoever made it and when, and whether or not it was disposed of since.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, Pool, QueuePool, SingletonThreadPool

from ...concurrency.tasks import holder
from ...database.sqlalchemy_private import (
    ConnectionRecord,
    dialect_of,
    overflow_of,
    pool_of_proxy,
    pool_of_record,
)
from ...failures.source_lines import Place, awaiting_place_here, user_place_here
from .dialects import DialectPatches
from .patches import Patches
from .times import OperationTimes, current_times
from .windows import awaited, waiting, window


@dataclass(frozen=True, slots=True)
class Taken:
    """A connection that somebody has: who took it, in which operation and at which line."""

    holder: object | None
    connection: DBAPIConnection
    dialect: Any
    operation: str | None
    place: Place | None


class PoolWatch:
    """
    The connections that one run takes, of whatever engines.

    `in_use`, `waiting` (tasks that asked and have none yet, those who open one included)
    and their peaks are exact, not sampled. What nobody knows whose it is, as in a thread without
    the run's context, counts as every run's that goes on. `engine` is the run's own, where it
    has one.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = engine
        # Dictionaries and a set: their changes are atomic for threads, and a count's `+=` is not.
        self._out: dict[int, Taken] = {}
        self._asking: set[object] = set()
        self._pools: dict[int, Pool] = {}
        self.collected: Counter[tuple[str, Place | None]] = Counter()
        """Connections whose user forgot them, so that the garbage collector found them."""
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
        """The most connections that all pools together open; 0 where one has no limit."""
        pools = {id(pool): pool for pool in self._pools.values()}
        if self.engine is not None:
            pools.setdefault(id(self.engine.pool), self.engine.pool)
        sizes = [_size(pool) for pool in pools.values()]
        return sum(sizes) if all(sizes) else 0

    @property
    def pools(self) -> int:
        """How many pools connections were taken from."""
        return len(self._pools)

    def still_out(self) -> list[Taken]:
        """Return the connections that are checked out now, with those who have them."""
        return [*self._out.values()]

    def break_off(self, whose: object) -> None:
        """Break off the connections that a holder has, without a word to the server."""
        for taken in tuple(self._out.values()):
            if taken.holder is not whose:
                continue
            if taken.dialect.has_terminate:
                taken.dialect.do_terminate(taken.connection)
            elif not taken.dialect.is_async:
                _interrupt(taken.connection)

    def asks(self, asker: object, pool: Pool) -> None:
        """Note that somebody asks a pool for a connection."""
        # By engine rather than by pool: `dispose()` makes another one.
        self._pools[id(dialect_of(pool))] = pool
        self._asking.add(asker)
        self.peak_waiting = max(self.peak_waiting, len(self._asking))

    def answered(self, asker: object) -> None:
        """Note that somebody has a connection, or will get none."""
        self._asking.discard(asker)

    def took(self, record: ConnectionPoolEntry, taken: Taken) -> None:
        """Note that a connection has been handed out."""
        self._out[id(record)] = taken
        self.peak_in_use = max(self.peak_in_use, len(self._out))

    def gave_back(self, record: ConnectionPoolEntry) -> None:
        """Note that a connection is back; one that could not be opened has never been taken."""
        self._out.pop(id(record), None)

    def forgot(self, record: ConnectionPoolEntry) -> None:
        """Note that a connection comes back because nobody refers to it any more."""
        taken = self._out.pop(id(record), None)
        if taken is not None and taken.operation is not None:
            self.collected[taken.operation, taken.place] += 1


# Pools that look at a run and are no part of it.
_OUTSIDE: WeakSet[Pool] = WeakSet()


def leave_out(pool: Pool) -> None:
    """Let no run count the connections of a pool: one of ours, that looks at the server."""
    _OUTSIDE.add(pool)


# The run whose tasks and threads these are.
current_watch: ContextVar[PoolWatch | None] = ContextVar("current_watch", default=None)


class Pools:
    """All pools of the process while a run goes on, for the runs that there are."""

    def __init__(self, patches: Patches) -> None:
        self.watches: list[PoolWatch] = []
        self._dialects = DialectPatches(patches)
        for kind in (Pool, SingletonThreadPool):
            patches.wrap(kind, "connect", self._watched)
        # Its own name for it: the one call that opens a connection, first or again.
        patches.wrap(ConnectionRecord, "_ConnectionRecord__connect", _opening)
        event.listen(Pool, "checkout", self._taken)
        event.listen(Pool, "checkin", self._returned)
        event.listen(Pool, "reset", self._reset)

    def close(self) -> None:
        """Leave the pools as they were."""
        event.remove(Pool, "checkout", self._taken)
        event.remove(Pool, "checkin", self._returned)
        event.remove(Pool, "reset", self._reset)

    def _whose(self, pool: Pool) -> list[PoolWatch]:
        if pool in _OUTSIDE:
            return []
        watch = current_watch.get()
        return [watch] if watch in self.watches and watch is not None else self.watches

    def _watched(self, connect: Callable[[Pool], Any]) -> Callable[[Pool], Any]:
        @wraps(connect)
        def watched_connect(pool: Pool) -> Any:
            self._dialects.see(dialect_of(pool))
            times = current_times.get()
            asker: object = times or object()
            watches = self._whose(pool)
            for watch in watches:
                watch.asks(asker, pool)
            try:
                return connect(pool) if times is None else _timed_connect(connect, pool, times)
            finally:
                for watch in watches:
                    watch.answered(asker)

        return watched_connect

    def _taken(self, connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: Any) -> None:
        times = current_times.get()
        operation = times.operation if times is not None else None
        place = _place(times) if times is not None else None
        pool = pool_of_proxy(proxy)
        taken = Taken(holder.get(), connection, dialect_of(pool), operation, place)
        for watch in self._whose(pool):
            watch.took(record, taken)

    def _returned(self, _connection: object, record: ConnectionPoolEntry) -> None:
        for watch in self.watches:
            watch.gave_back(record)

    def _reset(self, _connection: object, record: Any, state: Any) -> None:
        # SQLAlchemy 2.0 has no `needs_gc`; there only an async driver's state tells.
        forgotten = getattr(record, "needs_gc", False) or not state.asyncio_safe
        if record is not None and forgotten:
            for watch in self.watches:
                watch.forgot(record)


def _timed_connect(connect: Callable[[Pool], Any], pool: Pool, times: OperationTimes) -> Any:
    if window.get() is not None:  # a pool within a pool's wait
        return connect(pool)
    if not dialect_of(pool).is_async:
        with waiting(times, "pool", blocks=True):
            return connect(pool)
    token = awaited("pool")
    try:
        return connect(pool)
    finally:
        window.reset(token)


def _opening(connect: Callable[[Any], None]) -> Callable[[Any], None]:
    @wraps(connect)
    def timed_opening(record: Any) -> None:
        times = current_times.get()
        if times is None:
            connect(record)
            return
        blocks = not dialect_of(pool_of_record(record)).is_async
        with waiting(times, "connect", blocks=blocks):
            connect(record)

    return timed_opening


def _place(times: OperationTimes) -> Place | None:
    """Return the user's line that takes a connection."""
    if times.orm and (place := awaiting_place_here()) is not None:
        return place
    return user_place_here()


def _interrupt(connection: Any) -> None:
    """Have whatever thread waits for a sync driver's answer wait no longer."""
    with suppress(Exception):  # closed meanwhile, or of a driver that has neither
        if (interrupt := getattr(connection, "interrupt", None)) is not None:  # sqlite
            interrupt()
        else:
            with socket.socket(fileno=os.dup(connection.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)


def _size(pool: Pool) -> int:
    """Return the most connections that a pool opens; 0 where it has no limit."""
    if not isinstance(pool, QueuePool):
        return 0
    overflow = overflow_of(pool)
    return pool.size() + overflow if overflow >= 0 else 0
