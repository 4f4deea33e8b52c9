"""What failed, in groups: one for each fault, as far as it can be told from others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from msgspec import Meta

from .annotations import Count
from .notes import LATER
from .part import Part


@dataclass(frozen=True, slots=True)
class ErrorResult(Part):
    """
    One fault, by its kind; where a kind has several, by constraint, place or number too.

    Nothing in it holds a statement's parameters.
    """

    count: Count
    by_operation: Mapping[str, Count]
    sample: Annotated[str, Meta(description="one failure's message, in one line")]
    source: Annotated[
        str | None, Meta(description="the user's innermost line that it came from, with function")
    ] = None
    traceback: str | None = None
    kind: Annotated[
        str, Meta(description="SQLSTATE with its name, timeout ..., or class; HTTP status"), LATER
    ] = ""
    constraint: Annotated[str | None, Meta(description="the one that was broken"), LATER] = None

    def merged(self, other: ErrorResult) -> ErrorResult:
        """Return the two together, with the first one's sample."""
        return replace(
            self,
            count=self.count + other.count,
            by_operation=Counter(self.by_operation) + Counter(other.by_operation),
        )


def named(errors: Iterable[ErrorResult]) -> dict[str, ErrorResult]:
    """
    Return the faults by a name for each, the most frequent first.

    The kind is the name where it is the only one; else the constraint, the place and at last a
    number tell them apart.
    """
    found = sorted(errors, key=lambda error: -error.count)
    kinds = Counter(error.kind for error in found)
    by_name: dict[str, ErrorResult] = {}
    for error in found:
        name = error.kind if kinds[error.kind] == 1 else _distinct(error)
        number, base = 2, name
        while name in by_name:
            name, number = f"{base} ({number})", number + 1
        by_name[name] = error
    return by_name


def merged_errors(
    mine: Mapping[str, ErrorResult], theirs: Mapping[str, ErrorResult]
) -> dict[str, ErrorResult]:
    """Return the faults of two shards, those together that are one fault."""
    from ..failures.tracebacks import without_varying  # noqa: PLC0415  only who merges needs it

    merged: dict[tuple[str | None, ...], ErrorResult] = {}
    for name, error in (*mine.items(), *theirs.items()):
        kind = error.kind or name
        key = (kind, error.constraint, error.source, without_varying(error.sample))
        known = merged.get(key)
        merged[key] = replace(error, kind=kind) if known is None else known.merged(error)
    return named(merged.values())


def _distinct(error: ErrorResult) -> str:
    if error.constraint is not None:
        return f"{error.kind} of {error.constraint}"
    place = (error.source or "").partition(" in ")[0]
    return f"{error.kind} at {place}" if place else error.kind
