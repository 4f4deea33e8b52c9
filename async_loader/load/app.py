"""The composition root: a spec in, wired objects out, a result back."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..concurrency.stop import Stop
from ..database.backends import backend_of
from ..database.embedded import stop_unused
from ..errors import AsyncLoaderError, ConfigurationError, DatabaseError, TeardownError
from ..results.run import RunResult
from ..runtime.under_way import under_way
from ..verdict.thresholds import check_names
from .loading import load_workload
from .partition import ShardCoordinator
from .run_database import Database, Say, open_database, own_database, speed_up
from .runner.phase import OnProgress
from .runner.preparation import prepared
from .runner.runner import perform
from .runner.sync_runner import require_twins, run_sync
from .specs.load_test import SYNC_MODES, LoadTestSpec, WorkloadSpec
from .workload import Workload
from .workloads import mixed, noop, sequences

_PACKAGES = ("SQLAlchemy", "asyncpg", "uvloop")


# How a run is performed on its database.
RunPerformer = Callable[[LoadTestSpec, Database | None, Stop, OnProgress], Awaitable[RunResult]]


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that came to its result, and what went wrong afterwards, if anything did."""

    result: RunResult
    cleanup_error: AsyncLoaderError | None = None


async def run_workload(
    spec: LoadTestSpec,
    *,
    stop: Stop,
    on_progress: OnProgress,
    say: Say,
    note: Say,
    way: RunPerformer | None = None,
) -> Finished:
    """
    Run what the spec asks for, on a schema of its own, and clean up.

    `say` is told of each phase before the run, `note` of options without effect. `way` performs
    it elsewhere than in this process. Raises an `AsyncLoaderError`; once there is a result, a
    tear-down that raises, or a database that cannot be cleaned up, does not take it away.
    """
    workload = check_workload(spec)
    for sentence in without_effect(spec, workload):
        note(sentence)
    finished = None
    try:
        async with AsyncExitStack() as stack:
            database = None
            if workload.sessions_hook is not None:
                database = await stack.enter_async_context(own_database(spec.database, workload))
            elif uses_database(workload):
                database = await stack.enter_async_context(open_database(spec, say))
            say("running")
            finished = await _run(spec, database, stop, on_progress, way)
            say("cleaning up")
    except (DatabaseError, asyncio.CancelledError) as error:
        if finished is None:
            raise
        if finished.cleanup_error is None and isinstance(error, DatabaseError):
            return replace(finished, cleanup_error=error)
    return finished


async def _run(
    spec: LoadTestSpec,
    database: Database | None,
    stop: Stop,
    on_progress: OnProgress,
    way: RunPerformer | None,
) -> Finished:
    way = way or (_run_sync if spec.load_model.mode in SYNC_MODES else run_async)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {"started": started} | environment() | (database.environment if database else {})
    under_way.facts = {"settings": dict(spec.shown), "environment": facts}
    cleanup_error = None
    try:
        result = await way(spec, database, stop, on_progress)
    except TeardownError as error:
        if error.result is None:
            raise
        result, cleanup_error = error.result, error
    under_way.enter("over")
    return Finished(replace(result, **under_way.facts), cleanup_error)


async def run_async(
    spec: LoadTestSpec,
    database: Database | None,
    stop: Stop,
    on_progress: OnProgress | None,
    lead: ShardCoordinator | None = None,
) -> RunResult:
    """Run what the spec asks for on this event loop, or what of it a lead has us do."""
    return await perform(
        build_workload(spec.workload, database),
        spec.run_spec() if lead is None else spec.part_spec(lead.part),
        sessions=database.sessions if database else None,
        read_sessions=database.read_sessions if database else None,
        stop=stop,
        on_progress=on_progress,
        lead=lead,
    )


async def _run_sync(
    spec: LoadTestSpec, database: Database | None, stop: Stop, on_progress: OnProgress
) -> RunResult:
    workload = build_workload(spec.workload, database)
    threads = spec.load_model.concurrency if spec.load_model.mode == "threads" else None
    sessions = read_sessions = None
    with ExitStack() as stack:
        if database is not None:
            assert database.url is not None  # own sessions are refused in these modes
            backend = backend_of(database.url)
            engine = backend.create_sync_engine(
                database.url,
                pool_size=spec.database.pool_size or threads or 1,
                namespace=database.namespace,
                statement_timeout=spec.timeouts.op_timeout,
            )
            stack.callback(engine.dispose)
            sessions, read_sessions = backend.sync_session_factories(
                engine, reads_autocommit=spec.database.reads_autocommit
            )
            speed_up(spec.database, sessions, read_sessions)
        result = None
        under_way.enter("set-up")
        try:
            async with prepared(
                workload,
                sessions=database.sessions if database else None,
                seed=spec.sampling.seed,
                stop=stop,
                patience=spec.timeouts.op_timeout + spec.timeouts.grace,
            ) as shared:
                work = partial(
                    run_sync,
                    workload,
                    spec.run_spec(),
                    sessions=sessions,
                    read_sessions=read_sessions,
                    threads=threads,
                    shared=shared,
                    stop=stop,
                    on_progress=on_progress,
                )
                result = await asyncio.to_thread(work)
        except TeardownError as error:
            error.result = result
            raise
    return result


def give_back(spec: LoadTestSpec) -> None:
    """Have the embedded server stopped that a run has left, unless others use it."""
    with suppress(AsyncLoaderError):
        stop_unused(spec.database.server_directory)


def build_workload(spec: WorkloadSpec, database: Database | None = None) -> Workload:
    """Return the workload that is named, on the database's tables."""
    prefix = database.namespace.prefix if database else ""
    match spec.target:
        case "noop":
            workload = noop.build()
        case "sequences":
            workload = sequences.build(prefix=prefix)
        case "mixed":
            workload = mixed.build(read_via=spec.read_via, read_from=spec.read_from, prefix=prefix)
        case target:
            workload = load_workload(target)
    workload.set_arguments(**spec.arguments)
    return workload


def check_workload(spec: LoadTestSpec) -> Workload:
    """
    Return the workload that the spec names, before any work is done.

    Raises `ConfigurationError` or `WorkloadError` for one that cannot run as it asks.
    """
    workload = build_workload(spec.workload)
    mix = workload.mix(seed=spec.sampling.seed, write_ratio=spec.sampling.write_ratio)
    checks = (check.figure for check in spec.baseline.checks)
    tags = {operation.name: operation.tags for operation in mix.operations}
    check_names([*spec.verdict.thresholds, *checks], tags, len(spec.load_model.stages))
    if spec.strict and (sentences := without_effect(spec, workload)):
        raise ConfigurationError(sentences[0])
    if spec.load_model.mode in SYNC_MODES:
        require_twins(workload.name, mix)
        if workload.sessions_hook is not None:
            raise ConfigurationError(
                f"workload {workload.name!r} brings async sessions of its own, "
                f"which `mode` {spec.load_model.mode} cannot use"
            )
    return workload


# What is of a database that the command opens, and what is of one built-in workload.
_OF_THE_DATABASE = (
    "database_url", "server_directory", "pool_size", "keep_data", "batch_inserts",
    "fast_paths", "read_autocommit",
)  # fmt: skip
_OF_MIXED = ("read_via", "read_from")


def without_effect(spec: LoadTestSpec, workload: Workload) -> list[str]:
    """Return, in a sentence each, which options were given for nothing."""
    why: dict[str, str] = {}
    if workload.sessions_hook is not None:
        own = "brings sessions of its own, which decide where the load goes and how"
        why |= dict.fromkeys(_OF_THE_DATABASE, own)
    elif not uses_database(workload):
        why |= dict.fromkeys(_OF_THE_DATABASE, "asks for no session")
    if spec.workload.target != "mixed":
        why |= dict.fromkeys(_OF_MIXED, "is not the built-in mixed")
    if not spec.load_model.is_open:
        why["max_in_flight"] = "runs without --rate"
    return [
        f"--{name.replace('_', '-')} has no effect: workload {workload.name!r} {reason}"
        for name, reason in why.items()
        if name in spec.given
    ]


def uses_database(workload: Workload) -> bool:
    """Return whether an operation asks for a session, or the set-up for sessions."""
    hooks = (workload.setup_hook, workload.teardown_hook)
    return any("session" in operation.wants for operation in workload.operations.values()) or any(
        hook is not None and "sessions" in hook.wants for hook in hooks
    )


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
