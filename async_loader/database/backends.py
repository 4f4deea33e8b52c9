"""The kinds of database that a run can use, as one set of functions each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from sqlalchemy.engine import URL, Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from . import postgresql as database
from . import run_schema, sqlite
from .postgresql import Namespace, ServerInfo

_Factories = tuple[async_sessionmaker[AsyncSession], async_sessionmaker[AsyncSession]]
_SyncFactories = tuple[sessionmaker[Session], sessionmaker[Session]]


@dataclass(frozen=True, slots=True)
class Backend:
    """How to connect to a kind of database and where a run's tables go in it."""

    create_engine: Callable[..., AsyncEngine]
    create_sync_engine: Callable[..., Engine]
    session_factories: Callable[..., _Factories]
    sync_session_factories: Callable[..., _SyncFactories]
    probe: Callable[[AsyncEngine], Awaitable[ServerInfo]]
    run_namespace: Callable[..., AbstractAsyncContextManager[Namespace]]


POSTGRESQL = Backend(
    create_engine=database.create_engine,
    create_sync_engine=database.create_sync_engine,
    session_factories=database.session_factories,
    sync_session_factories=database.sync_session_factories,
    probe=database.probe,
    run_namespace=run_schema.run_namespace,
)
SQLITE = Backend(
    create_engine=sqlite.create_engine,
    create_sync_engine=sqlite.create_sync_engine,
    session_factories=sqlite.session_factories,
    sync_session_factories=sqlite.sync_session_factories,
    probe=sqlite.probe,
    run_namespace=sqlite.run_namespace,
)


def backend_of(url: URL) -> Backend:
    """Return the backend of a URL that `database.parse_url` has accepted."""
    return SQLITE if url.get_backend_name() == "sqlite" else POSTGRESQL
