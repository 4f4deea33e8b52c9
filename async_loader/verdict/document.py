"""What is saved of runs: each result with the verdict on it, and the JSON Schema of that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Self

from msgspec import Meta

from ..results.form import definitions_of
from ..results.notes import LATER, OMITTED, After, shown
from ..results.part import Part
from ..results.run import RunResult
from ..results.versions import RESULT_SCHEMA
from .knee import Advice, By
from .verdict import Verdict, judge


@dataclass(frozen=True, slots=True)
class Result(RunResult):
    """What one run found."""

    @classmethod
    def of(cls, result: RunResult) -> Self:
        """Return the result as it is saved."""
        return cls(**{field.name: getattr(result, field.name) for field in fields(result)})

    @property
    @shown
    def verdict(self) -> Annotated[Verdict, LATER]:
        """What is said of the run, for a reader: it follows from all else and from the settings."""
        return judge(self)


@dataclass(frozen=True, slots=True)
class Sweep(Part):
    """What a sweep found; the levels are the runs' own."""

    by: By
    levels: tuple[float, ...]
    advice: Annotated[Advice | None, Meta(description="null: no step is good")]


@dataclass(frozen=True, slots=True)
class Results(Part):
    """What several runs found, in the order in which they ran."""

    runs: tuple[Result, ...]
    sweep: Annotated[Sweep | None, Meta(description="whose steps the runs are"), OMITTED] = None

    @property
    @shown
    def schema(self) -> Annotated[Literal[1], After("")]:
        """The form of this document and of its runs'."""
        return RESULT_SCHEMA


DOCUMENTS = (Result, Results)
# The options, of which only those are named that reports look at.
OPEN = frozenset({"Settings"})


def document_of(result: RunResult) -> dict[str, Any]:
    """Return the JSON form of a result with the verdict on it."""
    return Result.of(result).to_dict()


def documents_of(results: Iterable[RunResult], sweep: Sweep | None = None) -> dict[str, Any]:
    """Return the JSON form of several, with the verdict on each."""
    return Results(tuple(map(Result.of, results)), sweep).to_dict()


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what `--out json=` writes."""
    choices, definitions = definitions_of(*DOCUMENTS, more=OPEN)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A result of async_loader",
        "anyOf": choices,
        "$defs": definitions,
    }
