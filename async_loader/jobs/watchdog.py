"""
A bound for a server that swallows what it is sent: nobody answers, and nobody says so.

How long a statement may take, only the application knows; how long a server may be silent, its
job's `patience` says. Where nothing was heard for half of it, a connection is made only to see
whether it is answered. Where it is not, all connections of the job's engine are broken off, and
whoever waits for one of them goes on at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import Pool
from sqlalchemy.util import greenlet_spawn

from ..database.postgresql import break_off, place
from ..errors import AsyncLoaderError, DatabaseError
from ..failures import TIMEOUT, classify
from ..tasks import within

# A process that stood still has heard nothing either: what it asks then gets its time.
_LEAST_ANSWER = 2.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
# What was broken off ends in the driver's own way, before anything is cancelled.
_ENDING = 0.5


class Watchdog:
    """Who looks after an engine; `patience` in seconds is how long its server may be silent."""

    def __init__(self, engine: AsyncEngine, patience: float) -> None:
        self.patience = patience
        self.gone = False
        self._engine = engine
        self._heard = 0.0
        self._drivers: WeakSet[Any] = WeakSet()

    def heard(self) -> None:
        """Note that the server has answered."""
        self._heard = asyncio.get_running_loop().time()

    def check(self) -> None:
        """Raise `DatabaseError` where the server was silent for too long."""
        if self.gone:
            raise DatabaseError(
                f"gave up after {self.patience:g} s: no answer from "
                f"{place(self._engine.url)}; the job goes on where it is when it is run again"
            )

    def remember(self, connection: Any, *_rest: Any) -> None:
        """Remember a connection, to break it off."""
        self._drivers.add(connection.driver_connection)

    async def watch(self, scope: asyncio.Timeout) -> None:
        """Break everything off when the server is gone, and end the scope."""
        loop = asyncio.get_running_loop()
        pause = min(max(self.patience / 4, _SHORTEST_PAUSE), _LONGEST_PAUSE)
        self.heard()
        while not self.gone:
            await asyncio.sleep(pause)
            left = self.patience - (loop.time() - self._heard)
            if left > self.patience / 2:
                continue
            if await self._answers(max(left, _LEAST_ANSWER)):
                self.heard()
            self.gone = loop.time() - self._heard >= self.patience
        for driver in tuple(self._drivers):
            break_off(driver)
        await asyncio.sleep(_ENDING)
        scope.reschedule(loop.time())

    async def _answers(self, seconds: float) -> bool:
        """Return whether the server says anything to who comes anew, be it that it is full."""
        pool = self._engine.sync_engine.pool.recreate()
        made: list[Any] = []
        event.listen(pool, "connect", lambda connection, _: made.append(connection))

        def end() -> None:
            for connection in made:
                break_off(connection.driver_connection)

        try:
            await within(greenlet_spawn(self._ask, pool), seconds, end)
        except Exception as error:
            return classify(error) is not TIMEOUT
        return True

    def _ask(self, pool: Pool) -> None:
        connection = pool.connect()
        try:
            assert connection.dbapi_connection is not None
            self._engine.dialect.do_ping(connection.dbapi_connection)
        finally:
            connection.close()
            pool.dispose()


@asynccontextmanager
async def watching(engine: AsyncEngine, patience: float) -> AsyncIterator[Watchdog]:
    """Watch over a block, which ends with `DatabaseError` when the server is silent too long."""
    watchdog = Watchdog(engine, patience)
    if engine.dialect.name != "postgresql":
        yield watchdog
        return
    pool = engine.sync_engine.pool
    for name in ("connect", "checkout"):
        event.listen(pool, name, watchdog.remember)
    try:
        async with asyncio.timeout(None) as scope:
            watch = asyncio.create_task(watchdog.watch(scope))
            try:
                yield watchdog
            finally:
                watch.cancel()
    except Exception as error:
        if isinstance(error, DatabaseError) or not isinstance(error, AsyncLoaderError):
            watchdog.check()
        raise
    finally:
        for name in ("connect", "checkout"):
            event.remove(pool, name, watchdog.remember)
