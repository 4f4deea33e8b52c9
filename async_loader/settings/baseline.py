"""The options that hold a run against earlier ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from .option_group import Group
from .option_types import Metavar, check_text, split_commas


class BaselineOptions(Group):
    """What the run is held against."""

    title: ClassVar[str] = "Verdict"

    baseline: Annotated[
        list[Path],
        NoDecode,
        BeforeValidator(split_commas),
        Field(
            description="an earlier result (--out json=FILE) to show changes against; may be "
            "repeated: several tell how much runs differ"
        ),
        Metavar("FILE"),
    ] = Field(default_factory=list)
    compare_fail: Annotated[
        list[Annotated[str, AfterValidator(check_text)]],
        NoDecode,
        BeforeValidator(split_commas),
        Field(
            description="exit 98 when it got worse by surely more than this, as "
            "'op_duration{op:read}:p(95):10%'; may be repeated"
        ),
        Metavar("EXPR"),
    ] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_a_baseline(self) -> Self:
        if self.compare_fail and not self.baseline:
            raise ValueError("--compare-fail needs a --baseline to compare with")
        return self
