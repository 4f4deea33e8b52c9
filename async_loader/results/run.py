"""
What a run found: frozen, versioned, serialisable, mergeable.

Reports and comparisons read a `RunResult` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, Self

from msgspec import Meta

from .annotations import Count, NotNegative, PerSecondRate
from .changes import Comparison
from .errors import ErrorResult, merged_errors
from .findings import RepeatedStatement, ServerSide, merged_repeats
from .histogram import Histogram, sum_of
from .loop_profile import Leak, LoopProfile
from .notes import LATER, OMITTED, After, Rebuilt, Stored, shown
from .part import Part
from .parts import CheckResult, OperationResult, PoolResult, ProcessResult, Series, optional
from .plans import StatementPlan, merged_plans
from .schedule import ScheduleResult
from .shards import ShardResult
from .slices import Slices
from .surroundings import Environment, Settings
from .versions import RESULT_SCHEMA, newest
from .warm_up import WarmUpResult

# interrupted: somebody asked for the end; failed: a threshold broke, and that was to end it;
# aborted: nothing succeeded any more; lost: a worker died, and that was to end it; hung: it did
# not end by itself, and had to be ended from outside.
Outcome = Literal["done", "interrupted", "failed", "aborted", "lost", "hung"]
# The worse outcome of two shards is the outcome of the run.
_OUTCOMES: tuple[Outcome, ...] = ("done", "interrupted", "failed", "aborted", "lost", "hung")


@dataclass(frozen=True, slots=True)
class Operations(Part):
    """
    All operations together.

    Completed, failed, indeterminate, dropped and not started are all that were planned.
    """

    planned: Annotated[Count | None, Meta(description="null for a run by duration")]
    completed: Annotated[Count, Meta(description="ended well")] = 0
    failed: Annotated[Count, Meta(description="ended with an error")] = 0
    indeterminate: Annotated[
        Count, Meta(description="nobody knows whether the database did them")
    ] = 0
    dropped: Annotated[Count, Meta(description="were due and could not start")] = 0
    not_started: Annotated[Count, Meta(description="never due or begun; 0 by duration")] = 0
    after_commit: Annotated[
        Count, Meta(description="did not end well, and had committed something by then")
    ] = 0


@dataclass(frozen=True, slots=True)
class RunResult(Part):
    """Everything a run found."""

    outcome: Outcome
    mode: str
    workload: str
    seconds: NotNegative
    planned: Annotated[int | None, Rebuilt(("operations",), lambda operations: operations.planned)]
    by_operation: Mapping[str, OperationResult]
    errors: Mapping[str, ErrorResult]
    pool: PoolResult | None
    series: Series
    process: ProcessResult
    checks: Mapping[str, CheckResult] = field(default_factory=dict)
    settings: Annotated[
        Mapping[str, Any], Stored(Settings, dict), Meta(description="what was asked for")
    ] = field(default_factory=dict)
    environment: Annotated[
        Mapping[str, Any],
        Stored(Environment, dict),
        Meta(description="on what it ran, without passwords"),
    ] = field(default_factory=dict)
    repeated_statements: Annotated[
        tuple[RepeatedStatement, ...],
        Meta(description="the N+1 of its operations, most executions first"),
    ] = ()
    server_side: ServerSide | None = None
    slices: Annotated[Slices | None, Meta(description="null in an older version's result")] = None
    schedule: ScheduleResult | None = None
    baseline: Annotated[Comparison | None, Meta(description="null: held against none")] = None
    shards: Annotated[tuple[ShardResult, ...], Meta(description="empty for one process")] = ()
    loop_profile: Annotated[LoopProfile | None, LATER] = None
    leaks: Annotated[tuple[Leak, ...], LATER] = ()
    unseen: Annotated[
        tuple[str, ...], Meta(description="sentences on what could not be measured"), LATER
    ] = ()
    stalls: Annotated[
        tuple[float, ...],
        Meta(description="seconds in which operations were under way and none ended: the longest"),
        LATER,
    ] = ()
    warm_up: Annotated[WarmUpResult | None, LATER] = None
    stopped_by: Annotated[
        str | None, Meta(description="by what it was interrupted: a signal's name"), LATER
    ] = None
    plans: Annotated[
        tuple[StatementPlan, ...] | None,
        Meta(description="of its slowest statements, where they were asked for"),
        LATER,
        OMITTED,
    ] = None
    stages: Annotated[
        tuple[NotNegative, ...] | None,
        Meta(description="the seconds of each stage of the load"),
        LATER,
        OMITTED,
    ] = None
    ended_by: Annotated[
        str | None,
        Meta(description="what had no more work before the limit: a feed that is exhausted"),
        LATER,
        OMITTED,
    ] = None

    @property
    @shown
    def schema(self) -> Annotated[Literal[1], After("")]:
        """The form of this document: see `versions`."""
        return RESULT_SCHEMA

    @property
    @shown
    def operations(self) -> Annotated[Operations, After("seconds")]:
        """All operations together."""
        names = [one.name for one in fields(Operations)]
        return Operations(**{name: getattr(self, name) for name in names})

    @property
    def title(self) -> str:
        """What the run is called: its label, where it was given one, and its workload."""
        label = self.settings.get("label")
        return f"{label}: {self.workload}" if label else self.workload

    @property
    def completed(self) -> int:
        """Operations that ended well."""
        return sum(operation.count for operation in self.by_operation.values())

    @property
    def started(self) -> int:
        """Operations that began, however they ended."""
        return sum(operation.started for operation in self.by_operation.values())

    @property
    def failed(self) -> int:
        """Operations that ended with an error."""
        return sum(operation.failed for operation in self.by_operation.values())

    @property
    def indeterminate(self) -> int:
        """Operations of which nobody knows whether the database did them."""
        return sum(operation.indeterminate for operation in self.by_operation.values())

    @property
    def dropped(self) -> int:
        """Operations that were due and could not start."""
        return sum(operation.dropped for operation in self.by_operation.values())

    @property
    def not_started(self) -> int:
        """Operations that were asked for and never due or begun; 0 in a run by duration."""
        accounted = self.completed + self.failed + self.indeterminate + self.dropped
        return max((self.planned or 0) - accounted, 0)

    @property
    def after_commit(self) -> int:
        """Operations that did not end well, and had committed something by then."""
        return sum(operation.after_commit for operation in self.by_operation.values())

    @property
    def late(self) -> int:
        """Operations that ended well, over the latency limit."""
        return sum(operation.late for operation in self.by_operation.values())

    @property
    def retries(self) -> int:
        """Tries after an operation's first."""
        return sum(operation.retries for operation in self.by_operation.values())

    @property
    @shown
    def throughput(self) -> Annotated[PerSecondRate, After("seconds")]:
        """Operations per second that ended well."""
        return self.completed / self.seconds if self.seconds else 0.0

    @property
    def error_rate(self) -> float:
        """The share (0 to 1) of the started operations that did not end well."""
        bad = self.failed + self.indeterminate
        return bad / (bad + self.completed) if bad else 0.0

    def ended_early(self, by: str) -> RunResult:
        """Return it as that of a run which was over before its limit, as it should be."""
        planned = None if self.planned is None else self.planned - self.not_started
        return replace(self, planned=planned, ended_by=by)

    def count_of(self, kind: str) -> int:
        """Return how many operations of one kind ended well."""
        return sum(o.count for o in self.by_operation.values() if o.kind == kind)

    def latency(self) -> Histogram:
        """Return the latencies of all operations together."""
        return sum_of(*(operation.histogram for operation in self.by_operation.values()))

    def merged(self, other: RunResult) -> RunResult:
        """
        Return this run and another shard of the same run as one.

        Counts, histograms and series add up exactly; the time is the longer one.
        """
        return replace(
            self,
            outcome=max(self.outcome, other.outcome, key=_OUTCOMES.index),
            seconds=max(self.seconds, other.seconds),
            planned=optional(lambda a, b: a + b, self.planned, other.planned),
            by_operation=_merged(self.by_operation, other.by_operation),
            errors=merged_errors(self.errors, other.errors),
            checks=_merged(self.checks, other.checks),
            pool=optional(PoolResult.merged, self.pool, other.pool),
            series=self.series.merged(other.series),
            baseline=None,  # what was told of a shard tells nothing of the whole
            # Slices of a part of the shards would pass for the whole run's.
            slices=self.slices.merged(other.slices) if self.slices and other.slices else None,
            process=self.process.merged(other.process),
            repeated_statements=merged_repeats(self.repeated_statements, other.repeated_statements),
            server_side=optional(ServerSide.merged, self.server_side, other.server_side),
            schedule=optional(ScheduleResult.merged, self.schedule, other.schedule),
            shards=(*self.shards, *other.shards),
            loop_profile=optional(LoopProfile.merged, self.loop_profile, other.loop_profile),
            leaks=(*self.leaks, *other.leaks),
            unseen=(*self.unseen, *other.unseen),
            stalls=(*self.stalls, *other.stalls),
            warm_up=optional(WarmUpResult.merged, self.warm_up, other.warm_up),
            stopped_by=self.stopped_by or other.stopped_by,
            ended_by=self.ended_by or other.ended_by,
            stages=self.stages or other.stages,
            plans=optional(merged_plans, self.plans, other.plans),
        )

    @classmethod
    def from_dict(cls, document: Any) -> Self:
        """
        Return what `to_dict` wrote, this version's or an earlier one's.

        Raises `ValueError`, which says where, for another schema or a damaged document.
        """
        document = newest(document)
        found = super(RunResult, cls).from_dict(document)
        # msgspec keeps of these what their types name; there is more in them.
        kept = {name: document[name] for name in ("settings", "environment") if name in document}
        return replace(found, **kept)


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


def _merged(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    names = [*mine, *(name for name in theirs if name not in mine)]
    return {name: optional(_merge_two, mine.get(name), theirs.get(name)) for name in names}


def _merge_two(mine: Any, theirs: Any) -> Any:
    return mine.merged(theirs)
