"""What failed, in groups: one for each fault, as far as it can be told from others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from ..failures.tracebacks import without_varying


@dataclass(frozen=True, slots=True)
class ErrorResult:
    """
    One fault: how often, in which operations, and one failure of it as a sample.

    `kind`: an SQLSTATE with its name, `timeout` and the like, or a class, with its HTTP status
    if it has one. `sample`: its message in one line; `source`: the user's innermost line that it
    came from, as `file:line in function`; `traceback`: all of it. None of them holds a statement's
    parameters. `constraint`: the name of the one that was broken.
    """

    count: int
    by_operation: Mapping[str, int]
    sample: str
    source: str | None = None
    traceback: str | None = None
    kind: str = ""
    constraint: str | None = None

    def merged(self, other: ErrorResult) -> ErrorResult:
        """Return the two together, with the first one's sample."""
        return replace(
            self,
            count=self.count + other.count,
            by_operation=Counter(self.by_operation) + Counter(other.by_operation),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "count": self.count,
            "by_operation": dict(self.by_operation),
            "sample": self.sample,
            "source": self.source,
            "traceback": self.traceback,
            "kind": self.kind,
            "constraint": self.constraint,
        }

    @classmethod
    def from_dict(cls, name: str, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote; in older documents the name is the kind."""
        return cls(**{"kind": name, **data})


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
