"""The running counts of one operation, and what they are counted from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ..histogram import Histogram
from ..results.parts import OperationResult, TimeSplit
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
    pool_ns: int = 0
    database_ns: int = 0
    orm_ns: int = 0
    statements: int = 0
    most_statements: int = 0

    def record(self, latency_ns: int, times: Times) -> None:
        """Count one operation; what was in neither the pool nor the database is the ORM's."""
        orm_ns = max(latency_ns - times.pool_ns - times.database_ns, 0)
        self.pool_wait.record(times.pool_ns)
        self.database.record(times.database_ns)
        self.orm.record(orm_ns)
        self.pool_ns += times.pool_ns
        self.database_ns += times.database_ns
        self.orm_ns += orm_ns
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
    dropped: int = 0
    late: int = 0
    retries: int = 0
    retried: int = 0
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
            dropped=self.dropped,
            late=self.late,
            retries=self.retries,
            retried=self.retried,
        )
