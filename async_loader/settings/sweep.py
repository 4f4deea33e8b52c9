"""The options of a sweep."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from ..load.pacing.limits import Limit
from ..verdict.knee import By
from .load import LoadOptions
from .option_group import GeneralOptions, Group
from .option_types import Metavar, level_text, split_commas
from .run import DatabaseOptions, ReportOptions, WorkloadOptions
from .workers import SplitOptions

_STEP_SECONDS = 10.0
_WARMUP_SECONDS = 2.0
_DOUBLINGS: dict[By, list[str]] = {
    "concurrency": [str(2**n) for n in range(10)],
    "rate": [f"{50 * 2**n}/s" for n in range(12)],
}


class SweepOptions(Group):
    """Which loads are tried."""

    title: ClassVar[str] = "Sweep"

    by: By = Field("concurrency", description="what is raised: a closed or an open model's load")
    steps: Annotated[
        list[Annotated[str, AfterValidator(level_text)]],
        NoDecode,
        BeforeValidator(split_commas),
        Field(
            description="a concurrency (16) or a rate (200/s), in rising order; may be repeated "
            "(default: doubling from 1 or 50/s)"
        ),
        Metavar("LEVEL"),
    ] = Field(default_factory=list)

    @model_validator(mode="after")
    def _alike(self) -> Self:
        for step in self.steps:
            if ("/" in step) != (self.by == "rate"):
                raise ValueError(f"--steps {step}: --by {self.by} takes steps such as "
                                 f"{_DOUBLINGS[self.by][2]}")  # fmt: skip
        return self

    @property
    def levels(self) -> list[str]:
        """The steps, as they were written."""
        return self.steps or _DOUBLINGS[self.by]


class SweepSettings(
    GeneralOptions,
    ReportOptions,
    DatabaseOptions,
    WorkloadOptions,
    SplitOptions,
    LoadOptions,
    SweepOptions,
):
    """Raise the load in steps, find where throughput stops growing, and say what to run with."""

    command: ClassVar[str] = "sweep"

    @property
    def limit(self) -> Limit:
        """By time where nothing else was said: a number of operations is shorter at each step."""
        return super().limit if self.ops or self.duration else Limit(duration=_STEP_SECONDS)

    @property
    def warm_up(self) -> Limit:
        """What is run first at each step."""
        return self.warmup or Limit(duration=_WARMUP_SECONDS)
