"""The options of the commands that work on saved results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic_settings import CliPositionalArg

from .option_group import GeneralOptions, Group
from .option_types import Metavar
from .run import ResultOutputOptions


class SavedResults(Group):
    """Which results."""

    title: ClassVar[str] = "Results"

    files: Annotated[
        CliPositionalArg[list[Path]],
        Field(min_length=1, description="what --out json=FILE wrote; several are compared"),
        Metavar("FILE"),
    ]


class ReportSettings(GeneralOptions, ResultOutputOptions, SavedResults):
    """Render saved results again: one as a run's report, several side by side."""

    command: ClassVar[str] = "report"


class SchemaSettings(GeneralOptions):
    """Print the JSON Schema of what --out json=FILE writes."""

    command: ClassVar[str] = "schema"
