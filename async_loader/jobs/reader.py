"""Reading in short transactions, repeated for as long as a failure passes by itself."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy import Executable, func
from sqlalchemy import select as select_
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from ..concurrency.clock import Clock
from ..database import sqlite
from ..database.postgresql import unreachable
from ..errors import AsyncLoaderError, JobError
from ..failures.classification import sqlstate_of
from .connections import begin
from .definition import Sessions
from .keyset import SETTINGS, Keyset
from .links import GIVES_BACK
from .transient import RetryBudget, is_cancelled, is_transient
from .watchdog import Watchdog

T = TypeVar("T")


def reading(engine: AsyncEngine, *, direct: bool = False) -> AsyncEngine:
    """
    Return an engine of the same pool whose transactions only read.

    Where its connections are `direct`, a statement is a transaction: no BEGIN. A pooler may
    execute a statement elsewhere than where it was prepared, but for within a transaction.
    """
    if engine.dialect.name == "postgresql":
        level = "AUTOCOMMIT" if direct else "READ COMMITTED"
        return engine.execution_options(isolation_level=level, **{GIVES_BACK: True})
    return engine.execution_options(**sqlite.READING)


def writing(engine: AsyncEngine) -> AsyncEngine:
    """
    Return an engine of the same pool for what jobs write for themselves.

    In READ COMMITTED, whatever the application's is: who has waited for a lock sees what was
    done meanwhile.
    """
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="READ COMMITTED", **{GIVES_BACK: True})
    return engine


def raise_denied(error: BaseException, url: URL) -> None:
    """Raise `DatabaseError`, with the GRANT that is lacking, where the role may not do a thing."""
    if sqlstate_of(error) == "42501":
        raise unreachable(error, url) from error


class Reader:
    """
    Sessions of its own, apart from those that write, for as long as a watchdog has patience.

    `limit`: how long a statement may take, in seconds.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        watchdog: Watchdog,
        *,
        direct: bool = False,
        limit: float = math.inf,
    ) -> None:
        self.engine = reading(engine, direct=direct)
        self.watchdog = watchdog
        self.clock = clock
        self._limit = limit

    async def all(self, select: Executable) -> list[Any]:
        """Return the rows of a select."""

        async def attempt() -> list[Any]:
            async with AsyncSession(self.engine) as session:
                return list(await session.execute(select))

        return await self.retry_transient(attempt)

    async def retry_transient(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat what can be repeated; raises `DatabaseError` when patience is at its end."""
        patience = RetryBudget(self.clock, self.watchdog.patience)
        while True:
            self.watchdog.check()
            began = self.clock.now_ns()
            try:
                found = await attempt()
            except Exception as error:  # SQLAlchemy 2.0 passes some of asyncpg's on as they are
                if isinstance(error, AsyncLoaderError):
                    raise
                if is_cancelled(error):
                    self._raise_too_slow(error, (self.clock.now_ns() - began) / 1e9)
                elif not is_transient(error):
                    raise_denied(error, self.engine.url)
                    raise
                await self.sleep(patience.next_pause(error))
            else:
                self.watchdog.heard()
                return found

    def _raise_too_slow(self, error: Exception, seconds: float) -> None:
        """Raise `JobError` unless a statement was cancelled within its limit, so by somebody."""
        if seconds >= self._limit:
            raise JobError(
                f"a statement of the job's own was cancelled after {seconds:.1f} s, and its "
                f"statement_timeout is {self._limit:g} s: raise that for the job's role, or have "
                "an index serve what the job selects"
            ) from error

    async def sleep(self, seconds: float) -> None:
        """Wait by this reader's clock."""
        await self.clock.sleep(seconds)


def keys_reader(
    reader: Reader, sessions: Sessions, keyset: Keyset
) -> Callable[[Executable], Awaitable[list[Any]]]:
    """
    Return what reads the keys of a job, through its own sessions: what these do to a statement,
    a search path or a condition that is added, holds for the keys as it does for the rows.
    """

    async def read(select: Executable) -> list[Any]:
        async def attempt() -> list[Any]:
            async with sessions() as session:
                await begin(session)
                if keyset.ordering.needs_settings:
                    await session.execute(_OUR_SETTINGS)
                rows = list(await session.execute(select))
                await session.rollback()
                return rows

        return await reader.retry_transient(attempt)

    return read


_OUR_SETTINGS = select_(*(func.set_config(name, value, True) for name, value in SETTINGS.items()))
