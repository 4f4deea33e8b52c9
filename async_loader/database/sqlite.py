"""
SQLite files: engines, and a run's own tables.

SQLite has no schemas and no advisory locks. A run's tables carry its name as a prefix, one of
them is the marker, and a lock file beside the database says that the run lives.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine as create_sqlalchemy_engine
from sqlalchemy import event, inspect, text
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

from ..errors import DatabaseError
from .postgresql import Namespace, ServerInfo, first_line

PREFIX = "async_loader_run_"
MARKER = "marker"
BUSY_TIMEOUT = 30.0
# SQLite has no limit of connections; this one is of file descriptors and threads.
_MOST_CONNECTIONS = 500
_SYNCHRONOUS = ("off", "normal", "full", "extra")
_MARKER_NAME = re.compile(rf"({PREFIX}[0-9a-f]{{8}}_){MARKER}")
_BEGIN = "async_loader_begin"
# Execution options of who only reads: beside a writer, and not in its way.
READING = {_BEGIN: "BEGIN"}


def create_engine(
    url: URL, *, pool_size: int, pool_timeout: float = 30.0, namespace: Namespace | None = None
) -> AsyncEngine:
    """Return an engine with a busy timeout; the namespace is in the tables' names."""
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout,
        connect_args={"timeout": BUSY_TIMEOUT},
    )
    _configure(engine.sync_engine)
    return engine


def create_sync_engine(
    url: URL,
    *,
    pool_size: int,
    namespace: Namespace | None = None,
    statement_timeout: float | None = None,
) -> Engine:
    """Return the same over the sqlite3 module; SQLite knows no statement timeout."""
    engine = create_sqlalchemy_engine(
        url.set(drivername="sqlite"),
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"timeout": BUSY_TIMEOUT},
    )
    _configure(engine)
    return engine


def session_factories(
    engine: AsyncEngine, *, reads_autocommit: bool
) -> tuple[async_sessionmaker[AsyncSession], async_sessionmaker[AsyncSession]]:
    """Return factories for writes, which BEGIN IMMEDIATE, and for reads."""
    writing = engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
    return (
        async_sessionmaker(writing, expire_on_commit=False),
        async_sessionmaker(engine, expire_on_commit=False),
    )


def sync_session_factories(
    engine: Engine, *, reads_autocommit: bool
) -> tuple[sessionmaker[Session], sessionmaker[Session]]:
    """Return the same for plain sessions."""
    writing = engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
    return (
        sessionmaker(writing, expire_on_commit=False),
        sessionmaker(engine, expire_on_commit=False),
    )


def check_file(url: URL) -> None:
    """
    Raise `DatabaseError` for a file that cannot be opened.

    aiosqlite's thread may outlive a loop that it failed, and then prints a traceback.
    """
    engine = create_sync_engine(url, pool_size=1)
    try:
        engine.connect().close()
    except DBAPIError as error:
        raise _unusable(url, error) from error
    finally:
        engine.dispose()


async def probe(engine: AsyncEngine) -> ServerInfo:
    """Return what the file says; raises `DatabaseError` where it cannot be used."""
    await asyncio.to_thread(check_file, engine.url)
    try:
        async with engine.connect() as connection:
            journal = await connection.scalar(text("PRAGMA journal_mode"))
            synchronous = await connection.scalar(text("PRAGMA synchronous"))
    except (DBAPIError, OSError) as error:
        raise _unusable(engine.url, error) from error
    settings = {"journal_mode": str(journal), "synchronous": _SYNCHRONOUS[int(synchronous or 0)]}
    return ServerInfo("SQLite", sqlite3.sqlite_version, settings, _MOST_CONNECTIONS)


@asynccontextmanager
async def run_namespace(url: URL, *, keep: bool = False) -> AsyncIterator[Namespace]:
    """
    Yield a prefix for the tables of one run, which are dropped at the end unless kept.

    Tables of dead runs are removed first: those with our marker whose lock nobody holds.
    """
    engine = create_sync_engine(url, pool_size=1)
    try:
        prefix = f"{PREFIX}{secrets.token_hex(4)}_"
        with _lock(url, prefix):
            try:
                _remove_abandoned(url, engine)
                _mark(engine, prefix, keep)
            except (DBAPIError, OSError) as error:
                raise _unusable(url, error) from error
            try:
                yield Namespace(prefix=prefix)
            finally:
                if not keep:
                    _drop(engine, prefix)
    finally:
        engine.dispose()


def _configure(engine: Engine) -> None:
    """Set WAL in a file that we make, and begin transactions ourselves."""
    database = Path(str(engine.url.database))

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        # The driver would begin by itself, deferred and late: a read that turns into a write
        # fails at once with "database is locked", whatever the busy timeout.
        connection.isolation_level = None
        # It is kept in the file, for whoever opens it next: that of another's stays as it is.
        if database.exists() and not database.stat().st_size:
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


def _mark(engine: Engine, prefix: str, keep: bool) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {prefix}{MARKER} (run TEXT, keep BOOLEAN)"))
        connection.execute(
            text(f"INSERT INTO {prefix}{MARKER} VALUES (:run, :keep)"),
            {"run": prefix, "keep": keep},
        )


def _remove_abandoned(url: URL, engine: Engine) -> None:
    for name in inspect(engine).get_table_names():
        if match := _MARKER_NAME.fullmatch(name):
            with suppress(BlockingIOError), _lock(url, match[1]):
                _drop(engine, match[1])


def _drop(engine: Engine, prefix: str) -> None:
    """Drop the tables of a run whose marker names it and does not say to keep them."""
    with engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"}).begin() as connection:
        marker = connection.execute(text(f"SELECT run, keep FROM {prefix}{MARKER}")).first()
        if marker is None or marker.run != prefix or marker.keep:
            return
        tables = [t for t in inspect(connection).get_table_names() if t.startswith(prefix)]
        # The children go first, and the marker last of all.
        for table in sorted(tables, key=lambda t: (t.endswith(MARKER), not t.endswith("child"))):
            connection.execute(text(f"DROP TABLE {table}"))


@contextmanager
def _lock(url: URL, prefix: str) -> Iterator[None]:
    """Hold a run's lock file; raises `BlockingIOError` while another process does."""
    path = Path(f"{url.database}.{prefix}lock")
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise _unusable(url, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _unusable(url: URL, error: BaseException) -> DatabaseError:
    reason = error.strerror if isinstance(error, OSError) else first_line(error)
    return DatabaseError(f"the SQLite file {url.database} cannot be used: {reason}")
