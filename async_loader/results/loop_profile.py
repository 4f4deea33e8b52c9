"""What the event loop spent its time on, by samples, and what kept it from all else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

_MOST_FUNCTIONS = 20


@dataclass(frozen=True, slots=True)
class Blocking:
    """
    A line that kept the event loop for itself: how often it was seen to, and for how long.

    `operation` is None where it was no operation's, but a task's or a callback's in the background.
    """

    operation: str | None
    source: str
    times: int
    total_ms: float
    longest_ms: float

    def merged(self, other: Blocking) -> Blocking:
        """Return the two together."""
        return Blocking(
            self.operation,
            self.source,
            self.times + other.times,
            self.total_ms + other.total_ms,
            max(self.longest_ms, other.longest_ms),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LoopProfile:
    """
    Samples of the event loop's thread.

    `samples` in all, `busy` of them while it ran something: `owners` says whose code, by
    `sqlalchemy`, `driver`, `application`, `async_loader` or `loop`; `functions` are the
    application's own, as `file:line in function`. `blocking`: longest in all first.
    """

    samples: int = 0
    busy: int = 0
    owners: Mapping[str, int] = field(default_factory=dict)
    functions: Mapping[str, int] = field(default_factory=dict)
    blocking: tuple[Blocking, ...] = ()

    def merged(self, other: LoopProfile) -> LoopProfile:
        """Return the two together."""
        blocking: dict[tuple[str | None, str], Blocking] = {}
        for one in (*self.blocking, *other.blocking):
            key = (one.operation, one.source)
            blocking[key] = blocking[key].merged(one) if key in blocking else one
        functions = Counter(self.functions) + Counter(other.functions)
        return LoopProfile(
            samples=self.samples + other.samples,
            busy=self.busy + other.busy,
            owners=Counter(self.owners) + Counter(other.owners),
            functions=dict(functions.most_common(_MOST_FUNCTIONS)),
            blocking=tuple(sorted(blocking.values(), key=lambda one: -one.total_ms)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "samples": self.samples,
            "busy": self.busy,
            "owners": dict(self.owners),
            "functions": dict(self.functions),
            "blocking": [one.to_dict() for one in self.blocking],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote."""
        blocking = tuple(Blocking(**one) for one in data["blocking"])
        return cls(**{**data, "blocking": blocking})


@dataclass(frozen=True, slots=True)
class Leak:
    """
    Connections that an operation has taken and not given back when it ended.

    `source`: the line that took them. `collected`: of the `connections`, those that nobody
    referred to any more; `in_transaction`: those of the others that were left in one.
    """

    operation: str
    source: str
    connections: int
    collected: int = 0
    in_transaction: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)
