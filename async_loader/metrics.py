"""Counting while a run goes on; `Metrics.result` makes the frozen parts of a `RunResult`."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from .clock import Clock
from .failures import Failure
from .histogram import Histogram
from .repeats import RepeatTally, Statements
from .result_parts import (
    CheckResult,
    ErrorResult,
    OperationResult,
    PoolResult,
    ProcessResult,
    Series,
    TimeSplit,
)
from .results import Outcome, RunResult
from .slice_tally import SliceTally
from .slices import Slices
from .tracebacks import Sample, sample_of
from .workload import Kind, Operation

SECOND_NS = 1_000_000_000


class PoolGauge(Protocol):
    """What a connection pool tells at an instant, and the peaks so far."""

    peak_in_use: int
    peak_waiting: int

    @property
    def size(self) -> int:
        """The most connections that it opens; 0 where it has no limit."""
        ...

    @property
    def in_use(self) -> int:
        """Connections that are checked out."""
        ...

    @property
    def waiting(self) -> int:
        """Tasks or threads that have asked for one and have none yet."""
        ...


class Times(Statements, Protocol):
    """What was timed within one operation."""

    pool_ns: int
    database_ns: int
    statements: int


@dataclass(slots=True)
class SplitTally:
    """The running split of one operation's latencies."""

    pool_wait: Histogram = field(default_factory=Histogram)
    database: Histogram = field(default_factory=Histogram)
    orm: Histogram = field(default_factory=Histogram)
    statements: int = 0
    most_statements: int = 0

    def record(self, latency_ns: int, times: Times) -> None:
        """Count one operation; what was in neither the pool nor the database is the ORM's."""
        self.pool_wait.record(times.pool_ns)
        self.database.record(times.database_ns)
        self.orm.record(max(latency_ns - times.pool_ns - times.database_ns, 0))
        self.statements += times.statements
        self.most_statements = max(self.most_statements, times.statements)

    def result(self) -> TimeSplit:
        """Return the split so far."""
        return TimeSplit(
            self.pool_wait, self.database, self.orm, self.statements, self.most_statements
        )


@dataclass(slots=True)
class OperationTally:
    """The running counts of one operation."""

    kind: Kind
    histogram: Histogram = field(default_factory=lambda: Histogram(followed=True))
    failed: int = 0
    indeterminate: int = 0
    split: SplitTally | None = None

    def result(self) -> OperationResult:
        """Return the counts so far."""
        return OperationResult(
            kind=self.kind,
            count=self.histogram.count,
            failed=self.failed,
            indeterminate=self.indeterminate,
            histogram=self.histogram,
            split=self.split.result() if self.split else None,
        )


@dataclass(slots=True)
class ErrorTally:
    """The running counts of one kind of failure."""

    sample: Sample
    by_operation: dict[str, int] = field(default_factory=lambda: defaultdict(int))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a run at an instant; `p95_ms` is over the run so far, `rate` the last second."""

    seconds: float
    planned: int | None
    duration: float | None
    completed: int
    bad: int
    rate: float
    p95_ms: float
    in_use: int | None


class Metrics:
    """
    The counts of one run.

    Everything is counted in bounded memory: a histogram an operation, a number a second, at
    most 128 slices of time. An operation is counted once, in its histogram: what came to that
    since is what a slice or a second gets when its time is over.
    """

    def __init__(self, operations: Iterable[Operation], clock: Clock) -> None:
        self._clock = clock
        self._operations = {o.name: OperationTally(o.kind) for o in operations}
        self._errors: dict[str, ErrorTally] = {}
        self._checks: dict[tuple[str, bool], int] = defaultdict(int)
        self._slices = SliceTally(self._operations)
        self._repeats = RepeatTally()
        self._done: dict[int, int] = defaultdict(int)
        self._bad: dict[int, int] = defaultdict(int)
        self._in_use: dict[int, int] = defaultdict(int)
        self._waiting: dict[int, int] = defaultdict(int)
        self._all = Histogram()
        self.loop_lag = Histogram()
        self.started_ns = clock.now_ns()
        self.last_success_ns = self.last_failure_ns = self.started_ns
        self._began_ns = 0  # the time, of the run's own, for which nothing is drained yet
        self._over_ns = self.started_ns + self._slices.width_ns

    def succeeded(
        self, name: str, started_ns: int, ended_ns: int, times: Times | None = None
    ) -> None:
        """Count an operation that ended well, and where its time went if that was timed."""
        self.last_success_ns = ended_ns
        if ended_ns >= self._over_ns:
            self._drain(ended_ns)
        tally = self._operations[name]
        tally.histogram.record(ended_ns - started_ns)
        if times is not None:
            if tally.split is None:
                tally.split = SplitTally()
            tally.split.record(ended_ns - started_ns, times)
            if times.repeated:
                self._repeats.count(name, times)

    def failed(self, name: str, failure: Failure, error: BaseException | None) -> None:
        """Count an operation that did not; a write whose reply is lost is indeterminate."""
        operation = self._operations[name]
        if failure.reply_lost and operation.kind == "write":
            operation.indeterminate += 1
        else:
            operation.failed += 1
        tally = self._errors.get(failure.name)
        if tally is None:
            tally = self._errors[failure.name] = ErrorTally(sample_of(error, failure.name))
        tally.by_operation[name] += 1
        self.last_failure_ns = self._clock.now_ns()
        if self.last_failure_ns >= self._over_ns:
            self._drain(self.last_failure_ns)
        self._slices.fail(name)
        self._bad[(self.last_failure_ns - self.started_ns) // SECOND_NS] += 1

    def checked(self, name: str, passed: bool) -> None:
        """Count an operation's own check."""
        self._checks[name, passed] += 1

    def sample(self, gauge: PoolGauge | None, lag_ns: int) -> None:
        """Note the loop's lag and the pool at this instant."""
        self.loop_lag.record(max(lag_ns, 0))
        self.sample_pool(gauge)

    def sample_pool(self, gauge: PoolGauge | None) -> None:
        """Note the pool at this instant."""
        if gauge is not None:
            second = (self._clock.now_ns() - self.started_ns) // SECOND_NS
            self._in_use[second] = max(self._in_use[second], gauge.in_use)
            self._waiting[second] = max(self._waiting[second], gauge.waiting)

    def snapshot(
        self, gauge: PoolGauge | None, planned: int | None, duration: float | None
    ) -> Snapshot:
        """Return the state of the run now."""
        now = self._clock.now_ns()
        self._drain(now)
        elapsed = now - self.started_ns
        second = elapsed // SECOND_NS
        latency = self._all
        latency.clear()
        for operation in self._operations.values():
            latency.add(operation.histogram)
        current = self._done[second - 1] if second else self._done[0]
        return Snapshot(
            seconds=elapsed / SECOND_NS,
            planned=planned,
            duration=duration,
            completed=latency.count,
            bad=sum(self._bad.values()),
            rate=current / (1 if second else max(elapsed / SECOND_NS, 0.001)),
            p95_ms=latency.percentiles_ns([95.0])[95.0] / 1e6,
            in_use=gauge.in_use if gauge else None,
        )

    def result(
        self,
        *,
        outcome: Outcome,
        mode: str,
        workload: str,
        seconds: float,
        planned: int | None,
        pool: PoolGauge | None,
        process: ProcessResult,
    ) -> RunResult:
        """Return everything that was counted, for a run of so many seconds."""
        return RunResult(
            outcome=outcome,
            mode=mode,
            workload=workload,
            seconds=seconds,
            planned=planned,
            by_operation=self.operations(),
            errors=self.errors(),
            checks=self.checks(),
            pool=pool_result(pool),
            series=self.series(seconds),
            slices=self.slices(seconds),
            process=process,
            repeated_statements=self._repeats.result(),
        )

    def operations(self) -> dict[str, OperationResult]:
        """Return each operation's counts and latencies."""
        return {name: tally.result() for name, tally in self._operations.items()}

    def errors(self) -> dict[str, ErrorResult]:
        """Return the failures, most frequent first."""
        results = {
            name: ErrorResult(
                count=sum(tally.by_operation.values()),
                by_operation=dict(tally.by_operation),
                sample=tally.sample.message,
                source=tally.sample.source,
                traceback=tally.sample.traceback,
            )
            for name, tally in self._errors.items()
        }
        return dict(sorted(results.items(), key=lambda item: -item[1].count))

    def checks(self) -> dict[str, CheckResult]:
        """Return how often each check held."""
        names = dict.fromkeys(name for name, _ in self._checks)
        return {
            name: CheckResult(self._checks.get((name, True), 0), self._checks.get((name, False), 0))
            for name in names
        }

    def slices(self, seconds: float) -> Slices:
        """Return what happened in each slice of a run of this length."""
        elapsed_ns = int(seconds * SECOND_NS)
        self._drain(self.started_ns + elapsed_ns)
        return self._slices.result(elapsed_ns)

    def series(self, seconds: float) -> Series:
        """Return what happened in each second of a run of this length."""
        self._drain(self.started_ns + int(seconds * SECOND_NS))
        length = max([int(seconds), *self._done, *self._bad]) + 1

        def column(counts: Mapping[int, int]) -> tuple[int, ...]:
            return tuple(counts.get(second, 0) for second in range(length))

        return Series(
            throughput=column(self._done),
            failed=column(self._bad),
            in_use=column(self._in_use),
            waiting=column(self._waiting),
        )

    def _drain(self, now_ns: int) -> None:
        """Give the open slice and second what was recorded, and go on to those of now."""
        done = 0
        for name, tally in self._operations.items():
            fresh = tally.histogram.drain()
            self._slices.add(name, fresh)
            done += sum(fresh.values())
        self._done[self._began_ns // SECOND_NS] += done
        self._began_ns = now_ns - self.started_ns
        self._slices.advance(self._began_ns)
        next_second = (self._began_ns // SECOND_NS + 1) * SECOND_NS
        self._over_ns = self.started_ns + min(self._slices.closes_ns, next_second)


def pool_result(gauge: PoolGauge | None) -> PoolResult | None:
    """Return the peaks of a pool, None where there is no pool to watch."""
    if gauge is None:
        return None
    return PoolResult(gauge.size, gauge.peak_in_use, gauge.peak_waiting)


class ProcessMeter:
    """This process's CPU, memory and event loop, from its making to `result`."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()
        self._busy = thread_busy_seconds()

    def result(self, loop_lag: Histogram, busy_share: float | None = None) -> ProcessResult:
        """Return what was used since; the busy share is this thread's unless it is given."""
        wall = time.perf_counter() - self._wall
        busy = thread_busy_seconds() - self._busy if busy_share is None else busy_share * wall
        return ProcessResult(
            cpu_seconds=time.process_time() - self._cpu,
            peak_memory_bytes=peak_memory_bytes(),
            loop_busy=min(busy / wall, 1.0) if wall else 0.0,
            loop_lag=loop_lag,
        )


def peak_memory_bytes() -> int:
    """Return the most memory this process has had resident."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def thread_busy_seconds() -> float:
    """
    Return for how long this thread ran or, where Linux tells, waited for a core.

    A loop that is ready but waits for a core is as late for its operations as one that
    computes: on a machine shared with the server CPU time alone would call it idle.
    """
    try:
        ran_ns, waited_ns, _ = Path("/proc/thread-self/schedstat").read_text().split()
    except (OSError, ValueError):
        return time.thread_time()
    return (int(ran_ns) + int(waited_ns)) / SECOND_NS


async def watch_loop(clock: Clock, sample: Callable[[int], None], every: float = 0.05) -> None:
    """Call `sample` with how late a timer fired, in nanoseconds, until cancelled."""
    while True:
        asked = clock.now_ns()
        await clock.sleep(every)
        sample(clock.now_ns() - asked - int(every * SECOND_NS))
        await asyncio.sleep(0)
