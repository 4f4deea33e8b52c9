"""The options of a load and of its verdict."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from ..concurrency.rates import parse_rate
from ..load.metrics.repeats import LEAST
from ..load.pacing.limits import MOST_OPS, Limit
from ..load.pacing.schedules import Arrivals, Profile, Stage
from ..load.pacing.throttles import check_stages
from ..load.specs.load_test import LoadModel, Loop, Mode
from ..load.specs.run import CONCURRENCY
from .option_group import Group
from .option_types import (
    Metavar,
    Rate,
    Seconds,
    Share,
    StageText,
    Warmup,
    parse_stage,
    split_commas,
    threshold_text,
)

DEFAULT_OPS = 35_000


class LoadOptions(Group):
    """How much is done, and how long it may take."""

    title: ClassVar[str] = "Load"

    ops: Annotated[
        int | None,
        Field(
            ge=0,
            le=MOST_OPS,
            description=f"operations to run (default: {DEFAULT_OPS}, or by --duration)",
        ),
        Metavar("N"),
    ] = None
    duration: Annotated[
        Seconds | None, Field(gt=0, description="time to run instead, such as 30s or 2m")
    ] = None
    concurrency: Annotated[
        int, Field(ge=1, le=100_000, description="operations in flight at once; with --rate: "
                                                 "connections"), Metavar("N")
    ] = CONCURRENCY  # fmt: skip
    warmup: Annotated[
        Warmup | None, Field(description="operations or time to run first, not counted")
    ] = None
    op_timeout: Annotated[
        Seconds, Field(gt=0, description="an operation longer than this is cancelled")
    ] = 30.0
    max_tries: Annotated[
        int,
        Field(ge=1, le=1000, description="tries of an operation that the server gave up for "
                                         "others (40001, 40P01)"),
        Metavar("N"),
    ] = 1  # fmt: skip
    latency_limit: Annotated[
        Seconds | None, Field(gt=0, description="count the operations that took longer")
    ] = None
    grace: Annotated[
        Seconds, Field(ge=0, description="time for operations in flight after Ctrl-C")
    ] = 10.0
    give_up: Annotated[
        Seconds,
        Field(gt=0, description="end a run in which operations fail and none has succeeded for "
                                "so long (at least two --op-timeout)"),
    ] = 60.0  # fmt: skip
    time_split: bool = Field(
        True, description="tell where the time of operations goes, and count statements"
    )
    n_plus_one: Annotated[
        int,
        Field(ge=0, description="name a statement that one operation executes so often "
                                "(0: off; needs the time split)"),
        Metavar("N"),
    ] = LEAST  # fmt: skip
    loop: Loop = Field("auto", description="the event loop: uvloop where it exists")

    @property
    def limit(self) -> Limit:
        """By operations, by time where one was given, else the default number."""
        if self.duration is not None:
            return Limit(duration=self.duration)
        return Limit(ops=DEFAULT_OPS if self.ops is None else self.ops)


class ModeOptions(LoadOptions):
    """How operations are let in."""

    mode: Mode = Field(
        "semaphore",
        description="one in as one gets out; chunk after chunk; a task for each operation; "
        "or one thread or --concurrency threads with a plain Session",
    )
    rate: Annotated[
        Rate | None,
        Field(
            description="the open model: operations start when they are due, such as 500/s or 30/m"
        ),
    ] = None
    arrivals: Arrivals = Field("uniform", description="with --rate: evenly spaced, or at random")
    max_in_flight: Annotated[
        int,
        Field(ge=1, le=1_000_000, description="with --rate: an arrival that finds so many "
                                              "operations under way is dropped and counted"),
        Metavar("N"),
    ] = 1000  # fmt: skip
    stage: Annotated[
        list[StageText],
        NoDecode,
        BeforeValidator(split_commas),
        Field(
            description="go in a straight line to a concurrency or a rate, as 30s:40 or "
            "2m:200/s (0s: at once); may be repeated"
        ),
        Metavar("TIME:TARGET"),
    ] = Field(default_factory=list)

    server_side: bool = Field(
        True, description="ask PostgreSQL for its own account of the run: statements, waits, cache"
    )

    explain_slowest: Annotated[
        int,
        Field(ge=0, le=100, description="show the plans of so many statements, the slowest, asked "
                                        "for after measuring (PostgreSQL)"),
        Metavar("N"),
    ] = 0  # fmt: skip
    explain_parameters: bool = Field(
        False, description="show the values in those plans, and the parameters of the slowest call"
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.rate or self.stage) and self.mode != "semaphore":
            raise ValueError(f"--mode {self.mode} lets operations in without --rate or --stage")
        if len({text.endswith(_PER) for text in self.stage}) > 1:
            raise ValueError(
                "--stage: all are of concurrency (30s:40), or all of a rate (30s:40/s)"
            )
        if self.rate and self.stage and not self.is_open_stage:
            raise ValueError("--rate with --stage is where rates start from, as in 30s:40/s")
        if self.arrivals != "uniform" and not self.is_open:
            raise ValueError(f"--arrivals {self.arrivals} needs a --rate, or stages of one")
        if self.stage:
            check_stages(self.stages)
        return self

    @property
    def is_open_stage(self) -> bool:
        """Whether the stages are of a rate."""
        return bool(self.stage) and self.stage[0].endswith(_PER)

    @property
    def is_open(self) -> bool:
        """Whether operations start when they are due."""
        return self.rate is not None or self.is_open_stage

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the load."""
        return tuple(map(parse_stage, self.stage))

    @property
    def limit(self) -> Limit:
        """By the stages where there are any, else as every load's."""
        if self.stage:
            return Limit(duration=Profile(stages=self.stages).seconds)
        return super().limit

    @property
    def load_model(self) -> LoadModel:
        """What lets operations in; stages of a rate start from 0 where there is none."""
        return LoadModel(
            mode=self.mode,
            concurrency=self.concurrency,
            rate=(parse_rate(self.rate) if self.rate else 0.0) if self.is_open else None,
            arrivals=self.arrivals,
            max_in_flight=self.max_in_flight,
            stages=self.stages,
        )


_PER = ("/s", "/m", "/h")


class VerdictOptions(Group):
    """When a run is a failure."""

    title: ClassVar[str] = "Verdict"

    max_error_rate: Annotated[
        Share, Field(description="exit 1 when a larger share of the operations fails")
    ] = 0.01
    threshold: Annotated[
        list[Annotated[str, AfterValidator(threshold_text)]],
        NoDecode,
        BeforeValidator(split_commas),
        Field(
            description="exit 99 unless it holds, as 'op_duration{op:read}:p(95)<50ms'; "
            "may be repeated"
        ),
        Metavar("EXPR"),
    ] = Field(default_factory=list)
    abort_on_fail: Annotated[
        Seconds | None,
        Field(ge=0, description="end the run when a threshold does not hold, from so long on"),
    ] = None
    require_valid: bool = Field(
        False, description="exit 112 when this process distorted the latencies"
    )

    @model_validator(mode="after")
    def _answerable(self) -> Self:
        """Refuse what could only fail at the end."""
        of_schedule = [t for t in self.threshold if t.startswith(("schedule_lag", "dropped"))]
        if of_schedule and not getattr(self, "is_open", False):
            raise ValueError(f"--threshold {of_schedule[0]} needs a --rate, or stages of one")
        if self.abort_on_fail is not None and not self.threshold:
            raise ValueError("--abort-on-fail needs a --threshold")
        return self
