"""
What a run found: frozen, versioned, serialisable, mergeable.

Reports and comparisons read a `RunResult` and nothing else. `RESULT_SCHEMA` is the number in
the JSON's `schema`; it grows when a reader of the older form would misread the newer one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, Literal, Self

from .histogram import Histogram

RESULT_SCHEMA = 1

Outcome = Literal["done", "interrupted"]
# The worse outcome of two shards is the outcome of the run.
_OUTCOMES: tuple[Outcome, ...] = ("done", "interrupted")


@dataclass(frozen=True, slots=True)
class OperationResult:
    """
    One operation's counts and latencies.

    `count` ended well and are in `histogram`; `failed` ended with an error; of the
    `indeterminate` nobody knows whether the database did them (a commit without a reply).
    """

    kind: str
    count: int
    failed: int
    indeterminate: int
    histogram: Histogram

    def merged(self, other: OperationResult) -> OperationResult:
        """Return the two together."""
        return OperationResult(
            kind=self.kind,
            count=self.count + other.count,
            failed=self.failed + other.failed,
            indeterminate=self.indeterminate + other.indeterminate,
            histogram=_sum_of(self.histogram, other.histogram),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; the percentiles are there to be read, the histogram counts."""
        return {
            "kind": self.kind,
            "count": self.count,
            "failed": self.failed,
            "indeterminate": self.indeterminate,
            "latency_ms": self.histogram.summary_ms(),
            "histogram": self.histogram.encode(),
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
        )


@dataclass(frozen=True, slots=True)
class ErrorResult:
    """One class of failure: how often, in which operations, and one message as a sample."""

    count: int
    by_operation: Mapping[str, int]
    sample: str

    def merged(self, other: ErrorResult) -> ErrorResult:
        """Return the two together, with the first one's sample."""
        names = [*self.by_operation, *other.by_operation]
        return ErrorResult(
            count=self.count + other.count,
            by_operation={
                n: self.by_operation.get(n, 0) + other.by_operation.get(n, 0) for n in names
            },
            sample=self.sample,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "count": self.count,
            "by_operation": dict(self.by_operation),
            "sample": self.sample,
        }


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
    """

    cpu_seconds: float
    peak_memory_bytes: int
    loop_busy: float
    loop_lag: Histogram
    processes: int = 1

    def merged(self, other: ProcessResult) -> ProcessResult:
        """Return the two together: sums, but for the busiest loop."""
        return ProcessResult(
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            peak_memory_bytes=self.peak_memory_bytes + other.peak_memory_bytes,
            loop_busy=max(self.loop_busy, other.loop_busy),
            loop_lag=_sum_of(self.loop_lag, other.loop_lag),
            processes=self.processes + other.processes,
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
        )


@dataclass(frozen=True, slots=True)
class RunResult:
    """
    Everything a run found.

    `planned` is None for a run by duration. `settings` and `environment` are for the
    reader: what was asked for and on what it ran, without passwords.
    """

    outcome: Outcome
    mode: str
    workload: str
    seconds: float
    planned: int | None
    by_operation: Mapping[str, OperationResult]
    errors: Mapping[str, ErrorResult]
    pool: PoolResult | None
    series: Series
    process: ProcessResult
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def completed(self) -> int:
        """Operations that ended well."""
        return sum(operation.count for operation in self.by_operation.values())

    @property
    def failed(self) -> int:
        """Operations that ended with an error."""
        return sum(operation.failed for operation in self.by_operation.values())

    @property
    def indeterminate(self) -> int:
        """Operations of which nobody knows whether the database did them."""
        return sum(operation.indeterminate for operation in self.by_operation.values())

    @property
    def throughput(self) -> float:
        """Operations per second that ended well."""
        return self.completed / self.seconds if self.seconds else 0.0

    @property
    def error_rate(self) -> float:
        """The share (0 to 1) of the started operations that did not end well."""
        bad = self.failed + self.indeterminate
        return bad / (bad + self.completed) if bad else 0.0

    def count_of(self, kind: str) -> int:
        """Return how many operations of one kind ended well."""
        return sum(o.count for o in self.by_operation.values() if o.kind == kind)

    def latency(self) -> Histogram:
        """Return the latencies of all operations together."""
        return _sum_of(*(operation.histogram for operation in self.by_operation.values()))

    def merged(self, other: RunResult) -> RunResult:
        """
        Return this run and another shard of the same run as one.

        Counts, histograms and series add up exactly; the time is the longer one.
        """
        return replace(
            self,
            outcome=max(self.outcome, other.outcome, key=_OUTCOMES.index),
            seconds=max(self.seconds, other.seconds),
            planned=_optional(lambda a, b: a + b, self.planned, other.planned),
            by_operation=_merged(self.by_operation, other.by_operation),
            errors=_merged(self.errors, other.errors),
            pool=_optional(PoolResult.merged, self.pool, other.pool),
            series=self.series.merged(other.series),
            process=self.process.merged(other.process),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which the README documents."""
        return {
            "schema": RESULT_SCHEMA,
            "outcome": self.outcome,
            "mode": self.mode,
            "workload": self.workload,
            "seconds": round(self.seconds, 6),
            "throughput": round(self.throughput, 3),
            "operations": {
                "planned": self.planned,
                "completed": self.completed,
                "failed": self.failed,
                "indeterminate": self.indeterminate,
            },
            "by_operation": {name: o.to_dict() for name, o in self.by_operation.items()},
            "pool": self.pool.to_dict() if self.pool else None,
            "series": self.series.to_dict(),
            "errors": {name: error.to_dict() for name, error in self.errors.items()},
            "process": self.process.to_dict(),
            "settings": dict(self.settings),
            "environment": dict(self.environment),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """
        Return what `to_dict` wrote.

        Raises `ValueError` for another schema or a damaged document.
        """
        if data.get("schema") != RESULT_SCHEMA:
            raise ValueError(
                f"this is not a result of schema {RESULT_SCHEMA}: schema is {data.get('schema')!r}"
            )
        try:
            return cls(
                outcome=data["outcome"],
                mode=data["mode"],
                workload=data["workload"],
                seconds=data["seconds"],
                planned=data["operations"]["planned"],
                by_operation={
                    name: OperationResult.from_dict(o) for name, o in data["by_operation"].items()
                },
                errors={name: ErrorResult(**error) for name, error in data["errors"].items()},
                pool=PoolResult(**data["pool"]) if data["pool"] else None,
                series=Series.from_dict(data["series"]),
                process=ProcessResult.from_dict(data["process"]),
                settings=data["settings"],
                environment=data["environment"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a damaged result: {error}") from error


def merge(results: Iterable[RunResult]) -> RunResult:
    """Return the shards of one run as one result; raises `ValueError` for none."""
    shards = iter(results)
    try:
        total = next(shards)
    except StopIteration:
        raise ValueError("no result to merge") from None
    for shard in shards:
        total = total.merged(shard)
    return total


def _sum_of(*histograms: Histogram) -> Histogram:
    total = Histogram()
    for histogram in histograms:
        total.add(histogram)
    return total


def _merged(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    names = [*mine, *(name for name in theirs if name not in mine)]
    return {name: _optional(_merge_two, mine.get(name), theirs.get(name)) for name in names}


def _merge_two(mine: Any, theirs: Any) -> Any:
    return mine.merged(theirs)


def _optional(merge_two: Any, mine: Any, theirs: Any) -> Any:
    """Merge two values of which either may be missing."""
    if mine is None or theirs is None:
        return theirs if mine is None else mine
    return merge_two(mine, theirs)
