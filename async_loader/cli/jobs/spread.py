"""
One run of a job by several processes, here or on a cluster.

The run is begun here, once, and all work on its number: partitions are claimed in the
database, and those of a worker that has died are the others'.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from sqlalchemy.exc import SQLAlchemyError

from ...concurrency.stop import Stop
from ...concurrency.tasks import answer_of
from ...database.backends import backend_of
from ...database.postgresql import closing, create_sessions
from ...database.urls import parse_url
from ...errors import JobError, WorkerLostError
from ...jobs import JobStatus
from ...jobs.definition import Sessions
from ...jobs.run import PROGRESS_EVERY, JobSession, OnProgress
from ...jobs.states import SCHEMA
from ...jobs.targets import load_job
from ...runtime.event_loop import LoopRunner
from ...runtime.process import leave_errors_to_the_report, loop_factory
from ...workers import Arrived, Halt, Link, Workers, read
from ...workers.stopping import pass_on

Say = Callable[[str], None]

# The heartbeat's, and those for short reads of the progress.
SPARE_CONNECTIONS = 3


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to do; the URL, which may hold a password, is in no text of it."""

    target: str
    url: str = field(repr=False)
    workers: int
    run: int
    state_schema: str = SCHEMA
    debug: bool = False


def work(link: Link, order: Order) -> None:
    """Work on a run in this process, until it is over or a message stops it."""
    if not order.debug:
        leave_errors_to_the_report()
    stop = Stop()
    with LoopRunner(loop_factory("auto"), on_exit=stop.request) as runner:
        runner.run(_work(link, order, stop))


async def _work(link: Link, order: Order, stop: Stop) -> None:
    loop = asyncio.get_running_loop()

    def heard(message: Arrived | None) -> None:
        by = (message and read(message, Halt).by) or "its command"
        with suppress(RuntimeError):  # the loop has ended, and with it what was to be stopped
            loop.call_soon_threadsafe(stop.request, by)

    link.listen(heard)
    job = load_job(order.target)
    async with (
        _sessions(order) as sessions,
        job.taking_part(sessions, workers=order.workers, state_schema=order.state_schema) as part,
    ):
        await part.work_on(order.run, workers=order.workers, stop=stop, on_progress=None)


@asynccontextmanager
async def _sessions(order: Order) -> AsyncIterator[Sessions]:
    url = parse_url(order.url)
    engine = backend_of(url).create_engine(url, pool_size=order.workers + SPARE_CONNECTIONS)
    async with closing(engine):
        yield create_sessions(engine)


async def spread(
    part: JobSession, workers: Workers, order: Callable[[int], Order], *,
    begin: Callable[[], Awaitable[int]], stop: Stop, on_progress: OnProgress, say: Say,
) -> JobStatus:  # fmt: skip
    """
    Begin a run, have all workers work on it, and return how it stands when they have ended.

    `begin` makes the run, and `order` an order of its number. `say` is told of a worker that is
    lost: the others go on. Raises what one of them raised, and `JobError` when none is left.
    """
    stop.heeded = True
    run = await begin()
    now = await part.status(run)
    if now.state == "done":
        return replace(now, done_already=True)
    calls = [
        answer_of(workers.submit(index, work, order(run))) for index in range(len(workers.names))
    ]
    for call in calls:
        call.add_done_callback(lambda call: _say_if_lost(call, say))
    others = [asyncio.create_task(pass_on(stop, workers)),
              asyncio.create_task(_show(part, run, on_progress))]  # fmt: skip
    try:
        await asyncio.wait(calls)
    finally:
        for task in others:
            task.cancel()
        await asyncio.wait(others)
    return await _standing(part, run, calls, stop)


async def _standing(
    part: JobSession, run: int, calls: Sequence[asyncio.Future[None]], stop: Stop
) -> JobStatus:
    errors = [error for call in calls if (error := call.exception()) is not None]
    others = [error for error in errors if not isinstance(error, WorkerLostError)]
    # Of those that end at the same time each sees the others, and none is the last.
    status = await (part.leave(run, stop.by) if stop.requested.is_set() else part.status(run))
    if status.state == "done":
        return status
    if others and isinstance(others[0], Exception):
        raise others[0]
    if others:  # this process goes on
        raise JobError(f"a worker was ended by {others[0]!r}: `job run` goes on") from others[0]
    if len(errors) == len(calls):
        raise JobError(f"no worker is left on run {run}: `job run` goes on with it") from errors[0]
    return status


def _say_if_lost(call: asyncio.Future[None], say: Say) -> None:
    error = None if call.cancelled() else call.exception()
    if isinstance(error, WorkerLostError):
        say(f"{error}: what it had begun is the others'")


async def _show(part: JobSession, run: int, on_progress: OnProgress) -> None:
    while True:
        with suppress(SQLAlchemyError, OSError):
            on_progress(await part.status(run))
        await asyncio.sleep(PROGRESS_EVERY)
