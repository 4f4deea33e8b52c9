"""
What a run found: frozen, versioned, serialisable, mergeable.

Reports and comparisons read a `RunResult` and nothing else. `RESULT_SCHEMA` is the number in
the JSON's `schema`; it grows when a reader of the older form would misread the newer one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from .changes import Comparison
from .errors import ErrorResult, merged_errors
from .findings import RepeatedStatement, ServerSide, merged_repeats
from .histogram import Histogram, sum_of
from .loop_profile import Leak, LoopProfile
from .parts import CheckResult, OperationResult, PoolResult, ProcessResult, Series, optional
from .schedule import ScheduleResult
from .shards import ShardResult
from .slices import Slices
from .warm_up import WarmUpResult

RESULT_SCHEMA = 1

# interrupted: somebody asked for the end; failed: a threshold broke, and that was to end it;
# aborted: nothing succeeded any more; lost: a worker died, and that was to end it; hung: it did
# not end by itself, and had to be ended from outside.
Outcome = Literal["done", "interrupted", "failed", "aborted", "lost", "hung"]
# The worse outcome of two shards is the outcome of the run.
_OUTCOMES: tuple[Outcome, ...] = ("done", "interrupted", "failed", "aborted", "lost", "hung")


@dataclass(frozen=True, slots=True)
class RunResult:
    """
    Everything a run found.

    `planned` is None for a run by duration. `settings` and `environment` are for the
    reader: what was asked for and on what it ran, without passwords. `repeated_statements`:
    the N+1 of its operations, most executions first. `server_side` is None where no server
    was asked, `slices` in a result of an older version, `schedule` in a closed model,
    `baseline` where the run was held against none, `loop_profile` where
    no event loop was sampled. `unseen`: sentences on what could not be measured. `shards` is
    empty for one process. `stalls`: the seconds of each half second and more in which operations
    were under way and none ended, the longest 1,000 of them. `warm_up`: what ran before, and is in
    no other figure. `stopped_by`: of one that was interrupted, by what, where that is known: a
    signal's name.
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
    checks: Mapping[str, CheckResult] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    repeated_statements: tuple[RepeatedStatement, ...] = ()
    server_side: ServerSide | None = None
    slices: Slices | None = None
    schedule: ScheduleResult | None = None
    baseline: Comparison | None = None
    shards: tuple[ShardResult, ...] = ()
    loop_profile: LoopProfile | None = None
    leaks: tuple[Leak, ...] = ()
    unseen: tuple[str, ...] = ()
    stalls: tuple[float, ...] = ()
    warm_up: WarmUpResult | None = None
    stopped_by: str | None = None

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
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which the README documents."""
        return {
            "schema": RESULT_SCHEMA,
            "outcome": self.outcome,
            "stopped_by": self.stopped_by,
            "mode": self.mode,
            "workload": self.workload,
            "seconds": self.seconds,
            "throughput": round(self.throughput, 3),
            "operations": {
                "planned": self.planned,
                "completed": self.completed,
                "failed": self.failed,
                "indeterminate": self.indeterminate,
                "dropped": self.dropped,
                "not_started": self.not_started,
                "after_commit": self.after_commit,
            },
            "by_operation": {name: o.to_dict() for name, o in self.by_operation.items()},
            "pool": self.pool.to_dict() if self.pool else None,
            "series": self.series.to_dict(),
            "slices": self.slices.to_dict() if self.slices else None,
            "baseline": self.baseline.to_dict() if self.baseline else None,
            "errors": {name: error.to_dict() for name, error in self.errors.items()},
            "checks": {name: check.to_dict() for name, check in self.checks.items()},
            "process": self.process.to_dict(),
            "repeated_statements": [repeat.to_dict() for repeat in self.repeated_statements],
            "server_side": self.server_side.to_dict() if self.server_side else None,
            "schedule": self.schedule.to_dict() if self.schedule else None,
            "shards": [shard.to_dict() for shard in self.shards],
            "loop_profile": self.loop_profile.to_dict() if self.loop_profile else None,
            "leaks": [leak.to_dict() for leak in self.leaks],
            "unseen": list(self.unseen),
            "stalls": list(self.stalls),
            "warm_up": self.warm_up.to_dict() if self.warm_up else None,
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
                errors={n: ErrorResult.from_dict(n, error) for n, error in data["errors"].items()},
                checks={n: CheckResult(**check) for n, check in data.get("checks", {}).items()},
                pool=PoolResult(**data["pool"]) if data["pool"] else None,
                series=Series.from_dict(data["series"]),
                slices=Slices.from_dict(data.get("slices")),
                baseline=Comparison.from_dict(data.get("baseline")),
                process=ProcessResult.from_dict(data["process"]),
                settings=data["settings"],
                environment=data["environment"],
                repeated_statements=tuple(
                    map(RepeatedStatement.from_dict, data.get("repeated_statements", ()))
                ),
                server_side=_optional_part(ServerSide, data.get("server_side")),
                schedule=_optional_part(ScheduleResult, data.get("schedule")),
                shards=tuple(map(ShardResult.from_dict, data.get("shards", ()))),
                loop_profile=_optional_part(LoopProfile, data.get("loop_profile")),
                leaks=tuple(Leak(**leak) for leak in data.get("leaks", ())),
                unseen=tuple(data.get("unseen", ())),
                stalls=tuple(data.get("stalls", ())),
                warm_up=_optional_part(WarmUpResult, data.get("warm_up")),
                stopped_by=data.get("stopped_by"),
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


def _merged(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    names = [*mine, *(name for name in theirs if name not in mine)]
    return {name: optional(_merge_two, mine.get(name), theirs.get(name)) for name in names}


def _optional_part(kind: Any, data: Mapping[str, Any] | None) -> Any:
    """Return a part that older files do not have, and that a run may lack."""
    return None if data is None else kind.from_dict(data)


def _merge_two(mine: Any, theirs: Any) -> Any:
    return mine.merged(theirs)
