"""Counting while a run goes on; `Metrics.result` makes the frozen parts of a `RunResult`."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any

from ...concurrency.clock import SECOND_NS, Clock
from ...failures.classification import Failure
from ...failures.tracebacks import Sample
from ...results.errors import ErrorResult
from ...results.histogram import Histogram
from ...results.parts import CheckResult, OperationResult, PoolResult, ProcessResult, Series
from ...results.run import Outcome, RunResult
from ...results.schedule import ScheduleResult
from ...results.slices import Slices
from ...results.time_split import PARTS
from ...results.warm_up import WarmUpResult
from ..workload import Operation
from .check_tally import CheckTally
from .error_tally import ErrorTally
from .repeats import RepeatTally
from .slice_tally import RecentTally, SliceTally
from .snapshot import WATCHED, Snapshot
from .stall_tally import LEAST_STALL_NS, StallTally
from .tallies import Look, OperationTally, PoolGauge, SplitTally, Times, as_it_is, pool_in_sight

# Of which a snapshot tells: it is to be short, and their names are the application's.
_MOST_ERRORS = 8


class Metrics:
    """
    The counts of one run.

    Everything is counted in bounded memory: a histogram an operation, a number a second, at
    most 128 slices of time. An operation is counted once, in its histogram: what came to that
    since is what a slice or a second gets when its time is over.
    """

    def __init__(
        self,
        operations: Iterable[Operation],
        clock: Clock,
        *,
        latency_limit: float | None = None,
    ) -> None:
        self._clock = clock
        operations = tuple(operations)
        weight = sum(operation.weight for operation in operations)
        self._operations = {
            o.name: OperationTally(
                o.kind, share=o.weight / weight if weight else None, tags=o.tags or None
            )
            for o in operations
        }
        self._stalls = StallTally()
        self._latency_limit_ns = math.inf if latency_limit is None else latency_limit * SECOND_NS
        self._schedule_lag: Histogram | None = None
        self._errors = ErrorTally()
        self._checks = CheckTally()
        self._slices = SliceTally(self._operations)
        self._repeats = RepeatTally()
        self._recent = RecentTally()
        self._done: dict[int, int] = defaultdict(int)
        self._bad: dict[int, int] = defaultdict(int)
        self._in_use: dict[int, int] = defaultdict(int)
        self._waiting: dict[int, int] = defaultdict(int)
        self._all = Histogram()
        self.loop_lag = Histogram()
        self.started_ns = clock.now_ns()
        self.last_success_ns = self.last_failure_ns = self.started_ns
        self.late: deque[tuple[Any, ...]] = deque()
        """What is still to be counted of work left in the background, noted by any thread."""
        self._began_ns = 0  # the time, of the run's own, for which nothing is drained yet
        self._over_ns = self.started_ns + self._slices.width_ns

    def arrived(self, lag_ns: int) -> None:
        """Count an operation that was due and starts now, so late."""
        if self._schedule_lag is None:
            self._schedule_lag = Histogram()
        self._schedule_lag.record(lag_ns)

    def dropped(self, name: str) -> None:
        """Count an operation that was due and cannot start."""
        self._operations[name].dropped += 1

    def retried(self, name: str, first: bool) -> None:
        """Count a try after an operation's first; the `first` of those makes it a retried one."""
        tally = self._operations[name]
        tally.retries += 1
        tally.retried += first

    def wrote(self, name: str) -> None:
        """Note that an operation of no declared kind is one that writes."""
        self._operations[name].kind = "write"

    def succeeded(
        self,
        name: str,
        started_ns: int,
        ended_ns: int,
        times: Times | None = None,
        due_ns: int | None = None,
    ) -> None:
        """
        Count an operation that ended well, and where its time went if that was timed.

        Its latency counts from when it was due, if it was; what it spent until it started is
        in no part of its split.
        """
        if ended_ns - self.last_success_ns >= LEAST_STALL_NS:
            self._stalls.add(ended_ns - max(started_ns, self.last_success_ns, self.last_failure_ns))
        self.last_success_ns = ended_ns
        if ended_ns >= self._over_ns:
            self._drain(ended_ns)
        tally = self._operations[name]
        latency_ns = ended_ns - (started_ns if due_ns is None else due_ns)
        tally.histogram.record(latency_ns)
        if latency_ns > self._latency_limit_ns:
            tally.late += 1
        if times is not None:
            if tally.split is None:
                tally.split = SplitTally()
            tally.split.record(ended_ns - started_ns, times)
            if times.repeated:
                self._repeats.count(name, times)

    def failed(
        self,
        name: str,
        failure: Failure,
        error: BaseException | None,
        *,
        after_commit: bool = False,
        sample: Sample | None = None,
    ) -> None:
        """
        Count an operation that did not; a write whose reply is lost is indeterminate.

        `after_commit`: something of it was committed by then, and stays. `sample` is what to
        tell of a failure without an exception.
        """
        operation = self._operations[name]
        operation.after_commit += after_commit
        if failure.reply_lost and operation.kind == "write":
            operation.indeterminate += 1
        else:
            operation.failed += 1
        self._errors.count(name, failure, error, sample)
        before_ns = max(self.last_success_ns, self.last_failure_ns)
        self.last_failure_ns = self._clock.now_ns()
        self._stalls.add(self.last_failure_ns - before_ns)
        if self.last_failure_ns >= self._over_ns:
            self._drain(self.last_failure_ns)
        self._slices.fail(name)
        self._bad[(self.last_failure_ns - self.started_ns) // SECOND_NS] += 1

    def undone(
        self,
        name: str,
        failure: Failure,
        error: BaseException | None,
        sample: Sample | None = None,
    ) -> None:
        """Count an operation as failed that had ended well: what it left behind did not."""
        operation = self._operations[name]
        operation.undone += 1
        operation.failed += 1
        self._errors.count(name, failure, error, sample)

    def checked(self, name: str, passed: bool) -> None:
        """Count an operation's own check."""
        self._checks.count(name, passed)

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
        percentiles = latency.percentiles_ns(WATCHED.values())
        pool = pool_in_sight(gauge)
        return Snapshot(
            seconds=elapsed / SECOND_NS,
            planned=planned,
            duration=duration,
            completed=latency.count,
            bad=sum(self._bad.values()),
            rate=current / (1 if second else max(elapsed / SECOND_NS, 0.001)),
            p95_ms=percentiles[95.0] / 1e6,
            in_use=pool.in_use if pool else None,
            dropped=sum(tally.dropped for tally in self._operations.values()),
            p50_ms=percentiles[50.0] / 1e6,
            p99_ms=percentiles[99.0] / 1e6,
            waiting=pool.waiting if pool else None,
            time_split=self._time_split(),
            errors=dict(self._errors.by_kind().most_common(_MOST_ERRORS)),
            recent=self._recent.look(elapsed / SECOND_NS, WATCHED),
        )

    def _time_split(self) -> dict[str, float] | None:
        """Return the seconds that operations spent in each part."""
        splits = [o.split for o in self._operations.values() if o.split is not None]
        if not splits:
            return None
        return {part: sum(split.totals_ns[part] for split in splits) / SECOND_NS for part in PARTS}

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
            schedule=self.schedule(),
            stalls=self._stalls.result(),
        )

    def warm_up(self, seconds: float) -> WarmUpResult:
        """Return the counts as those of a warm-up, which took so long."""
        found = self.interim()
        bad = found.failed + found.indeterminate
        return WarmUpResult(seconds, bad, found.dropped, found.latency())

    def interim(self, *, look: Look = as_it_is) -> RunResult:
        """
        Return the counts so far, without what happened when.

        Another thread than the one that counts has a `look` at copies.
        """
        return RunResult(
            outcome="done",
            mode="",
            workload="",
            seconds=(self._clock.now_ns() - self.started_ns) / SECOND_NS,
            planned=None,
            by_operation={n: t.result(look=look) for n, t in self._operations.items()},
            errors=self.errors(),
            checks=self.checks(),
            pool=None,
            series=Series(),
            process=ProcessResult(0.0, 0, 0.0, look(self.loop_lag)),
            schedule=self.schedule(look=look),
        )

    def schedule(self, *, look: Look = as_it_is) -> ScheduleResult | None:
        """Return how the schedule was kept, None where nothing was ever due."""
        dropped = sum(tally.dropped for tally in self._operations.values())
        if self._schedule_lag is None and not dropped:
            return None
        lag = look(self._schedule_lag or Histogram())
        return ScheduleResult(lag.count + dropped, dropped, lag)

    def operations(self) -> dict[str, OperationResult]:
        """Return each operation's counts and latencies."""
        return {name: tally.result() for name, tally in self._operations.items()}

    def errors(self) -> dict[str, ErrorResult]:
        """Return the faults, most frequent first."""
        return self._errors.result()

    def checks(self) -> dict[str, CheckResult]:
        """Return how often each check held."""
        return self._checks.result()

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
            self._recent.add(fresh.items())
            done += sum(fresh.values())
        self._done[self._began_ns // SECOND_NS] += done
        self._began_ns = now_ns - self.started_ns
        self._slices.advance(self._began_ns)
        next_second = (self._began_ns // SECOND_NS + 1) * SECOND_NS
        self._over_ns = self.started_ns + min(self._slices.closes_ns, next_second)


def pool_result(gauge: PoolGauge | None) -> PoolResult | None:
    """Return the peaks of a pool, None where there is no pool to watch."""
    pool = pool_in_sight(gauge)
    return PoolResult(pool.size, pool.peak_in_use, pool.peak_waiting) if pool else None
