"""
A figure of a part of the run's time, or of one that has to stay bad for so long: from its slices.

A window is a second of the run, or a slice where slices are wider (in runs past two minutes). What
is asked to hold `for` ten seconds fails where it is broken in every window of any ten seconds
running: the figure is the level that it stayed at or beyond for so long.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..results.run import RunResult
from ..results.slices import (
    Slice,
    Slices,
    bounds_of,
    mean_ns,
    percentile_ns,
    sum_of_buckets,
)

# What slices know.
METRICS = {"op_duration", "errors", "ops"}
_WINDOW = 1.0
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class When:
    """Which part of a run: of a stage (from 1 on), from so many seconds on, for so long."""

    stage: int | None = None
    after: float = 0.0
    lasting: float = 0.0

    @property
    def is_always(self) -> bool:
        """Whether it is the whole run, as one."""
        return self.stage is None and not self.after and not self.lasting


def figure_over(
    result: RunResult, names: Iterable[str], metric: str, aggregate: str, when: When, *, high: bool
) -> float | None:
    """
    Return the figure, None where the run has no such time; `high` is worse where that is true.

    Of what lasts it is the worst level that it did not leave for so long.
    """
    slices = result.slices
    if slices is None or why_none(result, when) is not None:
        return None
    names = [name for name in names if name in slices.by_operation]

    def figure(numbers: range) -> float | None:
        found = [slices.by_operation[name][number] for name in names for number in numbers]
        return _figure(found, _seconds_of(result, slices, numbers), metric, aggregate)

    numbers = _numbers(result, slices, when)
    if not when.lasting:
        return figure(numbers)
    width = _window(slices)
    windows = [numbers[start : start + width] for start in range(0, len(numbers), width)]
    figures = _carried(figure(window) for window in windows)
    return _worst_level(figures, _windows_of(slices, when), high=high)


def samples_over(result: RunResult, names: Iterable[str], when: When) -> int:
    """Return on how many operations that ended well such a figure rests."""
    slices = result.slices
    if slices is None or why_none(result, when) is not None:
        return 0
    numbers = _numbers(result, slices, when)
    count = sum(
        slices.by_operation[name][number].count
        for name in names
        if name in slices.by_operation
        for number in numbers
    )
    share = _windows_of(slices, when) * _window(slices) / len(numbers) if when.lasting else 1.0
    return int(count * share)


def why_none(result: RunResult, when: When) -> str | None:
    """Return why a run has no such time, None where it has."""
    if result.slices is None:
        return "the result has no slices of time"
    stages = result.stages or ()
    if when.stage is not None and when.stage > len(stages):
        return f"the run has {len(stages)} stages" if stages else "the run has no stages"
    numbers = _numbers(result, result.slices, when)
    if not numbers:
        return f"the run has nothing there: its slices are {result.slices.width:g} s wide"
    if when.lasting and len(numbers) < _windows_of(result.slices, when) * _window(result.slices):
        return f"the run has no {when.lasting:g} s there"
    return None


def _numbers(result: RunResult, slices: Slices, when: When) -> range:
    """Return the slices that are wholly of that time."""
    begin, end = 0.0, math.inf
    stages = result.stages or ()
    if when.stage is not None:
        begin = sum(stages[: when.stage - 1])
        end = begin + stages[when.stage - 1]
    begin += when.after
    first = math.ceil(begin / slices.width - _TINY)
    if end >= result.seconds:  # the last one may be shorter
        return range(first, slices.length)
    return range(first, math.floor(end / slices.width + _TINY))


def _window(slices: Slices) -> int:
    """Return of how many slices a window is."""
    return max(1, round(_WINDOW / slices.width))


def _windows_of(slices: Slices, when: When) -> int:
    """Return how many windows it has to last."""
    return max(1, math.ceil(when.lasting / (_window(slices) * slices.width) - _TINY))


def _seconds_of(result: RunResult, slices: Slices, numbers: range) -> float:
    return min(numbers.stop * slices.width, result.seconds) - numbers.start * slices.width


def _figure(found: Sequence[Slice], seconds: float, metric: str, aggregate: str) -> float | None:
    ended = sum(one.count for one in found)
    if metric == "ops":
        return ended / seconds if aggregate == "rate" and seconds > 0 else float(ended)
    if metric == "errors":
        failed = sum(one.failed for one in found)
        if aggregate == "count":
            return float(failed)
        return failed / (failed + ended) if failed + ended else None
    return _duration(found, aggregate) if ended else None


def _duration(found: Iterable[Slice], aggregate: str) -> float:
    """Return an aggregate of latencies in milliseconds, as exact as buckets are."""
    buckets = sum_of_buckets(one.buckets() for one in found)
    match aggregate:
        case "count":
            return float(sum(buckets.values()))
        case "avg":
            return mean_ns(buckets) / 1e6
        case "min":
            return bounds_of(min(buckets))[0] / 1e6
        case "max":
            return bounds_of(max(buckets))[1] / 1e6
        case "med":
            return percentile_ns(buckets, 50.0) / 1e6
    return percentile_ns(buckets, float(aggregate[2:-1])) / 1e6


def _carried(figures: Iterable[float | None]) -> list[float | None]:
    """Return the figures, where there is none the one before: nothing that ended mends it."""
    carried: list[float | None] = []
    for figure in figures:
        carried.append(figure if figure is not None or not carried else carried[-1])
    return carried


def _worst_level(figures: Sequence[float | None], windows: int, *, high: bool) -> float | None:
    """Return the worst level that was kept up for so many windows running."""
    best, worst = (min, max) if high else (max, min)
    levels = []
    for start in range(len(figures) - windows + 1):
        running = figures[start : start + windows]
        known = [figure for figure in running if figure is not None]
        if len(known) == windows:
            levels.append(best(known))
    return worst(levels) if levels else None
