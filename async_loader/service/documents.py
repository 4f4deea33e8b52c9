"""What requests and answers look like: the models behind the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from ..load.specs.load_test import Mode
from ..settings.serve import NAME
from .answers import Answer
from .history import ACTIVE, State
from .live import Live

Name = Annotated[str, Field(pattern=f"^{NAME}$", max_length=64)]
# The most that both databases can number.
MOST_ID = 2**63 - 1
# Where the OpenAPI document has what is no model here: the parts of a result.
SCHEMAS = "#/components/schemas/"


class Document(BaseModel):
    """What all answers have in common."""

    model_config = ConfigDict(extra="forbid")


class Overrides(Document):
    """What a request may change of a scenario, within the server's bounds; omitted: as it is."""

    ops: Annotated[int | None, Field(ge=1, description="operations instead of a duration")] = None
    duration: Annotated[float | None, Field(gt=0, description="seconds instead of operations")] = (
        None
    )
    concurrency: Annotated[int | None, Field(ge=1)] = None
    rate: Annotated[float | None, Field(gt=0, description="arrivals a second: open model")] = None
    mode: Mode | None = None
    write_ratio: Annotated[float | None, Field(ge=0, le=1)] = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None

    def values(self) -> dict[str, Any]:
        """Return what was given, as the settings take it."""
        given = self.model_dump(exclude_none=True)
        if (rate := given.get("rate")) is not None:
            given["rate"] = f"{rate:.6f}".rstrip("0").rstrip(".") + "/s"
        return given


class RunRequest(Document):
    """Which scenario, on which target."""

    scenario: Name
    target: Name
    overrides: Overrides = Overrides()


class Bounds(Document):
    """What overrides may ask for at most; rate in arrivals a second, duration in seconds."""

    ops: int
    duration: float
    concurrency: int
    rate: float


class ScenarioDocument(Document):
    """
    A scenario; `problem` says why it cannot be run, or not by itself (`can_run` tells which).

    `every` in seconds; `last_at` and `next_at` are of its schedule.
    """

    name: str
    problem: str | None
    can_run: bool
    every: float | None
    last_at: datetime | None
    next_at: datetime | None
    on_target: str | None
    settings: dict[str, Any]


class Scenarios(Document):
    """All scenarios, and the bounds of what may be overridden."""

    scenarios: list[ScenarioDocument]
    bounds: Bounds


class TargetDocument(Document):
    """
    A target; `place` names the host or the file, `run` the run that is on it.

    `up`: whether it answered when it was looked at last, null where it was not; `problem` is
    why it did not.
    """

    name: str
    place: str
    run: int | None
    up: bool | None
    problem: str | None


class Targets(Document):
    """All targets."""

    targets: list[TargetDocument]


class Percentiles(Document):
    """Latencies in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


class SnapshotDocument(BaseModel):
    """
    The state of a run at an instant.

    `seconds` since its start, `planned` operations or `duration` seconds in all, `completed`
    and `bad` so far, `rate` of the last second, percentiles (ms) over the run so far and, in
    `recent`, over the last 5 s (null where nothing ended well in them); `in_use` connections
    and those who are `waiting` for one. `time_split` is the seconds that all operations so far
    spent on each part of their latencies (`pool_wait`, `database`, `orm` and so on): the difference
    of two snapshots is what went on between them. `errors` are the most frequent ones, by name.
    """

    seconds: float
    planned: int | None
    duration: float | None
    completed: int
    bad: int
    rate: float
    p95_ms: float
    in_use: int | None
    dropped: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    waiting: int | None = None
    time_split: dict[str, float] | None = None
    errors: dict[str, int] = {}
    recent: Percentiles | None = None


class Figures(BaseModel):
    """What a list shows of a result. Latencies in milliseconds, throughput in operations/s."""

    model_config = ConfigDict(extra="allow")

    outcome: str
    workload: str
    load: str
    seconds: float
    completed: int
    failed: int
    indeterminate: int
    dropped: int
    throughput: float
    error_rate: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    measurement: Literal["good", "not good"] | None = None
    doubts: list[str] = Field([], description="what speaks against the measurement, passed or not")


class RunSummary(Document):
    """
    A run in a list.

    `state`: `running` and `stopping` go on; `passed`, `not measured`, `failed` and `stopped`
    are the verdict on a run with a result; `error` could not be run, `interrupted` lost the
    service.
    """

    id: int
    state: State
    scenario: str
    target: str
    started_by: str
    scheduled: bool
    started_at: datetime
    ended_at: datetime | None
    reasons: list[str]
    figures: Figures | None

    @classmethod
    def values_of(cls, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields for a row of the history."""
        return {
            "id": row["id"],
            "state": row["state"],
            "scenario": row["scenario"],
            "target": row["target"],
            "started_by": row["started_by"],
            "scheduled": bool(row["scheduled"]),
            "started_at": moment(row["started_at"]),
            "ended_at": moment(row["ended_at"]),
            "reasons": row["reasons"],
            "figures": row["figures"],
        }

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return the document for a row of the history."""
        return cls(**cls.values_of(row))


class RunDocument(RunSummary):
    """A run in full; `phase` and `snapshot` are the latest that it told, of a live one too."""

    phase: str | None
    snapshot: SnapshotDocument | None
    overrides: dict[str, Any]
    settings: dict[str, Any]
    has_result: bool

    @classmethod
    def of_run(cls, row: Mapping[str, Any], live: Live | None) -> RunDocument:
        """Return the document for a row, with what a live run has told since."""
        told = (live.snapshot if live else None) or row["snapshot"]
        return cls(
            **cls.values_of(row),
            phase=live.phase if live else row["phase"],
            snapshot=None if told is None else SnapshotDocument(**told),
            overrides=row["overrides"],
            settings=row["settings"],
            has_result=row["figures"] is not None,
        )


class RunList(Document):
    """A page of runs, the latest first; `next` is the `before` of the page behind it."""

    runs: list[RunSummary]
    next: int | None


class ComparisonDocument(Document):
    """
    Runs side by side.

    `charts` is what the reports' own charts draw; `changes` (of two runs: the second held
    against the first) has each figure's change with its 95 % interval, its `answer` and what
    it is called (`figure`). `answer` is the one of all figures, `worse` as soon as one of them
    is, and `cannot tell` where one is not known; `within` is what they may differ by to be the
    same (0.1: 10 %). Both are null where there are not two runs.
    """

    runs: list[RunSummary]
    answer: Answer | None
    within: float | None
    charts: dict[str, Any]
    changes: Annotated[
        list[dict[str, Any]],
        Field(json_schema_extra={"items": {"$ref": f"{SCHEMAS}AnsweredChange"}}),
    ]
    differences: list[str]


class AuditEntry(Document):
    """Who did what, when."""

    id: int
    at: datetime
    who: str
    action: str
    run: int | None
    detail: str


class Audit(Document):
    """A page of the audit, the latest first."""

    entries: list[AuditEntry]
    next: int | None


class JobDocument(Document):
    """A run of a batch job, as `job status` has it. `can_resume`: the server knows its code."""

    run: int
    job: str
    arguments: dict[str, str]
    state: str
    message: str | None
    total: int | None
    rows_read: int
    rows_written: int
    rows_skipped: int
    rows_prepared: int
    retried: int
    chunks: int
    partitions: int
    partitions_done: int
    busy_seconds: float
    tasks: int
    throttled_seconds: float
    throttled_why: str | None
    done_already: bool
    started_at: datetime | None
    ended_at: datetime | None
    rate: float | None
    eta_seconds: float | None
    can_resume: bool


class Jobs(Document):
    """The runs of all jobs on a target, the latest first."""

    jobs: list[JobDocument]


class Session(Document):
    """Who is asking; `needs_token`: whether anybody without one is refused."""

    who: str | None
    needs_token: bool


class Login(Document):
    """A token, in exchange for a cookie."""

    token: Annotated[str, Field(min_length=1, max_length=256)]


class Health(Document):
    """`ok`; `notes` are what is the matter all the same."""

    status: str
    notes: list[str] | None = None


def moment(seconds: float | None) -> datetime | None:
    """Return a time in UTC for seconds since 1970."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def is_active(row: Mapping[str, Any]) -> bool:
    """Return whether a run goes on."""
    return row["state"] in ACTIVE
