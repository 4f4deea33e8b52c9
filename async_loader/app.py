"""The composition root: settings in, wired objects out, a result back."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from sqlalchemy.engine import URL

from .database import (
    ServerInfo,
    autocommit,
    create_engine,
    create_sessions,
    parse_url,
    place,
    probe,
    redact,
)
from .errors import DatabaseError
from .limits import Stop
from .postgres import embedded_server
from .results import RunResult
from .run_schema import run_schema
from .runner import OnProgress, Sessions, run
from .settings import RunSettings
from .throttles import Chunks, Semaphore, Throttle
from .workload import Workload
from .workloads import mixed, noop

T = TypeVar("T")
Say = Callable[[str], None]

# Left free of a server's connections: our guard, and somebody who wants to look.
_SPARE_CONNECTIONS = 3
# How long an operation waits for a connection is its own timeout's business.
_POOL_TIMEOUT = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Database:
    """What a workload that uses a database runs on, and what to say of it."""

    sessions: Sessions
    read_sessions: Sessions
    environment: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that came to its result, and what went wrong afterwards, if anything did."""

    result: RunResult
    cleanup_error: DatabaseError | None = None


async def run_workload(
    settings: RunSettings, *, stop: Stop, on_progress: OnProgress, say: Say
) -> Finished:
    """
    Run what the settings ask for, on a schema of its own, and clean up.

    `say` is told of each phase before the run. Raises an `AsyncLoaderError`; once there is a
    result, a database that cannot be cleaned up any more does not take it away.
    """
    workload = build_workload(settings)
    workload.mix(seed=settings.seed, write_ratio=settings.write_ratio)  # fail before any work
    result = None
    try:
        async with AsyncExitStack() as stack:
            database = None
            if any("session" in o.wants for o in workload.operations.values()):
                database = await stack.enter_async_context(open_database(settings, say))
            say("running")
            result = await _run(workload, settings, database, stop, on_progress)
            say("cleaning up")
    except DatabaseError as error:
        if result is None:
            raise
        return Finished(result, error)
    return Finished(result)


async def _run(
    workload: Workload,
    settings: RunSettings,
    database: Database | None,
    stop: Stop,
    on_progress: OnProgress,
) -> RunResult:
    result = await run(
        workload,
        sessions=database.sessions if database else None,
        read_sessions=database.read_sessions if database else None,
        ops=settings.limit.ops,
        duration=settings.limit.duration,
        throttle=build_throttle(settings),
        seed=settings.seed,
        write_ratio=settings.write_ratio,
        warmup=settings.warmup,
        op_timeout=settings.op_timeout,
        grace=settings.grace,
        stop=stop,
        on_progress=on_progress,
    )
    facts = environment() | (database.environment if database else {})
    return replace(result, settings=shown_settings(settings), environment=facts)


def build_workload(settings: RunSettings) -> Workload:
    """Return the workload that the settings name."""
    if settings.workload == "noop":
        return noop.build()
    return mixed.build(read_via=settings.read_via, read_from=settings.read_from)


def build_throttle(settings: RunSettings) -> Throttle:
    """Return the policy that lets operations in."""
    policy = Chunks if settings.mode == "chunks" else Semaphore
    return policy(settings.concurrency)


@asynccontextmanager
async def open_database(settings: RunSettings, say: Say) -> AsyncIterator[Database]:
    """Yield sessions on a schema of the run's own, in the user's server or in ours."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(_server_url(settings, say))
        say("connecting")
        server = await _probe(url)
        schema = await stack.enter_async_context(run_schema(url, keep=settings.keep_data))
        if settings.keep_data:
            say(f"keeping the data in schema {schema}")
        size = pool_size(settings, server)
        engine = create_engine(url, pool_size=size, pool_timeout=_POOL_TIMEOUT, schema=schema)
        stack.push_async_callback(engine.dispose)
        sessions = create_sessions(engine)
        yield Database(
            sessions=sessions,
            read_sessions=autocommit(sessions) if settings.reads_autocommit else sessions,
            environment={"database": _database_facts(settings, url, server, schema)},
        )


def pool_size(settings: RunSettings, server: ServerInfo) -> int:
    """Return as many connections as can be in flight, within what the server has left."""
    wanted = settings.pool_size or settings.concurrency
    return max(1, min(wanted, server.free_connections - _SPARE_CONNECTIONS))


@asynccontextmanager
async def _server_url(settings: RunSettings, say: Say) -> AsyncIterator[URL]:
    if settings.database_url is not None:
        yield parse_url(settings.database_url.get_secret_value())
        return
    say("starting the embedded PostgreSQL")
    async with _off_the_loop(embedded_server(settings.server_directory)) as server:
        yield parse_url(server.url)


@asynccontextmanager
async def _off_the_loop(context: AbstractContextManager[T]) -> AsyncIterator[T]:
    """
    Enter and leave a blocking context in a thread.

    A cancellation while it is entered waits for the thread and leaves the context again:
    nothing that the thread starts is forgotten.
    """
    entering = asyncio.create_task(asyncio.to_thread(context.__enter__))
    try:
        value = await asyncio.shield(entering)
    except asyncio.CancelledError:
        await asyncio.wait({entering})
        if entering.exception() is None:
            await asyncio.to_thread(context.__exit__, None, None, None)
        raise
    try:
        yield value
    finally:
        await asyncio.shield(asyncio.to_thread(context.__exit__, None, None, None))


async def _probe(url: URL) -> ServerInfo:
    engine = create_engine(url, pool_size=1)
    try:
        return await probe(engine)
    finally:
        await engine.dispose()


def _database_facts(
    settings: RunSettings, url: URL, server: ServerInfo, schema: str
) -> dict[str, Any]:
    embedded = settings.database_url is None
    facts: dict[str, Any] = {
        "version": server.version,
        "where": "(embedded)" if embedded else f"at {place(url)}",
        "url": None if embedded else redact(url),
        **server.settings,
    }
    if settings.keep_data:
        facts["schema"] = schema
    return facts


def shown_settings(settings: RunSettings) -> dict[str, Any]:
    """Return the settings for the report, as JSON has them and without secrets."""
    shown = settings.model_dump(mode="json", exclude={"debug", "config", "out", "progress"})
    shown["ops"], shown["duration"] = settings.limit.ops, settings.limit.duration
    shown["read_autocommit"] = settings.reads_autocommit
    shown.pop("database_url")
    return shown


def environment() -> dict[str, Any]:
    """Return the versions and the machine that a run is measured on."""
    loop = type(asyncio.get_running_loop()).__module__
    return {
        "versions": {
            "async_loader": version("async_loader"),
            "Python": platform.python_version(),
            **{p: v for p in ("SQLAlchemy", "asyncpg", "uvloop") if (v := _version(p))},
        },
        "machine": {
            "platform": f"{platform.system()} {platform.machine()}",
            "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
            "loop": "uvloop" if loop.startswith("uvloop") else "asyncio",
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
