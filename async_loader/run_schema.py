"""
A run's own schema: made by us, marked by us, and the only thing that we ever drop.

A run holds an advisory lock for as long as it lives. A schema whose marker is ours and whose
lock nobody holds was left by a dead run, and the next run removes it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from .database import Namespace, create_engine, first_line, unreachable
from .errors import DatabaseError

PREFIX = "async_loader_run_"
MARKER = "async_loader_marker"
_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{8}}")
_LOCK_CLASS = 0x41534C44  # "ASLD": our half of the two-part advisory lock key


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
    Schemas of dead runs are removed first. Raises `DatabaseError`.
    """
    async with AsyncExitStack() as stack:
        guard = await stack.enter_async_context(_connection(url))
        try:
            await _remove_abandoned(guard)
            name = await _create(guard, keep)
        except DBAPIError as error:
            raise unreachable(error, url) from error
        try:
            yield name
        finally:
            if not keep:
                await _drop_at_end(url, guard, name)


@asynccontextmanager
async def _connection(url: URL) -> AsyncIterator[AsyncConnection]:
    """Yield a connection of its own in AUTOCOMMIT: session locks live as long as it does."""
    engine = create_engine(url, pool_size=1).execution_options(isolation_level="AUTOCOMMIT")
    try:
        try:
            connection = await engine.connect()
        except Exception as error:
            raise unreachable(error, url) from error
        try:
            await connection.execute(text("SET lock_timeout = '10s'"))
            yield connection
        finally:
            await connection.close()
    finally:
        await engine.dispose()


async def _create(guard: AsyncConnection, keep: bool) -> str:
    while True:
        name = f"{PREFIX}{secrets.randbits(31):08x}"
        # The lock comes first: from its first instant the schema is a living run's.
        if await _try_lock(guard, name):
            break
    # A DO block is one statement and so one transaction: no schema without its marker.
    await guard.exec_driver_sql(
        f"DO $$BEGIN CREATE SCHEMA {name};"
        f"CREATE TABLE {name}.{MARKER} (run text NOT NULL, keep boolean NOT NULL,"
        f" created_at timestamptz NOT NULL DEFAULT now());"
        f"INSERT INTO {name}.{MARKER} (run, keep) VALUES ('{name}', {keep}); END$$"
    )
    return name


async def _remove_abandoned(guard: AsyncConnection) -> None:
    marked = await guard.scalars(
        text(
            "SELECT nspname FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid"
            " WHERE c.relname = :marker AND c.relkind = 'r' AND starts_with(nspname, :prefix)"
        ),
        {"marker": MARKER, "prefix": PREFIX},
    )
    for name in marked.all():
        if _NAME.fullmatch(name) and await _try_lock(guard, name):
            try:
                await _drop_if_abandoned(guard, name)
            except DBAPIError:
                pass  # another role's: not ours to drop
            finally:
                await guard.execute(text("SELECT pg_advisory_unlock(:class, :key)"), _key(name))


async def _drop_if_abandoned(guard: AsyncConnection, name: str) -> None:
    """Drop a schema whose marker names it and does not say to keep it."""
    ours = await guard.scalar(
        text(f"SELECT run = :name AND NOT keep FROM {name}.{MARKER}"), {"name": name}
    )
    if ours:
        await guard.execute(text(f"DROP SCHEMA {name} CASCADE"))


async def _drop_at_end(url: URL, guard: AsyncConnection, name: str) -> None:
    """Drop our schema, by a new connection where the server has cut ours."""
    try:
        try:
            await _drop_if_abandoned(guard, name)
        except DBAPIError:
            async with _connection(url) as fresh:
                await _drop_if_abandoned(fresh, name)
    except (DBAPIError, DatabaseError, OSError) as error:
        raise DatabaseError(
            f"schema {name} could not be dropped ({first_line(error)}); the next run removes it"
        ) from error


async def _try_lock(guard: AsyncConnection, name: str) -> bool:
    return bool(await guard.scalar(text("SELECT pg_try_advisory_lock(:class, :key)"), _key(name)))


def _key(name: str) -> dict[str, int]:
    return {"class": _LOCK_CLASS, "key": int(name.removeprefix(PREFIX), 16)}
