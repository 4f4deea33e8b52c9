"""The commands `job ...`: jobs run, seen and steered from a shell."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from ..backends import backend_of
from ..database import unreachable
from ..databases import server_url
from ..errors import AsyncLoaderError, ConfigurationError
from ..job_settings import (
    JobCancelSettings,
    JobListSettings,
    JobPauseSettings,
    JobRetryErrorsSettings,
    JobRunSettings,
    JobSettings,
    JobStatusSettings,
)
from ..jobs import BatchJob, JobStatus, control, report
from ..limits import Stop
from ..runtime import leave_errors_to_the_report, run_until_stopped
from ..settings import ServerOptions
from ..workers import Message, ProcessWorkers
from .progress import JobView, job_progress
from .spread import SPARE_CONNECTIONS, Order, spread
from .targets import JobTarget

DONE = 0
STILL_FAILING = 1
STOPPED = 105


def run_job_command(settings: JobSettings) -> int:
    """Run one of the commands; return its exit code."""
    match settings:
        case JobRunSettings():
            return _run(settings)
        case JobRetryErrorsSettings():
            return asyncio.run(_retry_errors(settings))
        case _:
            return asyncio.run(_look_or_steer(settings))


def _run(settings: JobRunSettings) -> int:
    target = JobTarget.of(settings.target)
    job = target.load()
    if not settings.debug:
        leave_errors_to_the_report()
    with job_progress(sys.stderr, settings.progress) as show:
        status = run_until_stopped(
            lambda stop: _run_job(job, target, settings, stop, show), loop="auto"
        )
    sys.stdout.write(report.summary(status))
    sys.stdout.flush()
    return DONE if status.state == "done" else STOPPED


async def _run_job(
    job: BatchJob, target: JobTarget, settings: JobRunSettings, stop: Stop, show: JobView
) -> JobStatus:
    if settings.processes is not None:
        return await _run_spread(job, target, settings, stop, show)
    async with _engine(settings, settings.workers + SPARE_CONNECTIONS) as engine:
        return await job.run(
            _sessions(engine),
            workers=settings.workers,
            arguments=settings.arguments,
            stop=stop,
            on_progress=show.update,
        )


async def _run_spread(
    job: BatchJob, target: JobTarget, settings: JobRunSettings, stop: Stop, show: JobView
) -> JobStatus:
    """Share the run between processes, none of which is this one."""
    async with _engine(settings, 1 + SPARE_CONNECTIONS) as engine:
        if engine.dialect.name == "sqlite":
            raise ConfigurationError("SQLite has one writer: run the job without --processes")
        url = engine.url.render_as_string(hide_password=False)
        async with ProcessWorkers(settings.number_of_processes, _ignore) as workers:
            tasks = settings.workers * len(workers.names)
            async with job.taking_part(_sessions(engine), workers=1, tasks=tasks) as part:
                return await spread(
                    part,
                    workers,
                    lambda run: Order(target, url, settings.workers, run, settings.debug),
                    arguments=settings.arguments,
                    stop=stop,
                    on_progress=show.update,
                    say=show.say,
                )


def _ignore(_index: int, _message: Message) -> None:
    """Hear nothing: how far the run is, the database knows."""


def _sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    sessions, _ = backend_of(engine.url).session_factories(engine, reads_autocommit=False)
    return sessions


async def _retry_errors(settings: JobRetryErrorsSettings) -> int:
    job = JobTarget.of(settings.target).load()
    async with _engine(settings, 2) as engine:
        sessions, _ = backend_of(engine.url).session_factories(engine, reads_autocommit=False)
        retried = await job.retry_errors(sessions, arguments=settings.arguments)
    sys.stdout.write(f"{job.name}: {retried.repaired:,} repaired, {retried.failing:,} failing\n")
    return STILL_FAILING if retried.failing else DONE


async def _look_or_steer(
    settings: JobListSettings | JobStatusSettings | JobPauseSettings | JobCancelSettings,
) -> int:
    async with _engine(settings, 2) as engine:
        if isinstance(settings, JobListSettings):
            sys.stdout.write(report.listing(await control.list_runs(engine)))
            return DONE
        act = {
            JobStatusSettings: control.status,
            JobPauseSettings: control.pause,
            JobCancelSettings: control.cancel,
        }[type(settings)]
        sys.stdout.write(report.summary(await act(engine, settings.target, settings.arguments)))
    return DONE


@asynccontextmanager
async def _engine(settings: ServerOptions, connections: int) -> AsyncIterator[AsyncEngine]:
    """Yield an engine on the user's server, or on ours."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(server_url(settings, lambda _phase: None))
        engine = backend_of(url).create_engine(url, pool_size=connections)
        stack.push_async_callback(engine.dispose)
        try:
            yield engine
        except AsyncLoaderError:
            raise
        except (DBAPIError, OSError) as error:
            raise unreachable(error, url) from error
