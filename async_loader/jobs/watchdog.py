"""
A bound for a server that swallows what it is sent: nobody answers, and nobody says so.

How long a statement may take, only the application knows; how long a server may be silent, its
job's `patience` says. Where nothing was heard for half of it, a connection is made only to see
whether it is answered. Where it is not, all connections of the job's engine are broken off, and
whoever waits for one of them goes on at once. Where it is, those that were cut off alone
(links.py) are, and what they were in is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import Pool
from sqlalchemy.util import greenlet_spawn

from ..concurrency.tasks import within
from ..database.postgresql import break_off
from ..database.urls import place
from ..errors import AsyncLoaderError, DatabaseError
from ..failures.classification import TIMEOUT, classify
from .connections import server_pid
from .links import Link, Links, end_backends, quiet_states

# A process that stood still has heard nothing either: what it asks then gets its time.
_LEAST_ANSWER = 2.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
# What was broken off ends in the driver's own way, before anything is cancelled.
_ENDING = 0.5
# For as long at least one connection waits, and its backend is idle, before it is looked at.
_LEAST_WAIT, _LEAST_QUIET = 2.0, 1.0
GOES_ON = "; the job goes on where it is when it is run again"


class Watchdog:
    """
    Who looks after an engine; `patience` in seconds is how long its server may be silent.

    `rest` is what is said behind that it was. `direct`, once it is known that connections are
    sessions of the server's and no pooler's.
    """

    def __init__(self, engine: AsyncEngine, patience: float, rest: str = GOES_ON) -> None:
        self.patience = patience
        self.gone = False
        self.direct = False
        self.links = Links(engine)
        self._engine = engine
        self._rest = rest
        self._heard = 0.0
        self._suspects: dict[Link, float] = {}

    def heard(self) -> None:
        """Note that the server has answered."""
        self._heard = asyncio.get_running_loop().time()

    def check(self) -> None:
        """Raise `DatabaseError` where the server was silent for too long."""
        if self.gone:
            raise DatabaseError(
                f"gave up after {self.patience:g} s: no answer from "
                f"{place(self._engine.url)}{self._rest}"
            )

    async def watch(self, scope: asyncio.Timeout) -> None:
        """Break everything off when the server is gone, and end the scope."""
        loop = asyncio.get_running_loop()
        pause = min(max(self.patience / 4, _SHORTEST_PAUSE), _LONGEST_PAUSE)
        self.heard()
        while not self.gone:
            await asyncio.sleep(pause)
            waiting = self._waiting()
            left = self.patience - (loop.time() - self._heard)
            if left > self.patience / 2 and not waiting:
                continue
            if await self._answers(waiting, max(left, _LEAST_ANSWER)):
                self.heard()
            self.gone = loop.time() - self._heard >= self.patience
        for link in self.links.all():
            break_off(link.driver)
        await asyncio.sleep(_ENDING)
        scope.reschedule(loop.time())

    def _waiting(self) -> dict[Link, float]:
        seconds = max(self.patience / 2, _LEAST_WAIT)
        return self.links.waiting(seconds) if self.direct else {}

    async def _answers(self, waiting: dict[Link, float], seconds: float) -> bool:
        """Return whether the server says anything to who comes anew, be it that it is full."""
        try:
            if waiting:
                await self._end_those_cut_off(waiting, seconds)
            else:
                await self._ask("SELECT 1", seconds)
        except Exception as error:
            return classify(error) is not TIMEOUT
        return True

    async def _end_those_cut_off(self, waiting: dict[Link, float], seconds: float) -> None:
        """End those that waited in vain when they were looked at last, and do now."""
        quiet = max(self.patience / 4, _LEAST_QUIET)
        pids = [server_pid(link.driver) for link in waiting]
        states = dict(await self._ask(quiet_states(pids, quiet), seconds))
        found = {
            link: since
            for link, since in waiting.items()
            if link.since == since and link.cut_off(states)
        }
        cut_off = [link for link, since in found.items() if self._suspects.get(link) == since]
        self._suspects = found
        if cut_off:
            await self._ask(end_backends([server_pid(link.driver) for link in cut_off]), seconds)
        for link in cut_off:
            break_off(link.driver)

    async def _ask(self, statement: str, seconds: float) -> list[Any]:
        """Return what a connection answers that is made for this statement alone."""
        pool = self._engine.sync_engine.pool.recreate()
        made: list[Any] = []
        event.listen(pool, "connect", lambda connection, _: made.append(connection))

        def end() -> None:
            for connection in made:
                break_off(connection.driver_connection)

        return await within(greenlet_spawn(_rows, pool, statement), seconds, end)


def _rows(pool: Pool, statement: str) -> list[Any]:
    connection = pool.connect()
    try:
        cursor = connection.cursor()
        cursor.execute(statement)
        return [tuple(row) for row in cursor.fetchall()]
    finally:
        connection.close()
        pool.dispose()


@asynccontextmanager
async def watching(
    engine: AsyncEngine, patience: float, rest: str = GOES_ON
) -> AsyncIterator[Watchdog]:
    """Watch over a block, which ends with `DatabaseError` when the server is silent too long."""
    watchdog = Watchdog(engine, patience, rest)
    if engine.dialect.name != "postgresql":
        yield watchdog
        return
    try:
        with watchdog.links.listening():
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
