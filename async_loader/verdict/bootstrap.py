"""
How sure the change of a figure between two runs is: a paired block bootstrap.

Neighbouring slices of a run are alike (a checkpoint, a vacuum or a busy neighbour lasts for
many), so blocks of them are drawn, sixteenths of the run (non-overlapping: Carlstein 1986).
The same sixteenths of both runs are drawn: what both have in common over their time, such as
stages or growing tables, is no noise. The interval is that of the percentiles, expanded for
so few blocks (Hesterberg 2015, "What Teachers Should Know about the Bootstrap", 3.2). Random
numbers have a fixed seed: the same results have the same interval.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import sqrt
from operator import mul
from statistics import NormalDist, fmean

from ..results.slices import Slice, Slices, bounds_of, mean_ns, sum_of_buckets

BLOCKS = 16
FEWEST_BLOCKS = 6
DRAWS = 1000
_SEED = 20_250_101

# Student's t of 97.5 % by degrees of freedom: the tables'.
_T = {
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
    10: 2.228,
    11: 2.201,
    12: 2.179,
    13: 2.160,
    14: 2.145,
}
_T[15] = 2.131

Weights = Sequence[int]
# A figure of a run in which each block counts as often as its weight; None where there is none.
Statistic = Callable[[Weights], float | None]


@dataclass(frozen=True, slots=True)
class Draw:
    """One resampling: how often each block is drawn, and which of several runs are."""

    weights: Weights
    runs: tuple[int, ...]
    stand_in: int


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a run's time, in seconds, and what ended in it."""

    slices: tuple[Slice, ...]
    seconds: float

    @property
    def count(self) -> int:
        """Operations that ended well."""
        return sum(one.count for one in self.slices)

    @property
    def failed(self) -> int:
        """Operations that did not."""
        return sum(one.failed for one in self.slices)


def blocks_of(
    slices: Slices, seconds: float, number: int, operation: str | None = None
) -> list[Block]:
    """Return a run of `seconds` in that many parts: of one operation, or of all."""
    names = slices.by_operation if operation is None else (operation,)
    return [
        Block(
            tuple(one for name in names for one in slices.by_operation[name][begin:end]),
            min(end * slices.width, seconds) - begin * slices.width,
        )
        for begin, end in _bounds(slices.length, number)
    ]


def percentile_of(blocks: Sequence[Block], percentile: float) -> Statistic:
    """Return the percentile (0 to 100) of the latencies, in nanoseconds."""
    each = [sum_of_buckets(one.buckets() for one in block.slices) for block in blocks]
    buckets = sorted(sum_of_buckets(each))
    so_far = [0] * len(blocks)
    up_to = []  # for each bucket, how many of each block are in it or below
    for bucket in buckets:
        so_far = [n + found.get(bucket, 0) for n, found in zip(so_far, each, strict=True)]
        up_to.append(so_far)

    def figure(weights: Weights) -> float | None:
        rank = _dot(weights, so_far) * percentile / 100
        if not rank:
            return None
        place = bisect_left(up_to, rank, key=lambda counts: _dot(weights, counts))
        place = min(place, len(buckets) - 1)
        below = _dot(weights, up_to[place - 1]) if place else 0
        low, high = bounds_of(buckets[place])
        return low + (high - low) * (rank - below) / (_dot(weights, up_to[place]) - below)

    return figure


def mean_of(blocks: Sequence[Block]) -> Statistic:
    """Return the mean latency, in nanoseconds."""
    counts = [block.count for block in blocks]
    means = [mean_ns(sum_of_buckets(s.buckets() for s in block.slices)) for block in blocks]
    sums = [mean * count for mean, count in zip(means, counts, strict=True)]
    return _quotient(sums, counts)


def rate_of(slices: Slices, seconds: float, number: int, operation: str | None = None) -> Statistic:
    """Return how many operations ended well in a second, of a run in that many blocks."""
    running = slices.running(operation)
    counts = [sum(running[begin:end]) for begin, end in _bounds(slices.length, number)]
    return _quotient(counts, [b.seconds for b in blocks_of(slices, seconds, number, operation)])


def error_share_of(blocks: Sequence[Block]) -> Statistic:
    """Return the share (0 to 1) of operations that did not end well."""
    return _quotient([b.failed for b in blocks], [b.failed + b.count for b in blocks])


def influences(statistic: Statistic, parts: int) -> list[float]:
    """Return how much each part moves a figure: by what it changes when the part counts twice."""
    plain = statistic((1,) * parts)
    found = []
    for part in range(parts):
        weights = [1] * parts
        weights[part] = 2
        twice = statistic(weights)
        found.append(0.0 if plain is None or twice is None else twice - plain)
    return found


def correlation_time(series: Sequence[float]) -> float:
    """
    Return for how many parts what moves a figure lasts: 1 where neighbours are independent.

    The integrated autocorrelation time, summed up to 5 times itself (Sokal 1997).
    """
    middle = fmean(series)
    centred = [value - middle for value in series]
    variance = sum(value * value for value in centred)
    time = 1.0
    for lag in range(1, len(series)):
        if not variance or lag > 5 * time:
            break
        time += 2 * sum(map(mul, centred, centred[lag:])) / variance
    return max(time, 1.0)


def interval(statistic: Callable[[Draw], float | None], blocks: int, runs: int = 1) -> Interval:
    """
    Return the 95 % interval of a figure of runs in that many blocks.

    `runs` is how many results it was compared with. None where a figure is missing in
    more draws than the interval leaves out.
    """
    found = [figure for draw in draws(blocks, runs) if (figure := statistic(draw)) is not None]
    tail = NormalDist().cdf(-_T[blocks - 1] * sqrt(blocks / (blocks - 1)))
    place = int(tail * DRAWS)
    if DRAWS - len(found) > place:
        return None
    found.sort()
    return found[place], found[-1 - place]


Interval = tuple[float, float] | None


@lru_cache(maxsize=8)
def draws(blocks: int, runs: int) -> tuple[Draw, ...]:
    """Return the resamplings, always the same ones."""
    rng = random.Random(_SEED)  # noqa: S311  statistics, not a secret
    made = []
    for _ in range(DRAWS):
        weights = [0] * blocks
        for block in rng.choices(range(blocks), k=blocks):
            weights[block] += 1
        picked = tuple(rng.choices(range(runs), k=runs))
        made.append(Draw(tuple(weights), picked, rng.randrange(runs)))
    return tuple(made)


def _bounds(length: int, number: int) -> Iterator[tuple[int, int]]:
    """Return where each of so many parts of slices begins and ends."""
    return pairwise(round(length * part / number) for part in range(number + 1))


def _quotient(above: Sequence[float], below: Sequence[float]) -> Statistic:
    def figure(weights: Weights) -> float | None:
        total = _dot(weights, below)
        return _dot(weights, above) / total if total else None

    return figure


def _dot(weights: Weights, values: Sequence[float]) -> float:
    return float(sum(map(mul, weights, values)))
