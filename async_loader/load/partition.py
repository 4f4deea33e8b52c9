"""A part of a run that is split: which operations are its own, and who keeps it in step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from ..results.run import RunResult
from .metrics.tallies import PoolGauge
from .pacing.limits import Limit


@dataclass(frozen=True, slots=True)
class Partition:
    """Part k of n performs the operations i of the one stream for which i mod n = k."""

    number: int = 0
    parts: int = 1

    def of(self, total: int) -> int:
        """Return this part's share of so many; those of all parts add up to it."""
        return len(range(self.number, total, self.parts))

    def limit(self, whole: Limit) -> Limit:
        """Return its limit, where the whole run has this one: time is nobody's share."""
        return whole if whole.ops is None else Limit(ops=self.of(whole.ops))

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of its operations, without an end."""
        return count(self.number, self.parts)

    def warm_up_numbers(self) -> Iterator[int]:
        """Yield those of its warm-up, which are below zero."""
        return count(-1 - self.number, -self.parts)


WHOLE = Partition()


class ShardCoordinator(Protocol):
    """Who leads the parts of a run, as one of them sees it."""

    @property
    def part(self) -> Partition:
        """Which part this is."""
        ...

    @property
    def shared(self) -> Any:
        """What the workload's set-up returned, which was run once for all."""
        ...

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the part's operations, without an end."""
        ...

    async def begin(self) -> None:
        """Tell that the warm-up is over, and return at the instant at which all begin."""
        ...

    def look(self, so_far: RunResult, pool: PoolGauge | None) -> None:
        """Take what was counted so far, each second."""
        ...
