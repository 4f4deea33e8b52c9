"""The shards of one run while it goes on: their begin, their snapshots, their losses, their sum."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from ...concurrency.clock import SECOND_NS
from ...concurrency.stop import Stop
from ...concurrency.tasks import answer_of, cancel
from ...errors import WorkerLostError
from ...results.errors import ErrorResult
from ...results.run import Outcome, RunResult, merge
from ...results.shards import ShardResult
from ...verdict.thresholds import broken_so_far
from ...workers import Arrived, Halt, Message, Workers, read
from ...workers.answers import Failed, Found
from ...workers.ends import Patience
from ...workers.stopping import pass_on
from ..partition import Partition
from ..run_database import Say
from ..runner.phase import OnProgress
from ..server.statistics import ServerWatch
from ..specs.load_test import LoadTestSpec
from ..workload import Mix
from .messages import Ahead, Ready, ShardSnapshot, Start, Up
from .shard import Task, perform
from .snapshots import Standings, snapshot

# From the order to start until the start: time for it to arrive everywhere.
_NOTICE = 0.2
_TICK = 1.0


class Split:
    """A run that is split: `hear` takes what its workers tell, `run` is it from start to end."""

    def __init__(
        self,
        spec: LoadTestSpec,
        mix: Mix,
        shards: int,
        *,
        stop: Stop,
        on_progress: OnProgress,
        note: Say,
    ) -> None:
        self._spec = spec
        self._mix = mix
        self._stop = stop
        self._on_progress = on_progress
        self._note = note
        self._workers: Workers
        self._standings = Standings(mix.operations, shards)
        self._upto = [0] * shards
        self._ready = [asyncio.Event() for _ in range(shards)]  # or it has ended
        self._started = False
        self._results: dict[int, RunResult] = {}
        self._lost: dict[int, WorkerLostError] = {}
        self._heard: dict[int, float] = {}  # when, by `time.monotonic`, of those under way
        self._answers: dict[int, asyncio.Future[Found | Failed]] = {}
        self._cause: Outcome | None = None

    def hear(self, index: int, message: Arrived) -> None:
        """Take a message from a worker."""
        if index in self._heard:
            self._heard[index] = time.monotonic()
        told: Up = read(message, Up)
        match told:
            case Ready():
                self._ready[index].set()
            case Ahead(upto=upto):
                self._upto[index] = upto
            case ShardSnapshot() as found:
                self._standings.take(index, found)

    async def run(self, workers: Workers, tasks: Sequence[Task], server: ServerWatch) -> RunResult:
        """Have the tasks performed, and return what all of them found."""
        self._workers = workers
        shards = [
            asyncio.create_task(self._follow(index, task)) for index, task in enumerate(tasks)
        ]
        others = [asyncio.create_task(pass_on(self._stop, workers))]
        try:
            await self._all_ready(shards)
            await server.begin()
            self._start()
            others.append(asyncio.create_task(self._watch()))
            await _first_error(shards)
        finally:
            await cancel(*shards, *others)
        server_side = await server.end()
        self._progress()
        return replace(self._merged(), server_side=server_side)

    async def _all_ready(self, shards: Sequence[asyncio.Task[None]]) -> None:
        """Wait for the end of all warm-ups, or raise what ended a shard before."""
        for ready in self._ready:
            await ready.wait()
            for shard in shards:
                if shard.done():
                    shard.result()

    def _start(self) -> None:
        at_ns = time.time_ns() + int(_NOTICE * SECOND_NS)
        for index in range(len(self._ready)):
            theirs = at_ns + self._workers.clock_offset_ns(index)
            self._workers.tell(index, Start(theirs))
            if not self._answers[index].done():
                self._heard[index] = time.monotonic()
        self._started = True

    async def _follow(self, index: int, task: Task) -> None:
        """Have a shard performed, and keep what comes of it."""
        try:
            answer = await self._answer(index, task)
        except WorkerLostError as error:
            if not self._started:
                raise
            self._lose(index, task.part, error)
        else:
            name = self._workers.names[index]
            if isinstance(answer, Failed):
                raise answer.error(name)
            result = self._results[index] = RunResult.from_dict(answer.result)
            self._standings.take(index, snapshot(result, None, result.process.loop_busy))
            if result.outcome == "aborted":
                self._end("aborted")
        finally:
            self._ready[index].set()
            self._standings.ended(index)

    async def _answer(self, index: int, task: Task) -> Found | Failed:
        """Return what a shard answers; raises `WorkerLostError` for one that has fallen silent."""
        answer = answer_of(self._workers.submit(index, perform, task))
        self._answers[index] = answer
        await asyncio.wait({answer})
        if answer.cancelled():
            silent = time.monotonic() - self._heard.pop(index)
            self._workers.give_up(index)
            raise WorkerLostError(
                self._workers.names[index], f"has stood still for {silent:.0f} s and was given up"
            )
        self._heard.pop(index, None)
        return answer.result()

    def _give_up_silent(self) -> None:
        """Wait no longer for shards whose event loops stand still: they tell each second."""
        bound = Patience.outside(self._spec.timeouts.op_timeout, self._spec.timeouts.grace).silence
        for index, heard in self._heard.items():
            if time.monotonic() - heard > bound:
                self._answers[index].cancel()

    def _lose(self, index: int, part: Partition, error: WorkerLostError) -> None:
        """Make the best of what is known of a shard whose worker has died."""
        known = self._standings.of(index)
        unknown = self._unacknowledged(index, part)
        self._lost[index] = error
        self._results[index] = _with_unknown(known, unknown, str(error))
        self._note(
            f"{error} {known.seconds:.0f} s after the start: its last snapshot has "
            f"{known.completed:,} operations; {sum(unknown.values()):,} more may have begun and "
            "count as indeterminate"
        )
        everybody = len(self._lost) == len(self._ready)
        if everybody or self._spec.sharding.on_worker_loss == "stop":
            self._end("lost")

    def _unacknowledged(self, index: int, part: Partition) -> Counter[str]:
        """Return how many of each operation a shard may have begun, of which we know no end."""
        ops = part.limit(self._spec.load.limit).ops
        upto = self._upto[index] if ops is None else min(self._upto[index], ops)
        begun = Counter(self._mix.choose(i).name for i in islice(part.numbers(), upto))
        names = [operation.name for operation in self._mix.operations]
        ended = dict(zip(names, self._standings.acknowledged(index), strict=True))
        return Counter({n: count - ended[n] for n, count in begun.items() if count > ended[n]})

    def _end(self, cause: Outcome) -> None:
        """Have all of them drain, for a reason that is the outcome of the run."""
        if self._cause is None:
            self._cause = cause
            self._tell_all(Halt())

    def _tell_all(self, message: Message) -> None:
        for index in range(len(self._ready)):
            self._workers.tell(index, message)

    async def _watch(self) -> None:
        """Show each second how far all are, and judge them where a threshold is to end the run."""
        while True:
            await asyncio.sleep(_TICK)
            self._give_up_silent()
            so_far = self._progress()
            delay = self._spec.verdict.abort_on_fail
            judged = delay is not None and so_far.seconds >= delay
            if judged and broken_so_far(so_far, self._spec.verdict.thresholds):
                self._end("failed")

    def _progress(self) -> RunResult:
        so_far = self._standings.together()
        limit = self._spec.load.limit
        self._on_progress(self._standings.progress(so_far, limit.ops, limit.duration))
        return so_far

    def _merged(self) -> RunResult:
        """Return the results of all shards as one, of which each is told apart too."""
        results = [self._results[index] for index in sorted(self._results)]
        total = merge(results)
        total = replace(
            total,
            outcome=self._cause or total.outcome,
            mode=self._spec.load_model.throttle(Partition(0, len(self._workers.names))).mode,
            planned=self._spec.load.limit.ops,
            shards=tuple(self._shard(index, result) for index, result in enumerate(results)),
        )
        return total if total.ended_by is None else total.ended_early(total.ended_by)

    def _shard(self, index: int, result: RunResult) -> ShardResult:
        lost = self._lost.get(index)
        process = result.process
        return ShardResult(
            name=self._workers.names[index],
            seconds=result.seconds,
            completed=result.completed,
            failed=result.failed,
            indeterminate=result.indeterminate,
            loop_busy=process.loop_busy,
            loop_lag_ms=process.loop_lag.percentiles_ns([99.0])[99.0] / 1e6,
            schedule_lag_ms=(
                result.schedule.lag.percentiles_ns([99.0])[99.0] / 1e6 if result.schedule else None
            ),
            cpu_seconds=process.cpu_seconds,
            peak_memory_bytes=process.peak_memory_bytes,
            clock_offset_ms=self._workers.clock_offset_ns(index) / 1e6,
            lost=lost.how if lost is not None else None,
        )


async def _first_error(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for the end of all, or raise the first error at once."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        if task.done():
            task.result()


def _with_unknown(known: RunResult, unknown: Counter[str], error: str) -> RunResult:
    """Return a dead shard's result, with the operations of which nobody knows."""
    if not unknown:
        return known
    lost = ErrorResult(unknown.total(), dict(unknown), error)
    return replace(
        known,
        by_operation={
            name: replace(operation, indeterminate=operation.indeterminate + unknown[name])
            for name, operation in known.by_operation.items()
        },
        errors={**known.errors, "worker lost": lost},
    )
