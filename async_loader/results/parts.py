"""The parts of a `RunResult`: each frozen, mergeable, and to and from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Self

from .histogram import Histogram, sum_of
from .machine import MachineResult
from .time_split import TimeSplit


@dataclass(frozen=True, slots=True)
class OperationResult:
    """
    One operation's counts and latencies.

    `count` ended well and are in `histogram`; `failed` ended with an error; of the
    `indeterminate` nobody knows whether the database did them (a commit without a reply).
    `dropped` were due and could not start; `late`: of `count`, those over the latency limit;
    `retries`: tries after the first, in `retried` operations, however those ended.
    `after_commit`: of those that did not end well, how many had committed something by then,
    for which reason they were not tried again. `histogram` also has the latencies of those
    that ended well and whose background tasks did not. `share` (0 to 1): of the mix, by its
    weight; None where that is not known.
    """

    kind: str
    count: int
    failed: int
    indeterminate: int
    histogram: Histogram
    split: TimeSplit | None = None
    dropped: int = 0
    late: int = 0
    retries: int = 0
    retried: int = 0
    after_commit: int = 0
    share: float | None = None

    @property
    def started(self) -> int:
        """How many began, however they ended."""
        return self.count + self.failed + self.indeterminate

    @property
    def due(self) -> int:
        """How many began or were dropped."""
        return self.started + self.dropped

    def merged(self, other: OperationResult) -> OperationResult:
        """Return the two together."""
        return OperationResult(
            kind="write" if "write" in (self.kind, other.kind) else self.kind,
            count=self.count + other.count,
            failed=self.failed + other.failed,
            indeterminate=self.indeterminate + other.indeterminate,
            histogram=sum_of(self.histogram, other.histogram),
            split=optional(TimeSplit.merged, self.split, other.split),
            dropped=self.dropped + other.dropped,
            late=self.late + other.late,
            retries=self.retries + other.retries,
            retried=self.retried + other.retried,
            after_commit=self.after_commit + other.after_commit,
            share=self.share if other.share is None else other.share,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; the percentiles are there to be read, the histogram counts."""
        return {
            "kind": self.kind,
            "count": self.count,
            "failed": self.failed,
            "indeterminate": self.indeterminate,
            "dropped": self.dropped,
            "late": self.late,
            "retries": self.retries,
            "retried": self.retried,
            "after_commit": self.after_commit,
            "share": self.share,
            "latency_ms": self.histogram.summary_ms(),
            "histogram": self.histogram.encode(),
            **(self.split.to_dict() if self.split else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote."""
        return cls(
            kind=data["kind"],
            count=data["count"],
            failed=data["failed"],
            indeterminate=data.get("indeterminate", 0),
            histogram=Histogram.decode(data["histogram"]),
            split=TimeSplit.from_dict(data),
            dropped=data.get("dropped", 0),
            late=data.get("late", 0),
            retries=data.get("retries", 0),
            retried=data.get("retried", 0),
            after_commit=data.get("after_commit", 0),
            share=data.get("share"),
        )


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How often a check of the workload's own held."""

    passed: int
    failed: int

    def merged(self, other: CheckResult) -> CheckResult:
        """Return the two together."""
        return CheckResult(self.passed + other.passed, self.failed + other.failed)

    def to_dict(self) -> dict[str, int]:
        """Return the JSON form."""
        return {"passed": self.passed, "failed": self.failed}


@dataclass(frozen=True, slots=True)
class PoolResult:
    """
    The connection pool: its size and the most connections in use and tasks waiting.

    Merged peaks are sums, an upper bound: shards need not peak together.
    """

    size: int
    peak_in_use: int
    peak_waiting: int

    def merged(self, other: PoolResult) -> PoolResult:
        """Return the two together."""
        return PoolResult(
            size=self.size + other.size,
            peak_in_use=self.peak_in_use + other.peak_in_use,
            peak_waiting=self.peak_waiting + other.peak_waiting,
        )

    def to_dict(self) -> dict[str, int]:
        """Return the JSON form."""
        return {
            "size": self.size,
            "peak_in_use": self.peak_in_use,
            "peak_waiting": self.peak_waiting,
        }


@dataclass(frozen=True, slots=True)
class Series:
    """
    What happened in each second of the run, in lists of equal length.

    `throughput`: operations that ended well in it. `failed`: those that did not.
    `in_use`, `waiting`: the most connections in use and tasks waiting for one.
    """

    throughput: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    in_use: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()

    def merged(self, other: Series) -> Series:
        """Return the two together, second by second."""
        return Series(
            **{
                name: tuple(
                    a + b
                    for a, b in zip_longest(getattr(self, name), getattr(other, name), fillvalue=0)
                )
                for name in ("throughput", "failed", "in_use", "waiting")
            }
        )

    def to_dict(self) -> dict[str, list[int]]:
        """Return the JSON form; `seconds` counts from the start of the run."""
        return {
            "seconds": list(range(len(self.throughput))),
            "throughput": list(self.throughput),
            "failed": list(self.failed),
            "in_use": list(self.in_use),
            "waiting": list(self.waiting),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote."""
        return cls(
            **{name: tuple(values) for name, values in data.items() if name != "seconds"},
        )


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """
    This process during the run.

    `loop_busy`: the share of the time (0 to 1) in which the event loop's thread ran or
    was ready to run. Near 1 the loop is the bottleneck and latencies hold its queue.
    `loop_lag`: how late a timer of the loop fired. `processes`: how many were merged.
    `machine`: who had its cores meanwhile; None where nobody looked.
    """

    cpu_seconds: float
    peak_memory_bytes: int
    loop_busy: float
    loop_lag: Histogram
    processes: int = 1
    machine: MachineResult | None = None

    def merged(self, other: ProcessResult) -> ProcessResult:
        """Return the two together: sums, but for the busiest loop."""
        return ProcessResult(
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            peak_memory_bytes=self.peak_memory_bytes + other.peak_memory_bytes,
            loop_busy=max(self.loop_busy, other.loop_busy),
            loop_lag=sum_of(self.loop_lag, other.loop_lag),
            processes=self.processes + other.processes,
            machine=optional(MachineResult.worse, self.machine, other.machine),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "cpu_seconds": round(self.cpu_seconds, 3),
            "peak_memory_bytes": self.peak_memory_bytes,
            "loop_busy": round(self.loop_busy, 4),
            "loop_lag_ms": self.loop_lag.summary_ms(),
            "loop_lag_histogram": self.loop_lag.encode(),
            "processes": self.processes,
            "machine": self.machine.to_dict() if self.machine else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote."""
        return cls(
            cpu_seconds=data["cpu_seconds"],
            peak_memory_bytes=data["peak_memory_bytes"],
            loop_busy=data["loop_busy"],
            loop_lag=Histogram.decode(data["loop_lag_histogram"]),
            processes=data["processes"],
            machine=MachineResult.from_dict(data.get("machine")),
        )


def optional(merge_two: Any, mine: Any, theirs: Any) -> Any:
    """Merge two values of which either may be missing."""
    if mine is None or theirs is None:
        return theirs if mine is None else mine
    return merge_two(mine, theirs)
