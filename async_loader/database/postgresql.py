"""PostgreSQL: engines and sessions, what a server says, and URLs without their passwords."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from sqlalchemy import create_engine as create_sqlalchemy_engine
from sqlalchemy import event, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

from ..concurrency.tasks import to_the_end
from ..errors import DatabaseError, MissingExtraError
from ..failures.classification import NO_SERVER, REFUSED, TIMEOUT, classify, sqlstate_of
from ..failures.error_attributes import attribute, class_name
from .url_parameters import SQLALCHEMYS, asyncpg_arguments, psycopg_query
from .urls import place

CONNECT_TIMEOUT = 10.0
CLOSE_TIMEOUT = 3.0


@dataclass(frozen=True, slots=True)
class Namespace:
    """Where a run's tables are: in a schema of its own, or under a prefix where there is none."""

    schema: str | None = None
    prefix: str = ""


def create_engine(
    url: URL, *, pool_size: int, pool_timeout: float = 30.0, namespace: Namespace | None = None
) -> AsyncEngine:
    """
    Return an engine whose pool never grows beyond `pool_size` connections.

    The pool is LIFO: few hot connections beat many lukewarm ones. The namespace's schema
    goes first in each connection's search_path.
    """
    settings = {"application_name": str(url.query.get("application_name", "async_loader"))}
    if namespace is not None and namespace.schema is not None:
        settings["search_path"] = f"{namespace.schema}, public"
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout,
        pool_use_lifo=True,
        connect_args={"timeout": CONNECT_TIMEOUT, "server_settings": settings},
    )
    arguments = asyncpg_arguments(url.query)

    @event.listens_for(engine.sync_engine, "do_connect")
    def in_asyncpg_words(_dialect: object, _record: object, _args: object, named: Any) -> None:
        # SQLAlchemy hands on what the URL says, as text and by whatever name.
        for name in url.query.keys() - SQLALCHEMYS:
            named.pop(name, None)
        named.setdefault("timeout", CONNECT_TIMEOUT)
        named.update(arguments)

    return engine


@asynccontextmanager
async def closing(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """
    Yield the engine, and leave none of its connections open at the end.

    Closing waits for the server, for `CLOSE_TIMEOUT` seconds in all: an end without a
    bound is one that a dead network prevents. What is open then is broken off.
    """
    connections: WeakSet[Any] = WeakSet()

    @event.listens_for(engine.sync_engine, "connect")
    def remember(connection: Any, _record: object) -> None:
        connections.add(connection.driver_connection)

    try:
        yield engine
    finally:
        await to_the_end(_close(engine, connections))


async def _close(engine: AsyncEngine, connections: Iterable[Any]) -> None:
    with suppress(TimeoutError, DBAPIError, OSError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await engine.dispose()
    for connection in tuple(connections):
        break_off(connection)


def break_off(driver: Any) -> None:
    """Break a driver's connection off, without a word to the server: who waits for it fails."""
    if hasattr(driver, "terminate"):  # asyncpg
        if not driver.is_closed():
            driver.terminate()
    elif hasattr(driver, "pgconn") and not driver.closed:  # psycopg: libpq sees the end of a stream
        with suppress(OSError), socket.socket(fileno=os.dup(driver.pgconn.socket)) as its:
            its.shutdown(socket.SHUT_RDWR)


def create_sync_engine(
    url: URL,
    *,
    pool_size: int,
    namespace: Namespace | None = None,
    statement_timeout: float | None = None,
) -> Engine:
    """
    Return the same for psycopg 3, which the sync ways use.

    `statement_timeout` (seconds) is the server's: a blocked thread cannot be cancelled.
    Raises `MissingExtraError` where psycopg is not installed.
    """
    MissingExtraError.unless_installed("psycopg", "a sync mode on PostgreSQL", "sync")
    query = psycopg_query(url.query)
    options = []
    if namespace is not None and namespace.schema is not None:
        options.append(f"-c search_path={namespace.schema},public")
    if statement_timeout is not None:
        options.append(f"-c statement_timeout={int(statement_timeout * 1000)}")
    query.setdefault("connect_timeout", str(int(CONNECT_TIMEOUT)))
    return create_sqlalchemy_engine(
        url.set(drivername="postgresql+psycopg", query=query),
        pool_size=pool_size,
        max_overflow=0,
        pool_use_lifo=True,
        connect_args={"options": " ".join(options)},
    )


def create_sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Return a session factory as an asyncio application wants it."""
    return async_sessionmaker(engine, expire_on_commit=False)


def session_factories(
    engine: AsyncEngine, *, reads_autocommit: bool
) -> tuple[async_sessionmaker[AsyncSession], async_sessionmaker[AsyncSession]]:
    """
    Return factories for writes and for reads, on the same pool.

    Reads in AUTOCOMMIT save BEGIN and ROLLBACK, two of four round trips.
    """
    sessions = create_sessions(engine)
    if not reads_autocommit:
        return sessions, sessions
    return sessions, create_sessions(engine.execution_options(isolation_level="AUTOCOMMIT"))


def sync_session_factories(
    engine: Engine, *, reads_autocommit: bool
) -> tuple[sessionmaker[Session], sessionmaker[Session]]:
    """Return the same for plain sessions."""
    sessions = sessionmaker(engine, expire_on_commit=False)
    if not reads_autocommit:
        return sessions, sessions
    reading = engine.execution_options(isolation_level="AUTOCOMMIT")
    return sessions, sessionmaker(reading, expire_on_commit=False)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What the server says of itself; `free_connections` may be taken by an ordinary role."""

    product: str
    version: str
    settings: Mapping[str, str]
    free_connections: int


_SHOWN_SETTINGS = ("fsync", "synchronous_commit", "max_connections", "shared_buffers")


async def probe(engine: AsyncEngine) -> ServerInfo:
    """Return what the server says; raises `DatabaseError` with one line on what to do."""
    try:
        async with engine.connect() as connection:
            return await _server_info(connection)
    except Exception as error:
        raise unreachable(error, engine.url) from error


async def _server_info(connection: AsyncConnection) -> ServerInfo:
    names = [*_SHOWN_SETTINGS, "superuser_reserved_connections", "reserved_connections"]
    rows = await connection.execute(
        text("SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(:names)"),
        {"names": names},
    )
    settings = {str(row[0]): str(row[1]) for row in rows}
    used = await connection.scalar(
        text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    )
    version = await connection.scalar(text("SHOW server_version"))
    reserved = sum(int(settings.pop(name, 0)) for name in names[-2:])
    free = int(settings["max_connections"]) - reserved - int(used or 0) + 1  # this one ends
    return ServerInfo("PostgreSQL", str(version).split()[0], settings, free)


def unreachable(error: BaseException, url: URL) -> DatabaseError:
    """Return the one line that tells a user why the database cannot be used."""
    if isinstance(error, DatabaseError):
        return error
    where = place(url)
    database = url.database or url.username or "postgres"
    user = url.username or "the default user"
    state = sqlstate_of(error)
    if isinstance(error, socket.gaierror):
        return DatabaseError(f"the host of `database_url` is not known: {where}")
    by_state = {
        "28P01": f"PostgreSQL at {where} refused the password of {user}",
        "28000": f"PostgreSQL at {where} refuses {user}: {first_line(error)}",
        "3D000": f"database {database!r} does not exist at {where}: create it, or name another",
        "42501": f"{user} may not do this in {database!r}: {first_line(error)}; "
        f"{_grant(error, user)}",
        "25006": f"{where} is read-only (a standby?): a run needs a server that it may write to",
        "53300": f"{where} has no connection left: raise max_connections or stop other clients",
        "57P03": f"{where} is starting up or shutting down: try again in a moment",
        "53100": f"{where} has no disk space left",
    }
    if state in by_state:
        return DatabaseError(by_state[state])
    by_failure = {
        REFUSED.name: f"nothing listens at {where}: is the server running? (see `database_url`)",
        NO_SERVER.name: f"no server's socket in {where}: is the server running?",
        TIMEOUT.name: f"{where} does not answer within {CONNECT_TIMEOUT:g} s",
    }
    name = classify(error).name
    return DatabaseError(by_failure.get(name, f"{where}: {first_line(error)}"))


_DENIED = re.compile(r"permission denied for (\w+) (.+)")
_quote = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]  # SQLAlchemy's


def _grant(error: BaseException, user: str) -> str:
    """Return what gives a role the privilege that it lacks."""
    statement = str(getattr(error, "statement", None) or "")
    denied = _DENIED.search(first_line(error))
    if denied is None:
        return "its owner may"
    kind, said = denied[1].upper(), denied[2]
    name, user = said.strip('"'), _quote(user)
    making = statement.lstrip()[:6].upper() == "CREATE"
    privilege = {
        # Who is not let in has said nothing yet, and PostgreSQL quotes the name.
        "DATABASE": "CREATE" if statement else "CONNECT",
        "SCHEMA": "CREATE, USAGE" if making else "USAGE",
        "SEQUENCE": "USAGE", "FUNCTION": "EXECUTE",
    }.get(kind, "SELECT, INSERT, UPDATE, DELETE")  # fmt: skip
    qualified = re.search(rf'["\w]+\."?{re.escape(name)}"?(?![\w"])', statement)
    if kind in ("TABLE", "VIEW", "RELATION"):
        table = qualified[0] if qualified else _quote(name)
        return f"GRANT {privilege} ON {table} TO {user} is needed"
    return f"GRANT {privilege} ON {kind} {_quote(name)} TO {user} is needed"


def first_line(error: BaseException) -> str:
    """Return the first line of the driver's own message, without statement or parameters."""
    cause = attribute(error, "orig", BaseException) or error
    try:
        message = str(cause).strip()
    except BaseException:  # a user's own __str__ may raise anything, or return no text
        message = ""
    message = message or class_name(cause)
    return message.splitlines()[0].removeprefix(_class_prefix(message))


def _class_prefix(message: str) -> str:
    """SQLAlchemy's asyncpg adapter writes `<class '...'>: ` before the message."""
    return message[: message.index(">: ") + 3] if message.startswith("<class ") else ""
