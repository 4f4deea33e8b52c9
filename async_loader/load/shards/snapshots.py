"""
What a shard tells of itself each second, in at most 4 KB, and what all of them are together.

A snapshot holds totals: the last one is all there is to know, and a lost one costs nothing. Its
latencies are as fine as there is room for, and rounded down: a percentile is never too high.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace as replaced
from operator import add
from typing import Any

from msgspec.structs import replace

from ...results.errors import ErrorResult
from ...results.histogram import Histogram
from ...results.parts import CheckResult, OperationResult, ProcessResult, Series
from ...results.run import RunResult
from ...results.schedule import ScheduleResult
from ...workers import SNAPSHOT_BYTES, encoded
from ..metrics.slice_tally import RecentTally
from ..metrics.snapshot import WATCHED, Snapshot
from ..metrics.tallies import PoolGauge, pool_in_sight
from ..workload import Operation
from .messages import ShardSnapshot

# Significant bits of a latency, of the 11 that a shard keeps itself.
_PRECISIONS = (8, 7, 6, 5, 4, 3)
# What is left of the bytes for the message around it.
_ROOM = SNAPSHOT_BYTES - 64
_COUNTS = ("count", "failed", "indeterminate", "dropped", "late", "retries", "retried")
# Those that say that an operation has ended come first.
_ENDED = 4
_ERRORS = 5


def snapshot(so_far: RunResult, gauge: PoolGauge | None, loop_busy: float) -> ShardSnapshot:
    """Return the message that says what a shard has counted so far."""
    operations = list(so_far.by_operation.values())
    schedule = so_far.schedule
    pool = pool_in_sight(gauge)
    message = ShardSnapshot(
        seconds=round(so_far.seconds, 3),
        counts=[[getattr(o, name) for name in _COUNTS] for o in operations],
        in_use=pool.in_use if pool else None,
        waiting=pool.waiting if pool else None,
        busy=round(loop_busy, 3),
        lag_ns=so_far.process.loop_lag.percentiles_ns([99.0])[99.0],
        due=schedule.due if schedule else 0,
    )
    told: dict[str, dict[str, list[int]]] = {
        "errors": {
            name: [error.by_operation.get(o, 0) for o in so_far.by_operation]
            for name, error in [*so_far.errors.items()][:_ERRORS]
        },
        "checks": {name: [c.passed, c.failed] for name, c in so_far.checks.items()},
    }
    for name, value in told.items():
        fuller = replace(message, **{name: value})
        if _length(fuller) < _ROOM // 2:
            message = fuller
    histograms = [o.histogram for o in operations]
    if schedule is not None:
        histograms.append(schedule.lag)
    return replace(message, histograms=_fitting(histograms, _ROOM - _length(message)))


def _fitting(histograms: Sequence[Histogram], room: int) -> list[str | None]:
    """Return encodings that fit: the finest of all of them, or the coarsest of the first."""
    encodings: list[str | None] = []
    for bits in _PRECISIONS:
        encodings = [h.coarser(bits).encode() if h.count else None for h in histograms]
        if _length(encodings) <= room:
            return encodings
    while _length(encodings) > room:
        encodings[max(n for n, encoding in enumerate(encodings) if encoding)] = None
    return encodings


def _length(value: object) -> int:
    return len(encoded(value))


class Standings:
    """
    The last snapshot of each shard.

    Its memory is theirs, and four bytes for each second of each: it does not grow with what
    the shards do.
    """

    def __init__(self, operations: Sequence[Operation], shards: int) -> None:
        self._operations = operations
        self._last: list[ShardSnapshot | None] = [None] * shards
        self._rates: dict[int, float] = {}  # of those that go on
        self._completed = [array("L") for _ in range(shards)]
        self._recent = RecentTally()

    def take(self, index: int, message: ShardSnapshot) -> None:
        """Take a shard's snapshot."""
        last = self._last[index]
        since = message.seconds - (last.seconds if last else 0.0)
        fresh = _completed(message) - (_completed(last) if last else 0)
        self._rates[index] = fresh / since if since > 0 else 0.0
        self._completed[index].append(fresh)
        self._last[index] = message

    def ended(self, index: int) -> None:
        """Have a shard add nothing to the rate any more."""
        self._rates.pop(index, None)

    def completed(self, index: int) -> int:
        """Return how many operations of a shard are known to have ended well."""
        last = self._last[index]
        return _completed(last) if last is not None else 0

    def acknowledged(self, index: int) -> list[int]:
        """Return how many of each operation of a shard are known to have ended."""
        last = self._last[index]
        counts = last.counts if last is not None else [[0]] * len(self._operations)
        return [sum(of_one[:_ENDED]) for of_one in counts]

    def of(self, index: int) -> RunResult:
        """Return what a shard's last snapshot says."""
        last = self._last[index]
        series = tuple(self._completed[index])
        nothing = (0,) * len(series)
        return replaced(
            self._result([] if last is None else [last]),
            series=Series(series, nothing, nothing, nothing),
        )

    def together(self) -> RunResult:
        """Return what the last snapshots of all say, as one result."""
        return self._result([message for message in self._last if message is not None])

    def progress(self, so_far: RunResult, planned: int | None, duration: float | None) -> Snapshot:
        """Return the state of the whole run, from what they say together."""
        latency = so_far.latency()
        percentiles = latency.percentiles_ns(WATCHED.values())
        return Snapshot(
            seconds=so_far.seconds,
            planned=planned,
            duration=duration,
            completed=so_far.completed,
            bad=so_far.failed + so_far.indeterminate,
            # There is no last second once all have ended: then it is the whole run's.
            rate=sum(self._rates.values()) if self._rates else so_far.throughput,
            p50_ms=percentiles[50.0] / 1e6,
            p95_ms=percentiles[95.0] / 1e6,
            p99_ms=percentiles[99.0] / 1e6,
            in_use=_sum(m.in_use for m in self._last if m is not None),
            waiting=_sum(m.waiting for m in self._last if m is not None),
            dropped=so_far.dropped,
            errors={name: error.count for name, error in so_far.errors.items()},
            recent=self._latest(so_far.seconds, latency),
        )

    def _latest(self, seconds: float, latency: Histogram) -> dict[str, float] | None:
        """Return the percentiles of the last seconds, from what came to the whole run's."""
        self._recent.add(latency.counts())
        found = self._recent.look(seconds, WATCHED)
        # Less all of it, and with the next look's all of it, that one has what came meanwhile.
        self._recent.add((ns, -count) for ns, count in latency.counts())
        return found

    def _result(self, messages: Sequence[ShardSnapshot]) -> RunResult:
        by_operation = {
            operation.name: _operation(operation.kind or "read", number, messages)
            for number, operation in enumerate(self._operations)
        }
        return RunResult(
            outcome="done",
            mode="",
            workload="",
            seconds=max((message.seconds for message in messages), default=0.0),
            planned=None,
            by_operation=by_operation,
            errors=self._errors(messages),
            checks=_checks(messages),
            pool=None,
            series=Series(),
            process=ProcessResult(
                0.0, 0, max((message.busy for message in messages), default=0.0), Histogram()
            ),
            schedule=_schedule(messages, by_operation),
        )

    def _errors(self, messages: Iterable[ShardSnapshot]) -> dict[str, ErrorResult]:
        total: dict[str, Counter[str]] = defaultdict(Counter)
        names = [operation.name for operation in self._operations]
        for message in messages:
            for error, counts in message.errors.items():
                total[error].update(dict(zip(names, counts, strict=True)))
        return {
            error: ErrorResult(counts.total(), dict(+counts), error)
            for error, counts in total.items()
        }


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _completed(message: ShardSnapshot) -> int:
    return sum(of_one[0] for of_one in message.counts)


def _operation(kind: str, number: int, messages: Iterable[ShardSnapshot]) -> OperationResult:
    """Return the counts of one operation, the `number`th of the messages."""
    histogram, total = Histogram(), [0] * len(_COUNTS)
    for message in messages:
        total = [*map(add, total, message.counts[number])]
        if latencies := message.histograms[number]:
            histogram.add_encoded(latencies)
    counts: dict[str, Any] = dict(zip(_COUNTS, total, strict=True))
    return OperationResult(kind, histogram=histogram, **counts)


def _checks(messages: Iterable[ShardSnapshot]) -> dict[str, CheckResult]:
    total: dict[str, CheckResult] = {}
    for message in messages:
        for name, counts in message.checks.items():
            total[name] = total.get(name, CheckResult(0, 0)).merged(CheckResult(*counts))
    return total


def _schedule(
    messages: Sequence[ShardSnapshot], by_operation: Mapping[str, OperationResult]
) -> ScheduleResult | None:
    """Return how the schedule was kept; its histogram is the one after the operations'."""
    if not any(message.due for message in messages):
        return None
    lag = Histogram()
    for message in messages:
        for histogram in message.histograms[len(by_operation) :]:
            if histogram:
                lag.add_encoded(histogram)
    dropped = sum(operation.dropped for operation in by_operation.values())
    return ScheduleResult(sum(message.due for message in messages), dropped, lag)
