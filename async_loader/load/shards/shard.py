"""One shard of a run, in a worker: it performs its part of the operations, in step with others."""

from __future__ import annotations

import asyncio
import pickle
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from sqlalchemy.engine import make_url

from ...concurrency.clock import SECOND_NS
from ...concurrency.stop import Stop
from ...concurrency.tasks import first_of
from ...database.postgresql import Namespace
from ...errors import AsyncLoaderError, WorkloadError
from ...results.run import RunResult
from ...runtime.process import leave_errors_to_the_report, loop_factory, spare_the_garbage_collector
from ...runtime.user_modules import load_module
from ...workers import Arrived, Halt, Link, read
from ...workers.answers import Failed, Found
from ..app import check_workload, run_async
from ..metrics.process_meter import ProcessMeter
from ..metrics.tallies import PoolGauge
from ..partition import Partition
from ..run_database import Database, connected, own_database
from ..specs.load_test import LoadTestSpec
from .messages import Ahead, Down, Ready, Start
from .snapshots import snapshot

# Operations are announced for about so long ahead: what a dead shard had begun is among them.
_AHEAD = 0.25
_FIRST, _MOST = 16, 1 << 16


@dataclass(frozen=True, slots=True)
class Task:
    """
    What a shard is to do: it can be pickled, and shows no secret.

    `url` and `connections`: of the database, None where the run has none or the workload brings
    its own. `shared`: what the set-up returned, pickled; the workload's file was the module
    `module` there.
    """

    spec: LoadTestSpec = field(repr=False)
    part: Partition
    shared: bytes = field(repr=False)
    url: str | None = field(repr=False, default=None)
    namespace: Namespace | None = None
    connections: int | None = None
    module: str | None = None


def perform(link: Link, task: Task) -> Found | Failed:
    """Perform a task; what is raised here would have to be unpickled there."""
    spec = task.spec
    if not spec.debug:
        leave_errors_to_the_report()
    try:
        with asyncio.Runner(loop_factory=loop_factory(spec.loop)) as runner:
            spare_the_garbage_collector()
            return Found(runner.run(_perform(link, task)).to_dict())
    except AsyncLoaderError as error:
        return Failed.of(error)
    except Exception as error:
        if spec.debug:
            traceback.print_exc()
        return Failed(f"an unexpected {type(error).__name__}: {error}", 1)


async def _perform(link: Link, task: Task) -> RunResult:
    spec = task.spec
    workload = check_workload(spec)  # before `shared`, whose classes may be its module's
    lead = LinkedLead(link, task.part, _shared(task))
    async with AsyncExitStack() as stack:
        database: Database | None = None
        if task.url is not None:
            assert task.namespace is not None
            assert task.connections is not None
            database = await stack.enter_async_context(
                connected(spec.database, make_url(task.url), task.namespace, task.connections)
            )
        elif workload.sessions_hook is not None:
            database = await stack.enter_async_context(own_database(spec.database, workload))
        return await run_async(spec, database, lead.stop, None, lead)


def _shared(task: Task) -> Any:
    """Return what the workload's set-up returned in the coordinator."""
    if task.module is not None:
        module = load_module(task.spec.workload.place)
        sys.modules.setdefault(task.module, module)
    try:
        return pickle.loads(task.shared)  # noqa: S301  the coordinator's own
    except Exception as error:
        raise WorkloadError(
            f"op.shared cannot be unpickled here: {type(error).__name__}: {error}"
        ) from error


class LinkedLead:
    """The `ShardCoordinator` of a run's coordinator, over a worker's link to it."""

    def __init__(self, link: Link, part: Partition, shared: Any) -> None:
        self.part = part
        self.shared = shared
        self.stop = Stop()
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._start = asyncio.Event()
        self._start_ns = 0
        self._meter = ProcessMeter()
        link.listen(self._listen)

    def numbers(self) -> Iterator[int]:
        """See `ShardCoordinator.numbers`; a batch is announced before its first is begun."""
        numbers, upto, step = self.part.numbers(), 0, _FIRST
        while True:
            upto += step
            announced = time.monotonic()
            self._link.tell(Ahead(upto))
            yield from islice(numbers, step)
            took = time.monotonic() - announced
            step = min(max(int(step * min(_AHEAD / max(took, 1e-6), 2.0)), 1), _MOST)

    async def begin(self) -> None:
        """See `ShardCoordinator.begin`."""
        self._link.tell(Ready())
        waiting = asyncio.create_task(self._start.wait())
        await first_of(waiting, self.stop.requested)
        waiting.cancel()
        await asyncio.sleep((self._start_ns - time.time_ns()) / SECOND_NS)
        self._meter = ProcessMeter()

    def look(self, so_far: RunResult, pool: PoolGauge | None) -> None:
        """See `ShardCoordinator.look`."""
        process = self._meter.result(so_far.process.loop_lag)
        self._link.tell(snapshot(so_far, pool, process.loop_busy))

    def _listen(self, message: Arrived | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: the run is over
            self._loop.call_soon_threadsafe(partial(self._hear, message))

    def _hear(self, message: Arrived | None) -> None:
        told: Down | None = None if message is None else read(message, Down)
        match told:
            case None:  # nobody waits for a result
                self.stop.request()
                self.stop.request()
            case Halt():
                self.stop.request()
            case Start(at_ns=at_ns):
                self._start_ns = at_ns
                self._start.set()
