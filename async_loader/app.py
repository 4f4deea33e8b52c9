"""The composition root: settings in, wired objects out, a result back."""

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
from pathlib import Path
from typing import Any

from .database.backends import backend_of
from .errors import AsyncLoaderError, ConfigurationError, DatabaseError, TeardownError
from .inserts import enable_batch_inserting
from .inserts_bench import Measure, measure_inserts
from .limits import Stop
from .loading import load_workload
from .parts import WHOLE, Lead
from .postgres import stop_unused
from .results.run import RunResult
from .run_database import Database, Say, open_database, own_database, server_url
from .runner.phase import OnProgress
from .runner.preparation import prepared
from .runner.runner import run
from .runner.sync_runner import require_twins, run_sync
from .runner.under_way import under_way
from .settings.option_types import SYNC_MODES
from .settings.run import InsertsSettings, RunSettings
from .verdict.regression import parse_check
from .verdict.thresholds import check_names, parse
from .workload import Workload
from .workloads import mixed, noop, sequences

# What changes nothing in a run.
_NOT_SHOWN = {"calibrate", "profile", "debug", "config", "out", "html", "junit", "progress"}
_PACKAGES = ("SQLAlchemy", "asyncpg", "uvloop")


# How a run is performed on its database.
Way = Callable[[RunSettings, Database | None, Stop, OnProgress], Awaitable[RunResult]]


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that came to its result, and what went wrong afterwards, if anything did."""

    result: RunResult
    cleanup_error: AsyncLoaderError | None = None


async def run_workload(
    settings: RunSettings,
    *,
    stop: Stop,
    on_progress: OnProgress,
    say: Say,
    note: Say,
    way: Way | None = None,
) -> Finished:
    """
    Run what the settings ask for, on a schema of its own, and clean up.

    `say` is told of each phase before the run, `note` of options without effect. `way` performs
    it elsewhere than in this process. Raises an `AsyncLoaderError`; once there is a result, a
    tear-down that raises, or a database that cannot be cleaned up, does not take it away.
    """
    workload = check_workload(settings)
    for sentence in without_effect(settings, workload):
        note(sentence)
    finished = None
    try:
        async with AsyncExitStack() as stack:
            database = None
            if workload.sessions_hook is not None:
                database = await stack.enter_async_context(own_database(settings, workload))
            elif uses_database(workload):
                database = await stack.enter_async_context(open_database(settings, say))
            say("running")
            finished = await _run(settings, database, stop, on_progress, way)
            say("cleaning up")
    except (DatabaseError, asyncio.CancelledError) as error:
        if finished is None:
            raise
        if finished.cleanup_error is None and isinstance(error, DatabaseError):
            return replace(finished, cleanup_error=error)
    return finished


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
    settings: RunSettings,
    database: Database | None,
    stop: Stop,
    on_progress: OnProgress,
    way: Way | None,
) -> Finished:
    way = way or (_run_sync if settings.mode in SYNC_MODES else run_async)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {"started": started} | environment() | (database.environment if database else {})
    under_way.facts = {"settings": shown_settings(settings), "environment": facts}
    cleanup_error = None
    try:
        result = await way(settings, database, stop, on_progress)
    except TeardownError as error:
        if error.result is None:
            raise
        result, cleanup_error = error.result, error
    under_way.enter("over")
    return Finished(replace(result, **under_way.facts), cleanup_error)


async def run_async(
    settings: RunSettings,
    database: Database | None,
    stop: Stop,
    on_progress: OnProgress | None,
    lead: Lead | None = None,
) -> RunResult:
    """Run what the settings ask for on this event loop, or what of it a lead has us do."""
    part = lead.part if lead is not None else WHOLE
    limit = part.limit(settings.limit)
    return await run(
        build_workload(settings, database),
        sessions=database.sessions if database else None,
        read_sessions=database.read_sessions if database else None,
        ops=limit.ops,
        duration=limit.duration,
        throttle=settings.throttle(part),
        seed=settings.seed,
        write_ratio=settings.write_ratio,
        warmup=part.limit(settings.warmup) if settings.warmup is not None else None,
        op_timeout=settings.op_timeout,
        grace=settings.grace,
        give_up=settings.give_up,
        latency_limit=settings.latency_limit,
        max_tries=settings.max_tries,
        thresholds=settings.threshold,
        abort_on_fail=settings.abort_on_fail if lead is None else None,
        stop=stop,
        time_split=settings.time_split,
        n_plus_one=settings.n_plus_one,
        profile=Path(settings.profile) if settings.profile is not None else None,
        server_side=settings.server_side and lead is None,
        on_progress=on_progress,
        lead=lead,
    )


async def _run_sync(
    settings: RunSettings, database: Database | None, stop: Stop, on_progress: OnProgress
) -> RunResult:
    workload = build_workload(settings, database)
    threads = settings.concurrency if settings.mode == "threads" else None
    sessions = read_sessions = None
    with ExitStack() as stack:
        if database is not None:
            assert database.url is not None  # own sessions are refused in these modes
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
            if settings.batches_inserts:
                enable_batch_inserting(sessions)
        result = None
        try:
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
                    latency_limit=settings.latency_limit,
                    max_tries=settings.max_tries,
                    thresholds=settings.threshold,
                    abort_on_fail=settings.abort_on_fail,
                    stop=stop,
                    time_split=settings.time_split,
                    n_plus_one=settings.n_plus_one,
                    on_progress=on_progress,
                )
                result = await asyncio.to_thread(work)
        except TeardownError as error:
            error.result = result
            raise
    return result


def give_back(settings: RunSettings) -> None:
    """Have the embedded server stopped that a run has left, unless others use it."""
    with suppress(AsyncLoaderError):
        stop_unused(settings.server_directory)


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
    checks = (parse_check(text).figure for text in settings.compare_fail)
    names = [operation.name for operation in mix.operations]
    check_names([*map(parse, settings.threshold), *checks], names)
    if settings.strict and (sentences := without_effect(settings, workload)):
        raise ConfigurationError(sentences[0])
    if settings.mode in SYNC_MODES:
        require_twins(workload.name, mix)
        if workload.sessions_hook is not None:
            raise ConfigurationError(
                f"workload {workload.name!r} brings async sessions of its own, "
                f"which --mode {settings.mode} cannot use"
            )
    return workload


# What is of a database that the command opens, and what is of one built-in workload.
_OF_THE_DATABASE = (
    "database_url", "server_directory", "pool_size", "keep_data", "batch_inserts",
    "read_autocommit",
)  # fmt: skip
_OF_MIXED = ("read_via", "read_from")


def without_effect(settings: RunSettings, workload: Workload) -> list[str]:
    """Return, in a sentence each, which options were given for nothing."""
    why: dict[str, str] = {}
    if workload.sessions_hook is not None:
        own = "brings sessions of its own, which decide where the load goes and how"
        why |= dict.fromkeys(_OF_THE_DATABASE, own)
    elif not uses_database(workload):
        why |= dict.fromkeys(_OF_THE_DATABASE, "asks for no session")
    if settings.workload != "mixed":
        why |= dict.fromkeys(_OF_MIXED, "is not the built-in mixed")
    if not settings.is_open:
        why["max_in_flight"] = "runs without --rate"
    return [
        f"--{name.replace('_', '-')} has no effect: workload {workload.name!r} {reason}"
        for name, reason in why.items()
        if getattr(settings, name) not in (RunSettings.model_fields[name].default, False)
    ]


def uses_database(workload: Workload) -> bool:
    """Return whether an operation asks for a session, or the set-up for sessions."""
    hooks = (workload.setup_hook, workload.teardown_hook)
    return any("session" in operation.wants for operation in workload.operations.values()) or any(
        hook is not None and "sessions" in hook.wants for hook in hooks
    )


def shown_settings(settings: RunSettings) -> dict[str, Any]:
    """Return the settings for the report, as JSON has them and without secrets."""
    shown = settings.model_dump(mode="json", exclude=_NOT_SHOWN)
    shown["ops"], shown["duration"] = settings.limit.ops, settings.limit.duration
    shown["read_autocommit"] = settings.reads_autocommit
    shown["batch_inserts"] = settings.batches_inserts
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
