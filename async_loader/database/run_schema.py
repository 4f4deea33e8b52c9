"""
A run's own schema: made by us, marked by us, and the only thing that we ever drop.

A run holds an advisory lock for as long as it lives. A schema whose marker is ours and whose
lock nobody holds was left by a dead run, and the next run removes it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from asyncpg.exceptions import InternalClientError
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..concurrency.tasks import cancel, to_the_end
from ..errors import DatabaseError
from ..failures.classification import sqlstate_of
from .postgresql import Namespace, closing, create_engine, first_line, unreachable

PREFIX = "async_loader_run_"
MARKER = "async_loader_marker"
_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{8}}")
_LOCK_CLASS = 0x41534C44  # "ASLD": our half of the two-part advisory lock key
_UNDEFINED_TABLE = "42P01"

# What a statement raises on a connection that the server cuts: asyncpg's InternalClientError
# while only half of the end has arrived, which SQLAlchemy 2.0 passes on as it is.
_CUT = (DBAPIError, InternalClientError)
# Whatever a server that is down, restarting or out of reach answers with.
_TROUBLE = (*_CUT, DatabaseError, OSError)

_LOOK_EVERY = 0.25
_RETURN_SECONDS = 1.5
_ANSWER_SECONDS = 5.0
_DROP_SECONDS = 60.0


@asynccontextmanager
async def run_namespace(url: URL, *, keep: bool = False) -> AsyncIterator[Namespace]:
    """Yield a run's own schema as a `Namespace`; see `run_schema`."""
    async with run_schema(url, keep=keep) as name:
        yield Namespace(schema=name)


@asynccontextmanager
async def run_schema(url: URL, *, keep: bool = False) -> AsyncIterator[str]:
    """
    Make a schema for one run, yield its name, and drop it at the end.

    `keep` leaves it, marked as kept, so that no later run takes it for a dead one's.
    Schemas of dead runs are removed first. The end is bounded in time, and is not cut short
    by a cancellation. Raises `DatabaseError`.
    """
    engine = create_engine(url, pool_size=1)
    async with closing(engine), aclosing(_Guard(engine)) as guard:
        try:
            await guard.connect()
            await _remove_abandoned(guard.connection)
            name = await guard.claim()
        except _TROUBLE as error:
            raise unreachable(error, url) from error
        keeper = asyncio.create_task(guard.keep(name))
        try:
            try:
                await _create(guard.connection, name, keep)
            except _TROUBLE as error:
                raise unreachable(error, url) from error
            yield name
        finally:
            await to_the_end(_finish(guard, keeper, name))


class _Guard:
    """
    The connection that holds the run's lock, made anew when the server has cut it.

    In AUTOCOMMIT, for a session's locks live as long as it does.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self.connection: AsyncConnection
        self._driver: Any = None

    @property
    def cut(self) -> bool:
        """Whether the connection has ended, which its socket tells by itself."""
        return self._driver is None or bool(self._driver.is_closed())

    async def connect(self) -> None:
        """Connect, or connect again."""
        await self.aclose()
        self.connection = await self._engine.connect()
        self._driver = (await self.connection.get_raw_connection()).driver_connection
        await self.connection.execute(text("SET lock_timeout = '10s'"))

    async def aclose(self) -> None:
        """Give the connection up, and with it the lock."""
        if self._driver is not None:
            self._driver.terminate()
            self._driver = None
            await self.connection.invalidate()
            await self.connection.close()

    async def claim(self) -> str:
        """Return a new name whose lock is ours: from its first instant it is a living run's."""
        while True:
            name = f"{PREFIX}{secrets.randbits(31):08x}"
            if await _try_lock(self.connection, name):
                return name

    async def keep(self, name: str) -> None:
        """Take the lock again whenever the server has cut the connection, as a restart does."""
        held = True
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if held and not self.cut:
                continue
            held = False
            with suppress(*_TROUBLE):
                if self.cut:
                    await self.connect()
                held = await _try_lock(self.connection, name)


async def _create(guard: AsyncConnection, name: str, keep: bool) -> None:
    # A DO block is one statement and so one transaction: no schema without its marker.
    await guard.exec_driver_sql(
        f"DO $$BEGIN CREATE SCHEMA {name};"
        f"CREATE TABLE {name}.{MARKER} (run text NOT NULL, keep boolean NOT NULL,"
        f" created_at timestamptz NOT NULL DEFAULT now());"
        f"INSERT INTO {name}.{MARKER} (run, keep) VALUES ('{name}', {keep}); END$$"
    )


async def _remove_abandoned(guard: AsyncConnection) -> None:
    abandoned = [name for name in await _marked(guard) if await _is_free(guard, name)]
    if not abandoned:
        return
    # A living run whose connection was cut a moment ago takes its lock again in this time.
    await asyncio.sleep(_RETURN_SECONDS)
    for name in abandoned:
        if await _try_lock(guard, name):
            try:
                await _drop_if_abandoned(guard, name)
            except DBAPIError:
                pass  # another role's: not ours to drop
            finally:
                await _unlock(guard, name)


async def _marked(guard: AsyncConnection) -> list[str]:
    names = await guard.scalars(
        text(
            "SELECT nspname FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid"
            " WHERE c.relname = :marker AND c.relkind = 'r' AND starts_with(nspname, :prefix)"
        ),
        {"marker": MARKER, "prefix": PREFIX},
    )
    return [name for name in names if _NAME.fullmatch(name)]


async def _drop_if_abandoned(guard: AsyncConnection, name: str) -> None:
    """Drop a schema whose marker names it and does not say to keep it."""
    ours = await guard.scalar(
        text(f"SELECT run = :name AND NOT keep FROM {name}.{MARKER}"), {"name": name}
    )
    if ours:
        await guard.execute(text(f"DROP SCHEMA {name} CASCADE"))


async def _finish(guard: _Guard, keeper: asyncio.Task[None], name: str) -> None:
    """Drop our schema, by a new connection where the server has cut ours."""
    await cancel(keeper)
    try:
        try:
            await _drop(guard, name)
        except _CUT as error:
            if sqlstate_of(error) == _UNDEFINED_TABLE:
                return  # it was never made
            await guard.connect()
            await _drop(guard, name)
    except _TROUBLE as error:
        reason = "no answer" if isinstance(error, TimeoutError) else first_line(error)
        raise DatabaseError(
            f"schema {name} could not be dropped ({reason}); the next run removes it"
        ) from error


async def _drop(guard: _Guard, name: str) -> None:
    async with asyncio.timeout(_ANSWER_SECONDS) as deadline:
        if guard.cut:
            await guard.connect()
        await guard.connection.execute(text("SELECT 1"))
        deadline.reschedule(asyncio.get_running_loop().time() + _DROP_SECONDS)
        await _drop_if_abandoned(guard.connection, name)


async def _is_free(guard: AsyncConnection, name: str) -> bool:
    free = await _try_lock(guard, name)
    if free:
        await _unlock(guard, name)
    return free


async def _unlock(guard: AsyncConnection, name: str) -> None:
    await guard.execute(text("SELECT pg_advisory_unlock(:class, :key)"), _key(name))


async def _try_lock(guard: AsyncConnection, name: str) -> bool:
    return bool(await guard.scalar(text("SELECT pg_try_advisory_lock(:class, :key)"), _key(name)))


def _key(name: str) -> dict[str, int]:
    return {"class": _LOCK_CLASS, "key": int(name.removeprefix(PREFIX), 16)}
