"""What a job's connections really do, whatever has set it, looked at before it begins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from ..database.postgresql import unreachable
from ..errors import ConfigurationError
from ..failures.classification import sqlstate_of
from .definition import Sessions
from .transient import is_cancelled, is_refused_login, is_transient, limit_of

AUTOCOMMIT = (
    "a job's sessions cannot be in AUTOCOMMIT: a chunk would not be one transaction; "
    "give the job an engine without it (isolation_level, connect_args, listeners)"
)
OTHER_BIND = (
    "a job's rows, what apply writes and the job's position must be on one connection, and "
    "{what} is bound to another: give the job sessions with one bind"
)
NO_SESSIONS = "a job needs an async_sessionmaker with an AsyncEngine"
_IDLE = 0  # psycopg's TransactionStatus


def driver_of(connection: Connection) -> Any:
    """Return the driver's own connection."""
    return connection.connection.driver_connection


def in_transaction(driver: Any) -> bool:
    """Return whether a driver's connection is in a transaction, as the server last said."""
    if hasattr(driver, "is_in_transaction"):  # asyncpg
        return bool(driver.is_closed() or driver.is_in_transaction())
    if hasattr(driver, "info"):  # psycopg; of one that is broken nothing is known
        return bool(driver.info.transaction_status != _IDLE)
    return bool(driver.in_transaction)  # aiosqlite


def server_pid(driver: Any) -> int:
    """Return the process that answers, as the driver was told when it connected."""
    if hasattr(driver, "get_server_pid"):
        return int(driver.get_server_pid())
    return int(driver.info.backend_pid)


@dataclass(frozen=True, slots=True)
class SessionKind:
    """What a connection is: `direct`, or a pooler's; a statement's limit in seconds."""

    direct: bool = False
    limit: float = math.inf


async def kind_of(connection: AsyncConnection) -> SessionKind:
    """
    Return what a connection to PostgreSQL is.

    A pooler tells its clients a number of its own and not that of a backend.
    """
    assert connection.sync_connection is not None
    said = server_pid(driver_of(connection.sync_connection))
    pid, limit = (await connection.execute(_KIND)).one()
    return SessionKind(direct=pid == said, limit=limit_of(limit))


_KIND = text("SELECT pg_backend_pid(), current_setting('statement_timeout')")


def begin_sync(session: Session) -> Connection:
    """Begin a session's transaction, where it does not do so by itself, on its one connection."""
    if not (session.autobegin or session.in_transaction()):
        session.begin()
    return session.connection()


async def begin(session: AsyncSession) -> AsyncConnection:
    """Do the same outside a greenlet."""
    if not (session.sync_session.autobegin or session.in_transaction()):
        await session.begin()
    return await session.connection()


async def engine_of(sessions: Sessions) -> AsyncEngine:
    """Return the engine behind a session factory; raises `ConfigurationError` without one."""
    given: Any = sessions
    made: Any = given() if callable(given) else None  # an engine is not, nor is a session
    if not hasattr(made, "__aenter__"):
        raise ConfigurationError(NO_SESSIONS)
    async with made as session:
        bind, its = session.bind, session.sync_session
        if not isinstance(bind, AsyncEngine):
            raise ConfigurationError(NO_SESSIONS)
        if its.twophase:
            raise ConfigurationError("a job's sessions cannot be of two phases: leave twophase out")
        if sessions() is session:
            raise ConfigurationError(
                "a job needs a new session for each chunk, and this factory gives the same again: "
                "give the job the async_sessionmaker"
            )
        if its.get_bind() is not bind.sync_engine:
            raise ConfigurationError(OTHER_BIND.format(what="what the session writes"))
        if bind.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            raise ConfigurationError(AUTOCOMMIT)
        return bind


async def check_transactions(sessions: Sessions) -> SessionKind:
    """
    Return what connections are; no transactions are a `ConfigurationError`.

    Raises `DatabaseError` where nobody answers, or who does lets us not in.
    """
    async with sessions() as session:
        try:
            connection = await begin(session)
            on_postgresql = connection.dialect.name == "postgresql"
            kind = await kind_of(connection) if on_postgresql else SessionKind()
        except Exception as error:
            passes = is_cancelled(error) or (is_transient(error) and not is_refused_login(error))
            if sqlstate_of(error) is not None and passes:
                raise  # there is a server, and its trouble passes
            raise unreachable(error, _url_of(session)) from error
        sync = connection.sync_connection
        assert sync is not None
        # SQLite's driver begins with the first write: the first chunk will tell.
        if on_postgresql and not in_transaction(driver_of(sync)):
            raise ConfigurationError(AUTOCOMMIT)
        return kind


def _url_of(session: AsyncSession) -> URL:
    assert isinstance(session.bind, AsyncEngine)
    return session.bind.url


async def check_binds(sessions: Sessions, select: Select[Any]) -> None:
    """Raise `ConfigurationError` where a selected class is bound elsewhere than the rest."""
    entities = [d["entity"] for d in select.column_descriptions if d.get("entity") is not None]
    async with sessions() as session:
        its = session.sync_session
        for entity in entities:
            try:
                elsewhere = its.get_bind(entity) is not its.get_bind()
            except InvalidRequestError:  # an alias: its reading will tell
                continue
            if elsewhere:
                name = getattr(entity, "__name__", str(entity))
                raise ConfigurationError(OTHER_BIND.format(what=name))


def check_room(engine: AsyncEngine, workers: int) -> None:
    """Raise `ConfigurationError` where so many workers have no connections to work on."""
    if workers < 1:
        raise ConfigurationError("a job needs a worker")
    if engine.dialect.name == "sqlite" and workers > 1:
        raise ConfigurationError("SQLite has one writer: run the job with one worker")
    if engine.dialect.name not in ("sqlite", "postgresql"):
        raise ConfigurationError("a job needs PostgreSQL or SQLite")
    pool = engine.pool
    size, overflow = getattr(pool, "size", None), getattr(pool, "_max_overflow", -1)
    if callable(size) and overflow >= 0 and size() + overflow < workers + 1:
        raise ConfigurationError(
            f"{workers} workers need {workers + 1} connections, the pool has {size() + overflow}: "
            "raise pool_size"
        )
