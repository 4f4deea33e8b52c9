"""The shape of what the JSON says of a run: changes since a baseline, and the verdict."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from .document_types import exact


@exact
class Change(TypedDict):
    """One figure now and in the baseline; null where there is no such figure."""

    check: Annotated[str, Field(description="how it was asked for")]
    unit: Literal["ms", "/s", "share"]
    tolerance: Annotated[float, Field(ge=0, description="as `change`")]
    fails: Annotated[bool, Field(description="whether a regression fails the run")]
    before: float | None
    now: float | None
    change: Annotated[float | None, Field(description="relative, of shares the difference")]
    low: Annotated[float | None, Field(description="where its 95 % interval begins")]
    high: Annotated[float | None, Field(description="where its 95 % interval ends")]
    finding: Literal["regression", "improved", "holds", "inconclusive"]
    reason: Annotated[str, Field(description="why it is inconclusive")]


@exact
class Baseline(TypedDict):
    """The run held against earlier ones; null where it was held against none."""

    baselines: Annotated[list[str], Field(description="their files")]
    differences: Annotated[list[str], Field(description="what else was not the same")]
    changes: list[Change]


@exact
class Criterion(TypedDict):
    """One thing that was asked of the run, and whether it holds."""

    name: str
    kind: Literal["run", "errors", "threshold", "baseline", "measurement"]
    outcome: Literal["passed", "failed", "not measured"]
    figure: Annotated[float | None, Field(description="null: there is none")]
    bound: float | None
    comparison: Literal["<", "<=", ">", ">=", "=="] | None
    found: Annotated[str, Field(description="the figure, for a reader")]
    reason: Annotated[str, Field(description="why it is not passed, or what stands beside")]


@exact
class Verdict(TypedDict):
    """What is said of the run, for a reader: it follows from all else and from the settings."""

    word: Literal["passed", "failed", "not measured", "stopped"]
    exit_code: Annotated[int, Field(ge=0, description="of the command, for the run alone")]
    reasons: list[str]
    doubts: Annotated[list[str], Field(description="why the measurement is not good")]
    criteria: list[Criterion]
