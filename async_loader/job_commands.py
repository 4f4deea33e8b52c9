"""The commands `job ...`: jobs run, seen and steered from a shell."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from .backends import backend_of
from .database import unreachable
from .databases import server_url
from .errors import AsyncLoaderError, ConfigurationError
from .job_settings import (
    JobCancelSettings,
    JobListSettings,
    JobPauseSettings,
    JobRetryErrorsSettings,
    JobRunSettings,
    JobSettings,
    JobStatusSettings,
)
from .jobs import BatchJob, JobStatus, control, report
from .jobs.run import OnProgress
from .limits import Stop
from .loading import load_module
from .progress import LINE_EVERY, Style
from .runtime import leave_errors_to_the_report, run_until_stopped
from .settings import ServerOptions

DONE = 0
STILL_FAILING = 1
STOPPED = 105
SHIPPED = {
    "top20": "async_loader.workloads.music:top20",
    "derive-chords": "async_loader.workloads.music:derive_chords",
}
# The heartbeat's, and those for short reads of the progress.
_SPARE_CONNECTIONS = 3


def run_job_command(settings: JobSettings) -> int:
    """Run one of the commands; return its exit code."""
    match settings:
        case JobRunSettings():
            return _run(settings)
        case JobRetryErrorsSettings():
            return asyncio.run(_retry_errors(settings))
        case _:
            return asyncio.run(_look_or_steer(settings))


def load_job(target: str) -> BatchJob:
    """Return the job that ships under a name, or that `module:name` or `file.py:name` is."""
    place, separator, name = SHIPPED.get(target, target).rpartition(":")
    if not separator:
        names = ", ".join(SHIPPED)
        raise ConfigurationError(f"no job {target!r}: the jobs are {names}, or give module:name")
    job = getattr(load_module(place), name, None)
    if not isinstance(job, BatchJob):
        raise ConfigurationError(f"{place} has no BatchJob {name!r}")
    return job


def _run(settings: JobRunSettings) -> int:
    job = load_job(settings.target)
    if not settings.debug:
        leave_errors_to_the_report()
    with _progress(sys.stderr, settings.progress) as on_progress:
        status = run_until_stopped(
            lambda stop: _run_job(job, settings, stop, on_progress), loop="auto"
        )
    sys.stdout.write(report.summary(status))
    sys.stdout.flush()
    return DONE if status.state == "done" else STOPPED


async def _run_job(
    job: BatchJob, settings: JobRunSettings, stop: Stop, on_progress: OnProgress
) -> JobStatus:
    async with _engine(settings, settings.workers + _SPARE_CONNECTIONS) as engine:
        sessions, _ = backend_of(engine.url).session_factories(engine, reads_autocommit=False)
        return await job.run(
            sessions,
            workers=settings.workers,
            arguments=settings.arguments,
            stop=stop,
            on_progress=on_progress,
        )


async def _retry_errors(settings: JobRetryErrorsSettings) -> int:
    job = load_job(settings.target)
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


@contextmanager
def _progress(stream: TextIO, style: Style) -> Iterator[OnProgress]:
    """Yield what shows the state of a run: a bar on a terminal, else a line now and then."""
    if style == "auto":
        style = "bar" if stream.isatty() else "lines"
    if style == "bar":
        with _bar(stream) as show:
            yield show
    elif style == "lines":
        yield _lines(stream)
    else:
        yield lambda _status: None


@contextmanager
def _bar(stream: TextIO) -> Iterator[OnProgress]:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20))
    progress = Progress(
        *columns, TextColumn("{task.fields[figures]}"), console=Console(file=stream),
        auto_refresh=False, transient=True,
    )  # fmt: skip
    bar = progress.add_task("", total=None, figures="")

    def show(status: JobStatus) -> None:
        progress.update(
            bar,
            description=status.job,
            total=status.total,
            completed=status.rows_read + status.rows_skipped,
            figures=report.progress_line(status),
            refresh=True,
        )

    with progress:
        yield show


def _lines(stream: TextIO) -> OnProgress:
    shown = -LINE_EVERY

    def show(status: JobStatus) -> None:
        nonlocal shown
        now = asyncio.get_running_loop().time()
        if now - shown >= LINE_EVERY:
            shown = now
            print(f"{status.job}  {report.progress_line(status)}", file=stream, flush=True)

    return show
