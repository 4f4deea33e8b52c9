"""The composition root: settings in, wired objects out, a result back."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
)
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from .backends import Backend, backend_of
from .calls import Sessions
from .database import Namespace, ServerInfo, closing, parse_url, place, redact
from .errors import ConfigurationError, DatabaseError, WorkloadError
from .inserts import enable_batch_inserting
from .inserts_bench import Measure, measure_inserts
from .limits import Stop
from .loading import load_workload
from .option_types import SYNC_MODES
from .phase import OnProgress
from .postgres import embedded_server
from .results import RunResult
from .runner import prepared, run
from .settings import UNBOUNDED_POOL, InsertsSettings, RunSettings, ServerOptions
from .sync_runner import require_twins, run_sync
from .tasks import to_the_end
from .throttles import Chunks, Semaphore, Throttle, Unbounded
from .workload import Workload
from .workloads import mixed, noop, sequences

T = TypeVar("T")
Say = Callable[[str], None]

# What changes nothing in a run.
_NOT_SHOWN = {"debug", "config", "out", "html", "junit", "progress"}
_PACKAGES = ("SQLAlchemy", "asyncpg", "uvloop")
# Left free of a server's connections: our guard, and somebody who wants to look.
_SPARE_CONNECTIONS = 3
# How long an operation waits for a connection is its own timeout's business.
_POOL_TIMEOUT = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Database:
    """What a workload that uses a database runs on, and what to say of it."""

    url: URL
    namespace: Namespace
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
    workload = check_workload(settings)
    result = None
    try:
        async with AsyncExitStack() as stack:
            database = None
            if workload.sessions_hook is not None:
                database = await stack.enter_async_context(own_database(settings, workload))
            elif uses_database(workload):
                database = await stack.enter_async_context(open_database(settings, say))
            say("running")
            result = await _run(settings, database, stop, on_progress)
            say("cleaning up")
    except (DatabaseError, asyncio.CancelledError) as error:
        if result is None:
            raise
        return Finished(result, error if isinstance(error, DatabaseError) else None)
    return Finished(result)


async def measure(settings: InsertsSettings) -> tuple[Measure, ...]:
    """Return what each way to insert the settings' rows costs, on a schema of its own."""
    async with server_url(settings, _say_nothing) as url:
        if url.get_backend_name() != "postgresql":
            raise ConfigurationError("inserts are measured on PostgreSQL; others stay stock")
        return await measure_inserts(
            url,
            shape=settings.shape,
            rows=settings.rows,
            latency=settings.latency,
            turns=settings.rounds,
        )


def _say_nothing(_phase: str) -> None:
    """Take the phase of a command that shows none."""


async def _run(
    settings: RunSettings, database: Database | None, stop: Stop, on_progress: OnProgress
) -> RunResult:
    way = _run_sync if settings.mode in SYNC_MODES else _run_async
    result = await way(settings, database, stop, on_progress)
    facts = environment() | (database.environment if database else {})
    return replace(result, settings=shown_settings(settings), environment=facts)


async def _run_async(
    settings: RunSettings, database: Database | None, stop: Stop, on_progress: OnProgress
) -> RunResult:
    return await run(
        build_workload(settings, database),
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
        give_up=settings.give_up,
        stop=stop,
        time_split=settings.time_split,
        n_plus_one=settings.n_plus_one,
        on_progress=on_progress,
    )


async def _run_sync(
    settings: RunSettings, database: Database | None, stop: Stop, on_progress: OnProgress
) -> RunResult:
    workload = build_workload(settings, database)
    threads = settings.concurrency if settings.mode == "threads" else None
    sessions = read_sessions = None
    with ExitStack() as stack:
        if database is not None:
            backend = backend_of(database.url)
            engine = backend.create_sync_engine(
                database.url,
                pool_size=settings.pool_size or threads or 1,
                namespace=database.namespace,
                statement_timeout=settings.op_timeout,
            )
            stack.callback(engine.dispose)
            sessions, read_sessions = backend.sync_session_factories(
                engine, reads_autocommit=settings.reads_autocommit
            )
            if settings.batch_inserts:
                enable_batch_inserting(sessions)
        async with prepared(
            workload,
            sessions=database.sessions if database else None,
            seed=settings.seed,
            stop=stop,
        ) as shared:
            work = partial(
                run_sync,
                workload,
                sessions=sessions,
                read_sessions=read_sessions,
                limit=settings.limit,
                threads=threads,
                seed=settings.seed,
                write_ratio=settings.write_ratio,
                warmup=settings.warmup,
                shared=shared,
                stop=stop,
                time_split=settings.time_split,
                n_plus_one=settings.n_plus_one,
                on_progress=on_progress,
            )
            return await asyncio.to_thread(work)


def build_workload(settings: RunSettings, database: Database | None = None) -> Workload:
    """Return the workload that the settings name, on the database's tables."""
    prefix = database.namespace.prefix if database else ""
    match settings.workload:
        case "noop":
            return noop.build()
        case "sequences":
            return sequences.build(prefix=prefix)
        case "mixed":
            return mixed.build(
                read_via=settings.read_via, read_from=settings.read_from, prefix=prefix
            )
        case target:
            return load_workload(target)


def check_workload(settings: RunSettings) -> Workload:
    """
    Return the workload that the settings name, before any work is done.

    Raises `ConfigurationError` or `WorkloadError` for one that cannot run as they ask.
    """
    workload = build_workload(settings)
    mix = workload.mix(seed=settings.seed, write_ratio=settings.write_ratio)
    if settings.mode in SYNC_MODES:
        require_twins(workload.name, mix)
        if workload.sessions_hook is not None:
            raise ConfigurationError(
                f"workload {workload.name!r} brings async sessions of its own, "
                f"which --mode {settings.mode} cannot use"
            )
    return workload


def uses_database(workload: Workload) -> bool:
    """Return whether any operation asks for a session."""
    return any("session" in operation.wants for operation in workload.operations.values())


def build_throttle(settings: RunSettings) -> Throttle:
    """Return the policy that lets operations in."""
    if settings.mode == "unbounded":
        return Unbounded()
    policy = Chunks if settings.mode == "chunks" else Semaphore
    return policy(settings.concurrency)


@asynccontextmanager
async def open_database(settings: RunSettings, say: Say) -> AsyncIterator[Database]:
    """Yield sessions on a schema of the run's own, in the user's server or in ours."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(server_url(settings, say))
        backend = backend_of(url)
        say("connecting")
        server = await _probe(backend, url)
        namespace = await stack.enter_async_context(
            backend.run_namespace(url, keep=settings.keep_data)
        )
        engine = backend.create_engine(
            url,
            pool_size=pool_size(settings, server),
            pool_timeout=_POOL_TIMEOUT,
            namespace=namespace,
        )
        await stack.enter_async_context(closing(engine))
        sessions, read_sessions = backend.session_factories(
            engine, reads_autocommit=settings.reads_autocommit
        )
        if settings.batch_inserts:
            enable_batch_inserting(sessions)
        yield Database(
            url=url,
            namespace=namespace,
            sessions=sessions,
            read_sessions=read_sessions,
            environment={"database": _database_facts(settings, url, server, namespace)},
        )


@asynccontextmanager
async def own_database(settings: RunSettings, workload: Workload) -> AsyncIterator[Database]:
    """Yield the sessions that a workload brings: the application's engine, pool and events."""
    assert workload.sessions_hook is not None
    sessions = workload.sessions_hook()
    engine = sessions.kw.get("bind") if isinstance(sessions, async_sessionmaker) else None
    if not isinstance(engine, AsyncEngine):
        raise WorkloadError(
            f"the sessions of workload {workload.name!r} must be an async_sessionmaker that is "
            f"bound to an AsyncEngine, not {type(sessions).__name__}"
        )
    try:
        kind = engine.url.get_backend_name()
        if kind in ("postgresql", "sqlite"):
            server = await backend_of(engine.url).probe(engine)
        else:
            server = ServerInfo(kind, "", {}, 0)
        yield Database(
            url=engine.url,
            namespace=Namespace(),
            sessions=sessions,
            read_sessions=sessions,
            environment={"database": _database_facts(settings, engine.url, server, None)},
        )
    finally:
        await engine.dispose()


def pool_size(settings: RunSettings, server: ServerInfo) -> int:
    """
    Return as many connections as operations can be in flight, within what the server has left.

    Without a limit of operations it is the pool that throttles, with a size of its own. A
    size that was asked for is not made smaller.
    """
    wanted = UNBOUNDED_POOL if settings.mode == "unbounded" else settings.concurrency
    most = max(1, server.free_connections - _SPARE_CONNECTIONS)
    return settings.pool_size or min(wanted, most)


@asynccontextmanager
async def server_url(settings: ServerOptions, say: Say) -> AsyncIterator[URL]:
    """Yield the URL of the user's server, or of ours, which runs for the block."""
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


async def _probe(backend: Backend, url: URL) -> ServerInfo:
    async with closing(backend.create_engine(url, pool_size=1)) as engine:
        return await backend.probe(engine)


def _database_facts(
    settings: RunSettings, url: URL, server: ServerInfo, namespace: Namespace | None
) -> dict[str, Any]:
    embedded = settings.database_url is None and namespace is not None
    facts: dict[str, Any] = {
        "product": server.product,
        "version": server.version,
        "where": "(embedded)" if embedded else f"at {place(url)}",
        "url": None if embedded else redact(url),
        "settings": dict(server.settings),
    }
    if settings.keep_data and namespace is not None:
        facts["kept"] = namespace.schema or f"{namespace.prefix}*"
    return facts


def shown_settings(settings: RunSettings) -> dict[str, Any]:
    """Return the settings for the report, as JSON has them and without secrets."""
    shown = settings.model_dump(mode="json", exclude=_NOT_SHOWN)
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
            **{p: v for p in _PACKAGES if (v := _version(p))},
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
