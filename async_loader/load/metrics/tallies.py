"""The running counts of one operation, and what they are counted from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ...results.histogram import Histogram
from ...results.parts import OperationResult
from ...results.time_split import PARTS, TimeSplit
from ..workload import Kind
from .repeats import Statements


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


def pool_in_sight(gauge: PoolGauge | None) -> PoolGauge | None:
    """Return the gauge where there is a pool: a workload need not have a database."""
    if gauge is None or not (gauge.size or gauge.peak_in_use or gauge.peak_waiting):
        return None
    return gauge


class Times(Statements, Protocol):
    """What was timed within one operation."""

    pool_ns: int
    connect_ns: int
    ping_ns: int
    database_ns: int
    queue_ns: int
    application_ns: int
    orm_ns: int
    statements: int

    @property
    def stepped(self) -> bool:
        """Whether it is known when the operation ran."""
        ...


# How to look at a histogram: it, or from another thread than the one that counts, a copy of it.
Look = Callable[[Histogram], Histogram]


def as_it_is(histogram: Histogram) -> Histogram:
    """Return it, for who counts into it."""
    return histogram


class SplitTally:
    """The running split of one operation's latencies."""

    def __init__(self) -> None:
        self.count = 0
        self.statements = 0
        self.most_statements = 0
        self.totals_ns = dict.fromkeys(PARTS, 0)
        # Most operations spend nothing on most parts: only what is not 0 is recorded.
        self._histograms: dict[str, Histogram] = {}

    def record(self, latency_ns: int, times: Times) -> None:
        """Count one operation; what it spent on nothing that is known is its last part."""
        known_ns = 0
        for name, ns in (
            ("pool_wait", times.pool_ns),
            ("connect", times.connect_ns),
            ("ping", times.ping_ns),
            ("database", times.database_ns),
            ("application", times.application_ns),
            ("loop_queue", times.queue_ns),
            ("orm", times.orm_ns),
        ):
            if ns > 0:
                known_ns += ns
                self._count(name, ns)
        if latency_ns > known_ns:
            # Where nobody saw when it ran (the sync modes), it is not known to have waited.
            self._count("elsewhere" if times.stepped else "orm", latency_ns - known_ns)
        self.count += 1
        self.statements += times.statements
        self.most_statements = max(self.most_statements, times.statements)

    def _count(self, name: str, ns: int) -> None:
        self.totals_ns[name] += ns
        histogram = self._histograms.get(name)
        if histogram is None:
            histogram = self._histograms[name] = Histogram()
        histogram.record(ns)

    def result(self, *, look: Look = as_it_is) -> TimeSplit:
        """Return the split so far; `look` is how to look at a histogram that is counted into."""
        parts = {}
        for name in PARTS:
            parts[name] = Histogram()
            recorded = self._histograms.get(name)
            if recorded is not None:
                parts[name].add(look(recorded))
            parts[name].record_many(0, self.count - parts[name].count)
        return TimeSplit(**parts, statements=self.statements, most_statements=self.most_statements)


@dataclass(slots=True)
class OperationTally:
    """The running counts of one operation."""

    kind: Kind | None
    histogram: Histogram = field(default_factory=lambda: Histogram(followed=True))
    failed: int = 0
    indeterminate: int = 0
    dropped: int = 0
    late: int = 0
    retries: int = 0
    retried: int = 0
    after_commit: int = 0
    undone: int = 0
    split: SplitTally | None = None
    share: float | None = None
    tags: Mapping[str, str] | None = None

    def result(self, *, look: Look = as_it_is) -> OperationResult:
        """Return the counts so far; `look` as for a split's."""
        histogram = look(self.histogram)
        return OperationResult(
            kind=self.kind or "read",
            count=histogram.count - self.undone,
            failed=self.failed,
            indeterminate=self.indeterminate,
            histogram=histogram,
            split=self.split.result(look=look) if self.split else None,
            dropped=self.dropped,
            late=self.late,
            retries=self.retries,
            retried=self.retried,
            after_commit=self.after_commit,
            share=self.share,
            tags=self.tags,
        )
