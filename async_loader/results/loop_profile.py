"""What the event loop spent its time on, by samples, and what kept it from all else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from .annotations import Count, Milliseconds
from .part import Part

_MOST_FUNCTIONS = 20


@dataclass(frozen=True, slots=True)
class Blocking(Part):
    """A line that kept the event loop for itself: how often it was seen to, and for how long."""

    operation: Annotated[str | None, Meta(description="null: a task or callback in the background")]
    source: str
    times: Count
    total_ms: Milliseconds
    longest_ms: Milliseconds

    def merged(self, other: Blocking) -> Blocking:
        """Return the two together."""
        return Blocking(
            self.operation,
            self.source,
            self.times + other.times,
            self.total_ms + other.total_ms,
            max(self.longest_ms, other.longest_ms),
        )


@dataclass(frozen=True, slots=True)
class LoopProfile(Part):
    """Samples of the event loop's thread; null where none was sampled."""

    samples: Count = 0
    busy: Annotated[Count, Meta(description="in which it ran something")] = 0
    owners: Annotated[
        Mapping[str, Count],
        Meta(description="whose code: sqlalchemy, driver, application, async_loader, loop"),
    ] = field(default_factory=dict)
    functions: Annotated[
        Mapping[str, Count], Meta(description="the application's own: file:line in function")
    ] = field(default_factory=dict)
    blocking: Annotated[tuple[Blocking, ...], Meta(description="longest in all first")] = ()

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


@dataclass(frozen=True, slots=True)
class Leak(Part):
    """Connections that an operation has taken and not given back when it ended."""

    operation: str
    source: Annotated[str, Meta(description="the line that took them")]
    connections: Count
    collected: Annotated[Count, Meta(description="nobody referred to them any more")] = 0
    in_transaction: Annotated[Count, Meta(description="of the others: left in one")] = 0
