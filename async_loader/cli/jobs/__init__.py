"""The commands `job ...`: jobs run, seen and steered from a shell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from ...concurrency.stop import Stop
from ...database.backends import SQLITE, backend_of
from ...database.postgresql import closing, unreachable
from ...database.urls import parse_url
from ...errors import AsyncLoaderError, ConfigurationError
from ...jobs import BatchJob, JobStatus, Selection, control, report, require_job_async
from ...jobs.migrations.state_tables import ddl
from ...jobs.run import PROGRESS_EVERY
from ...jobs.targets import load_job, place_of
from ...load.run_database import server_url
from ...runtime.process import leave_errors_to_the_report, run_until_stopped
from ...runtime.streams import stderr, stdout
from ...settings.jobs import (
    JobCancelSettings,
    JobDdlSettings,
    JobListSettings,
    JobPauseSettings,
    JobRequireSettings,
    JobRetryErrorsSettings,
    JobRunSettings,
    JobSettings,
    JobStatusSettings,
)
from ...settings.run import ServerOptions
from ...settings.spec import server_of
from ...workers import Arrived, ProcessWorkers, Workers
from ...workers.cluster import DaskWorkers, is_local, joined
from ...workers.shipping import Shipped
from ..progress import HowFar, ProgressView, progress_view
from .spread import SPARE_CONNECTIONS, Order, spread

DONE = 0
STILL_FAILING = WOULD_STOP = 1
STOPPED = 105


def run_job_command(settings: JobSettings) -> int:
    """Run one of the commands; return its exit code."""
    match settings:
        case JobRunSettings():
            return _run(settings)
        case JobRetryErrorsSettings():
            return run_until_stopped(lambda _stop: _retry_errors(settings), loop="auto")
        case JobDdlSettings():
            stdout().write(ddl(settings.state_schema, role=settings.role))
            return DONE
        case JobRequireSettings():
            return asyncio.run(_require(settings))
        case JobStatusSettings(watch=True):
            return _watch(settings)
        case _:
            return asyncio.run(_look_or_steer(settings))


def _run(settings: JobRunSettings) -> int:
    job = load_job(settings.target)
    if not settings.debug:
        leave_errors_to_the_report()
    if settings.is_dry:
        return run_until_stopped(lambda stop: _dry_run(job, settings, stop), loop="auto")
    with progress_view(stderr(), settings.progress, _how_far) as view:
        status = run_until_stopped(
            lambda stop: _run_in_time(job, settings, stop, view), loop="auto", exits_stop=True
        )
    stdout().write(report.summary(status))
    stdout().flush()
    return DONE if status.state == "done" else STOPPED


async def _dry_run(job: BatchJob, settings: JobRunSettings, stop: Stop) -> int:
    """Try a job, and say what it would do; 1 where a run would stop at a row."""
    if settings.is_spread or settings.idempotency_key is not None or settings.workers > 1:
        raise ConfigurationError(
            "a dry run is one worker's, and no run: leave out --processes, --cluster, --workers "
            "and --idempotency-key"
        )
    selection = Selection(settings.only, settings.where, settings.limit, settings.sample)
    async with _engine(settings, 1 + SPARE_CONNECTIONS) as engine:
        tried = await job.dry_run(
            _sessions(engine),
            arguments=settings.arguments,
            selection=selection,
            prepare=settings.dry_run_prepare,
            state_schema=settings.state_schema,
            stop=stop,
        )
    stdout().write(report.dry_summary(tried))
    if tried.stopped_at is not None:
        return WOULD_STOP
    return STOPPED if tried.interrupted else DONE


def _how_far(status: JobStatus) -> HowFar:
    done = status.rows_read + status.rows_skipped
    return HowFar(done, status.total, report.progress_line(status), status.job)


async def _run_in_time(
    job: BatchJob, settings: JobRunSettings, stop: Stop, view: ProgressView[JobStatus]
) -> JobStatus:
    """Run a job, and ask it to stop when its time is up: whoever runs it again goes on."""
    if settings.max_runtime is None:
        return await _run_job(job, settings, stop, view)

    def end() -> None:
        if not stop.requested.is_set():  # a second request would cut its chunks off
            stop.request("--max-runtime")

    timer = asyncio.get_running_loop().call_later(settings.max_runtime, end)
    try:
        return await _run_job(job, settings, stop, view)
    finally:
        timer.cancel()


async def _run_job(
    job: BatchJob, settings: JobRunSettings, stop: Stop, view: ProgressView[JobStatus]
) -> JobStatus:
    if settings.is_spread:
        return await _run_spread(job, settings, stop, view)
    async with _engine(settings, settings.workers + SPARE_CONNECTIONS) as engine:
        return await job.run(
            _sessions(engine),
            workers=settings.workers,
            arguments=settings.arguments,
            resume_changed=settings.resume_changed,
            idempotency_key=settings.idempotency_key,
            state_schema=settings.state_schema,
            stop=stop,
            on_progress=_shown_on(view),
        )


def _shown_on(view: ProgressView[JobStatus]) -> Callable[[JobStatus], None]:
    """Return what shows a run for as long as somebody looks: a closed terminal ends no job."""

    def update(status: JobStatus) -> None:
        with suppress(OSError, ValueError):
            view.update(status)

    return update


async def _run_spread(
    job: BatchJob, settings: JobRunSettings, stop: Stop, view: ProgressView[JobStatus]
) -> JobStatus:
    """Share the run between processes, none of which is this one."""
    _check_spread(settings)
    async with _workers(settings) as workers, _engine(settings, 1 + SPARE_CONNECTIONS) as engine:
        order = partial(
            Order,
            settings.target,
            engine.url.render_as_string(hide_password=False),
            settings.workers,
            state_schema=settings.state_schema,
            debug=settings.debug,
        )
        tasks = settings.workers * len(workers.names)
        async with job.taking_part(
            _sessions(engine), workers=1, tasks=tasks, state_schema=settings.state_schema
        ) as part:
            return await spread(
                part, workers, order,
                begin=partial(
                    part.begin, settings.arguments, resume_changed=settings.resume_changed,
                    idempotency_key=settings.idempotency_key,
                ),
                stop=stop, on_progress=view.update, say=view.say,
            )  # fmt: skip


def _check_spread(settings: JobRunSettings) -> None:
    """Raise `ConfigurationError` for a database that other processes cannot share."""
    url = settings.database_url
    if url is None and settings.cluster is not None and not is_local(settings.cluster):
        raise ConfigurationError(
            "--cluster needs --database-url: the embedded server is this machine's alone"
        )
    if url is not None and backend_of(parse_url(url.get_secret_value())) is SQLITE:
        raise ConfigurationError("SQLite has one writer: run the job in one process")


@asynccontextmanager
async def _workers(settings: JobRunSettings) -> AsyncIterator[Workers]:
    """Yield the processes, here or on a cluster, that are to share a run."""
    if settings.cluster is None:
        async with ProcessWorkers(settings.number_of_processes, _ignore) as processes:
            yield processes
        return
    shipped = Shipped.of(place_of(settings.target)[0])
    async with (
        joined(settings.cluster) as cluster,
        DaskWorkers(cluster, _ignore, shipped=shipped) as members,
    ):
        yield members


def _ignore(_index: int, _message: Arrived) -> None:
    """Hear nothing: how far the run is, the database knows."""


def _sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    sessions, _ = backend_of(engine.url).session_factories(engine, reads_autocommit=False)
    return sessions


async def _retry_errors(settings: JobRetryErrorsSettings) -> int:
    job = load_job(settings.target)
    async with _engine(settings, 2) as engine:
        retried = await job.retry_errors(
            _sessions(engine), arguments=settings.arguments, state_schema=settings.state_schema
        )
    stdout().write(f"{job.name}: {retried.repaired:,} repaired, {retried.failing:,} failing\n")
    return STILL_FAILING if retried.failing else DONE


async def _require(settings: JobRequireSettings) -> int:
    async with _engine(settings, 1) as engine:
        await require_job_async(
            settings.target,
            engine,
            arguments=settings.arguments or None,
            schema=settings.schema_of_tables,
            allow_errors=settings.allow_errors,
            recheck=settings.recheck,
            state_schema=settings.state_schema,
        )
    stdout().write(f"{settings.target} is done\n")
    return DONE


def _watch(settings: JobStatusSettings) -> int:
    """Show a run until it ends; Ctrl-C ends the looking alone."""
    with progress_view(stderr(), settings.progress, _how_far) as view:
        status = run_until_stopped(lambda stop: _seen_to_its_end(settings, stop, view), loop="auto")
    stdout().write(report.summary(status))
    stdout().flush()
    return DONE if status.state == "done" else STOPPED


async def _seen_to_its_end(
    settings: JobStatusSettings, stop: Stop, view: ProgressView[JobStatus]
) -> JobStatus:
    """Return the run as it ended, as its workers left it, or as it is when the stop comes."""
    schema, alone, show = settings.state_schema, False, _shown_on(view)
    async with _engine(settings, 2) as engine:
        now = await control.status(engine, settings.target, settings.arguments, state_schema=schema)
        stop.heeded = True
        while now.state == "running" and not stop.requested.is_set():
            if alone and not now.tasks:  # twice: so it is, too, until the first worker joins
                break
            alone = not now.tasks
            show(now)
            with suppress(TimeoutError):
                async with asyncio.timeout(PROGRESS_EVERY):
                    await stop.requested.wait()
            # By its number: another may be begun under the same name.
            now = await control.status(engine, str(now.run), state_schema=schema)
    return now


async def _look_or_steer(
    settings: JobListSettings | JobStatusSettings | JobPauseSettings | JobCancelSettings,
) -> int:
    schema = settings.state_schema
    async with _engine(settings, 2) as engine:
        if isinstance(settings, JobListSettings):
            stdout().write(report.listing(await control.list_runs(engine, state_schema=schema)))
            return DONE
        act = {
            JobStatusSettings: control.status,
            JobPauseSettings: control.pause,
            JobCancelSettings: control.cancel,
        }[type(settings)]
        now = await act(engine, settings.target, settings.arguments, state_schema=schema)
        stdout().write(report.summary(now))
    return DONE


@asynccontextmanager
async def _engine(settings: ServerOptions, connections: int) -> AsyncIterator[AsyncEngine]:
    """Yield an engine on the user's server, or on ours."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(server_url(server_of(settings), lambda _phase: None))
        engine = await stack.enter_async_context(
            closing(backend_of(url).create_engine(url, pool_size=connections))
        )
        try:
            yield engine
        except AsyncLoaderError:
            raise
        except (DBAPIError, OSError) as error:
            raise unreachable(error, url) from error
