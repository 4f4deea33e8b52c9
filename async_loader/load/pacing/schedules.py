"""
When arrivals are due, and how a load rises and falls: pure functions of time, seed and number.

The shape is k6's: a level that goes in a straight line to each stage's target in turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, count, islice
from typing import Literal

from ...concurrency.clock import SECOND_NS
from ...errors import ConfigurationError
from ..context import hash64

Arrivals = Literal["uniform", "poisson"]


@dataclass(frozen=True, slots=True)
class Stage:
    """So many seconds, in which the level goes in a straight line to the target; 0 s: at once."""

    seconds: float
    target: float

    def __post_init__(self) -> None:
        if not (self.seconds >= 0 and 0 <= self.target < math.inf):
            raise ConfigurationError("a stage's time and target cannot be negative")


@dataclass(frozen=True, slots=True)
class Profile:
    """
    A level over time: `start`, then stage after stage; behind the last one its target holds.

    Of concurrency or of arrivals a second. The area below it is the number of arrivals so far.
    """

    start: float = 0.0
    stages: tuple[Stage, ...] = ()

    @property
    def seconds(self) -> float:
        """How long the stages take together."""
        # Added up as `at` does: from Python 3.12 on, sum() of floats is another number.
        return [*accumulate((stage.seconds for stage in self.stages), initial=0.0)][-1]

    @property
    def highest(self) -> float:
        """The highest level."""
        return max(self.start, *(stage.target for stage in self.stages), 0.0)

    def at(self, seconds: float) -> float:
        """Return the level at a time."""
        level, began = self.start, 0.0
        for stage in self.stages:
            if seconds < began + stage.seconds:
                return level + (stage.target - level) * (seconds - began) / stage.seconds
            level, began = stage.target, began + stage.seconds
        return level

    def when(self, area: float) -> float:
        """Return the first time, in seconds, at which so much lies below; `inf` for never."""
        level, began = self.start, 0.0
        for stage in self.stages:
            whole = (level + stage.target) / 2 * stage.seconds
            if area <= whole and stage.seconds:
                return began + _within(area, level, (stage.target - level) / stage.seconds)
            area -= whole
            level, began = stage.target, began + stage.seconds
        return began + _within(area, level, 0.0)


def _within(area: float, level: float, slope: float) -> float:
    """
    Return x where `level * x + slope * x**2 / 2` is the area.

    The root in the form that divides by a sum: it cancels no digits and is right for slope 0.
    """
    if area <= 0:
        return 0.0
    divisor = level + math.sqrt(max(level * level + 2 * slope * area, 0.0))
    return 2 * area / divisor if divisor else math.inf


def arrival_times(
    profile: Profile, arrivals: Arrivals, seed: int, shard: int = 0, shards: int = 1
) -> Iterator[int]:
    """
    Yield when each arrival is due, in nanoseconds from the start; ends where the level stays 0.

    Arrival *i* depends on the profile, the seed and *i* alone: nothing that happens in a run
    moves it. Shard k of n yields the arrivals k, k + n, k + 2n and so on of the one schedule.
    """
    areas = _poisson(seed) if arrivals == "poisson" else map(float, count())
    for area in islice(areas, shard, None, shards):
        due = profile.when(area)
        if due == math.inf:
            return
        yield round(due * SECOND_NS)


def _poisson(seed: int) -> Iterator[float]:
    """
    Yield the times of a Poisson process of rate 1, whose gaps are exponential.

    A profile stretches them to its own rate (the time change of an inhomogeneous process).
    """
    # Another stream than those that choose the operations and what they do.
    stream = hash64(1, seed)
    return accumulate(-math.log1p(-(hash64(stream, i) >> 11) * 2.0**-53) for i in count())
