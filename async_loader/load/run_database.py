"""The database that a run runs on: the user's server, ours, or the workload's own sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..concurrency.tasks import to_the_end
from ..database.backends import Backend, backend_of
from ..database.embedded import embedded_server
from ..database.postgresql import Namespace, ServerInfo, closing
from ..database.session_factories import Sessions, engines_of, why_unusable
from ..database.urls import parse_url, place, redact
from ..errors import WorkloadError
from ..inserts import enable_batch_inserting
from ..reads import enable_fast_paths
from ..runtime.under_way import under_way
from ..runtime.user_modules import called
from .specs.load_test import DatabaseSpec, LoadTestSpec
from .workload import Workload

T = TypeVar("T")
Say = Callable[[str], None]

_COUNT_STATEMENTS = text("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
# Left free of a server's connections: our guard, what asks for the server's account, and
# somebody who wants to look.
_SPARE_CONNECTIONS = 3
# How long an operation waits for a connection is its own timeout's business.
_POOL_TIMEOUT = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Database:
    """What a workload that uses a database runs on, and what to say of it."""

    url: URL | None
    """None where an application's own sessions do not tell it."""
    namespace: Namespace
    sessions: Sessions
    read_sessions: Sessions
    engines: tuple[AsyncEngine, ...] = ()
    connections: int | None = None
    """The most that the run opens for its operations; None where that is the workload's."""
    environment: dict[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def open_database(spec: LoadTestSpec, say: Say) -> AsyncIterator[Database]:
    """Yield sessions on a schema of the run's own, in the user's server or in ours."""
    async with AsyncExitStack() as stack:
        wanted = spec.database
        url = await stack.enter_async_context(server_url(wanted, say))
        backend = backend_of(url)
        say("connecting")
        counted = wanted.url is None and spec.instruments.server_side
        server = await _probe(backend, url, with_statements=counted)
        namespace = await stack.enter_async_context(
            backend.run_namespace(url, keep=wanted.keep_data)
        )
        database = await stack.enter_async_context(
            connected(wanted, url, namespace, pool_size(spec, server))
        )
        facts = _database_facts(wanted, url, server, namespace)
        yield replace(database, environment={"database": facts})


@asynccontextmanager
async def connected(
    spec: DatabaseSpec, url: URL, namespace: Namespace, connections: int
) -> AsyncIterator[Database]:
    """Yield sessions on a schema that somebody has made, over a pool of so many connections."""
    backend = backend_of(url)
    engine = backend.create_engine(
        url, pool_size=connections, pool_timeout=_POOL_TIMEOUT, namespace=namespace
    )
    async with closing(engine):
        sessions, read_sessions = backend.session_factories(
            engine, reads_autocommit=spec.reads_autocommit
        )
        speed_up(spec, sessions, read_sessions)
        yield Database(url, namespace, sessions, read_sessions, (engine,), connections)


def speed_up(spec: DatabaseSpec, sessions: Any, read_sessions: Any) -> None:
    """Turn on what was asked for, for two factories of either kind of session."""
    if spec.batches_inserts:
        enable_batch_inserting(sessions)
    if spec.has_fast_paths:
        for factory in (sessions, read_sessions):
            enable_fast_paths(factory)


@asynccontextmanager
async def own_database(spec: DatabaseSpec, workload: Workload) -> AsyncIterator[Database]:
    """Yield the sessions that a workload brings: the application's engine, pool and events."""
    assert workload.sessions_hook is not None
    whose = f"the sessions of workload {workload.name!r}"
    sessions = called(workload.sessions_hook, whose)
    if (why := why_unusable(sessions)) is not None:
        raise WorkloadError(f"{whose} {why}")
    engines = engines_of(sessions)
    async with AsyncExitStack() as stack:
        for engine in engines:
            await stack.enter_async_context(closing(engine))
        facts = await _own_facts(spec, engines[0]) if engines else None
        if facts is not None and len(engines) > 1:
            facts["where"] = f"at {', '.join(dict.fromkeys(place(e.url) for e in engines))}"
        yield Database(
            url=engines[0].url if engines else None,
            namespace=Namespace(),
            sessions=sessions,
            read_sessions=sessions,
            engines=engines,
            environment={"database": facts} if facts is not None else {},
        )


async def _own_facts(spec: DatabaseSpec, engine: AsyncEngine) -> dict[str, Any]:
    kind = engine.url.get_backend_name()
    server = ServerInfo(kind, "", {}, 0)
    if kind in ("postgresql", "sqlite"):
        server = await backend_of(engine.url).probe(engine)
    return _database_facts(spec, engine.url, server, None)


def pool_size(spec: LoadTestSpec, server: ServerInfo) -> int:
    """
    Return as many connections as operations can be in flight, within what the server has left.

    Without a limit of operations it is the pool that throttles, with a size of its own. A
    size that was asked for is not made smaller.
    """
    most = max(1, server.free_connections - _SPARE_CONNECTIONS)
    return spec.database.pool_size or min(spec.load_model.connections, most)


@asynccontextmanager
async def server_url(spec: DatabaseSpec, say: Say) -> AsyncIterator[URL]:
    """Yield the URL of the user's server, or of ours, which runs for the block."""
    if spec.url is not None:
        yield parse_url(spec.url)
        return
    say("starting the embedded PostgreSQL")
    under_way.own_server = True
    async with _off_the_loop(embedded_server(spec.server_directory)) as server:
        yield parse_url(server.url)


@asynccontextmanager
async def _off_the_loop(context: AbstractContextManager[T]) -> AsyncIterator[T]:
    """
    Enter and leave a blocking context in a thread.

    A cancellation while it is entered or left, however often, waits for the thread: nothing
    that it starts is forgotten.
    """
    entering = asyncio.create_task(asyncio.to_thread(context.__enter__))
    try:
        value = await to_the_end(entering)
        yield value
    finally:
        if entering.exception() is None:
            await to_the_end(asyncio.to_thread(context.__exit__, None, None, None))


async def _probe(backend: Backend, url: URL, *, with_statements: bool) -> ServerInfo:
    """Ask the server; have it count statements where it is ours (in a user's nothing is made)."""
    async with closing(backend.create_engine(url, pool_size=1)) as engine:
        server = await backend.probe(engine)
        if with_statements:
            with suppress(DBAPIError):  # another run makes it at the same time
                async with engine.begin() as connection:
                    await connection.execute(_COUNT_STATEMENTS)
        return server


def _database_facts(
    spec: DatabaseSpec, url: URL, server: ServerInfo, namespace: Namespace | None
) -> dict[str, Any]:
    embedded = spec.url is None and namespace is not None
    facts: dict[str, Any] = {
        "product": server.product,
        "version": server.version,
        "where": "(embedded)" if embedded else f"at {place(url)}",
        "url": None if embedded else redact(url),
        "settings": dict(server.settings),
    }
    if spec.keep_data and namespace is not None:
        facts["kept"] = namespace.schema or f"{namespace.prefix}*"
    return facts
