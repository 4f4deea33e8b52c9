"""The parts of a `RunResult`: each frozen and mergeable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Annotated, Any

from msgspec import Meta

from .annotations import Count, EncodedHistogram, NotNegative, PerSecond, Share, Summary
from .histogram import sum_of
from .machine import MachineResult
from .notes import LATER, OMITTED, After, Key, Rebuilt, Rounded, shown
from .part import Part
from .time_split import SplitHistograms, SplitSummaries, Statements, TimeSplit


@dataclass(frozen=True, slots=True)
class OperationResult(Part):
    """
    One operation's counts and latencies.

    The percentiles are there to be read, the histogram counts: it also has the latencies of those
    that ended well and whose background tasks did not.
    """

    kind: str
    count: Annotated[Count, Meta(description="ended well, and are in the histogram")]
    failed: Annotated[Count, Meta(description="ended with an error")]
    indeterminate: Annotated[
        Count, Meta(description="nobody knows whether they were done: a commit without a reply")
    ]
    histogram: EncodedHistogram
    split: Annotated[
        TimeSplit | None,
        Rebuilt(("time_split_histograms", "statements"), TimeSplit.of),
    ] = None
    dropped: Annotated[Count, Meta(description="were due and could not start")] = 0
    late: Annotated[Count, Meta(description="of count, over the latency limit")] = 0
    retries: Annotated[Count, Meta(description="tries after an operation's first")] = 0
    retried: Annotated[Count, Meta(description="operations that took more than one")] = 0
    after_commit: Annotated[
        Count,
        Meta(description="did not end well, not tried again: had committed something before"),
    ] = 0
    share: Annotated[
        Share | None, Meta(description="of the mix, by its weight; null: not known"), LATER
    ] = None
    tags: Annotated[
        Mapping[str, str] | None,
        Meta(description="what the workload says of it, which thresholds can be about"),
        LATER,
        OMITTED,
    ] = None

    @property
    @shown
    def latency_ms(self) -> Annotated[Summary, After("share")]:
        """The histogram's percentiles."""
        return self.histogram.summary_ms()

    @property
    @shown
    def time_split_ms(self) -> Annotated[SplitSummaries | None, OMITTED]:
        """Where the time went; the means add up to the latency's. Missing where nobody looked."""
        if self.split is None:
            return None
        return {name: part.summary_ms() for name, part in self.split.parts()}

    @property
    @shown
    def time_split_histograms(self) -> Annotated[SplitHistograms | None, OMITTED]:
        """What `time_split_ms` sums up."""
        return None if self.split is None else dict(self.split.parts())

    @property
    @shown
    def statements(self) -> Annotated[Statements | None, OMITTED]:
        """How often the database was asked, BEGIN, COMMIT and ROLLBACK apart."""
        return None if self.split is None else self.split.asked()

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
            tags=self.tags or other.tags,
        )


@dataclass(frozen=True, slots=True)
class CheckResult(Part):
    """How often a check of the workload's own held."""

    passed: Count
    failed: Count

    def merged(self, other: CheckResult) -> CheckResult:
        """Return the two together."""
        return CheckResult(self.passed + other.passed, self.failed + other.failed)


@dataclass(frozen=True, slots=True)
class PoolResult(Part):
    """
    The connection pool; null where no database was used.

    Merged peaks are sums, an upper bound: shards need not peak together.
    """

    size: Annotated[Count, Meta(description="0: without a limit")]
    peak_in_use: Annotated[Count, Meta(description="the most connections in use")]
    peak_waiting: Annotated[Count, Meta(description="the most tasks waiting for one")]

    def merged(self, other: PoolResult) -> PoolResult:
        """Return the two together."""
        return PoolResult(
            size=self.size + other.size,
            peak_in_use=self.peak_in_use + other.peak_in_use,
            peak_waiting=self.peak_waiting + other.peak_waiting,
        )


@dataclass(frozen=True, slots=True)
class Series(Part):
    """
    What happened in each second of the run, in lists of equal length.

    Operations that ended well in it, and those that did not; the most connections in use, and
    tasks waiting for one.
    """

    throughput: PerSecond = ()
    failed: PerSecond = ()
    in_use: PerSecond = ()
    waiting: PerSecond = ()

    @property
    @shown
    def seconds(self) -> Annotated[PerSecond, After("")]:
        """Counted from the start of the run."""
        return tuple(range(len(self.throughput)))

    def damage(self) -> str | None:
        """Return whether the lists differ in length; one that is empty is an older version's."""
        lists = (self.throughput, self.failed, self.in_use, self.waiting)
        return "lists of different length" if len({len(x) for x in lists if x}) > 1 else None

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


@dataclass(frozen=True, slots=True)
class ProcessResult(Part):
    """The loader's own process, which must not be what was measured."""

    cpu_seconds: Annotated[NotNegative, Rounded(3)]
    peak_memory_bytes: Count
    loop_busy: Annotated[
        Share,
        Rounded(4),
        Meta(description="of the time the loop's thread ran or was ready to; 1: the bottleneck"),
    ]
    loop_lag: Annotated[EncodedHistogram, Key("loop_lag_histogram")]
    processes: Annotated[int, Meta(ge=1, description="how many were merged")] = 1
    machine: Annotated[MachineResult | None, Meta(description="null: nobody looked"), LATER] = None

    @property
    @shown
    def loop_lag_ms(self) -> Summary:
        """How late a timer of the event loop fired."""
        return self.loop_lag.summary_ms()

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


def optional(merge_two: Any, mine: Any, theirs: Any) -> Any:
    """Merge two values of which either may be missing."""
    if mine is None or theirs is None:
        return theirs if mine is None else mine
    return merge_two(mine, theirs)
