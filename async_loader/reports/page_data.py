"""
What the charts of the HTML report draw: lists of numbers over the same x for every run.

A run of a day has 86,400 seconds, a screen some thousand pixels: of more than `MOST_POINTS`
seconds, neighbours are drawn as one point, with the lowest and highest second among them as a
band around it, so that a stall of one second does not vanish in the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import Any

from ..results.histogram import Histogram
from ..results.run import RunResult
from ..results.slices import Slices, percentile_ns, sum_of_buckets
from .comparison import RunsByMode

MOST_POINTS = 900
# A second of which the run had so little says nothing about its rate.
_SHORTEST = 0.2
# Points to each doubling of 1 / (1 - share): a hundred of them reach from p0 to p99.9999.
_STEPS = 4
# A slice's p99 needs so many latencies to be more than noise; slices are widened for them, but
# not to fewer than show a course.
_LATENCIES = 30
_FEWEST_SLICES = 16
_FIGURES = {"p50": 50.0, "p95": 95.0, "p99": 99.0}
# The name of all operations together, which no operation has.
ALL = ""

Values = list[float | None]


def chart_data(ways: RunsByMode) -> dict[str, Any]:
    """Return the data of all charts; of several rounds the one of median throughput is drawn."""
    drawn = {label: typical(runs) for label, runs in ways.items()}
    longest = max(len(run.series.throughput) for run in drawn.values())
    step = max(1, ceil(longest / MOST_POINTS))
    inverse = list(_inverse(max(run.completed for run in drawn.values())))
    return {
        "step": step,
        "seconds": [start + step / 2 for start in range(0, longest, step)],
        "inverse": [_short(x) for x in inverse],
        "runs": [
            {
                "label": label,
                **_series(run, step, longest),
                "slices": _slices(run.slices, run.seconds) if run.slices else None,
                "percentiles": _percentiles(run, inverse),
            }
            for label, run in drawn.items()
        ],
    }


def typical(runs: Sequence[RunResult]) -> RunResult:
    """Return the run of median throughput, of two in the middle the slower one."""
    ranked = sorted(runs, key=lambda run: run.throughput)
    return ranked[(len(ranked) - 1) // 2]


# --- over time -----------------------------------------------------------------------------


def _series(run: RunResult, step: int, longest: int) -> dict[str, Any]:
    """Return what happened in each `step` seconds, over as many as the longest run has."""
    series = run.series
    # The run's share of each of its seconds: all but the last are whole.
    shares = [min(1.0, max(0.0, run.seconds - n)) for n in range(len(series.throughput))]
    rates = [
        n / share if share >= _SHORTEST else None
        for n, share in zip(series.throughput, shares, strict=True)
    ]

    def whole(values: Sequence[int]) -> list[int | None]:
        """Leave out what was seen in the moment in which the run had already ended."""
        told = (share >= _SHORTEST or len(values) == 1 for share in shares)
        return [v if known else None for v, known in zip(values, told, strict=True)]

    def filled(values: Values) -> Values:
        return values + [None] * (ceil(longest / step) - len(values))

    throughput = {"mean": filled(_rates(series.throughput, shares, step))}
    if step > 1:
        throughput |= {"low": filled(_each(rates, step, min))}
        throughput |= {"high": filled(_each(rates, step, max))}
    return {
        "throughput": throughput,
        "failed": filled(_rates(series.failed, shares, step)),
        "in_use": filled(_each(whole(series.in_use), step, max)),
        "waiting": filled(_each(whole(series.waiting), step, max)),
        "pool_size": run.pool.size if run.pool else 0,
    }


def _rates(counts: Sequence[int], shares: Sequence[float], step: int) -> Values:
    """Return the mean rate in each `step` seconds."""
    seconds = [sum(shares[n : n + step]) for n in range(0, len(shares), step)]
    totals = [sum(counts[n : n + step]) for n in range(0, len(counts), step)]
    return [
        _short(total / time) if time >= _SHORTEST else None
        for total, time in zip(totals, seconds, strict=True)
    ]


def _each(
    values: Sequence[float | None], step: int, pick: Callable[[list[float]], float]
) -> Values:
    """Return one of the values in each `step` seconds."""
    steps = (values[n : n + step] for n in range(0, len(values), step))
    known = [[value for value in each if value is not None] for each in steps]
    return [_short(pick(each)) if each else None for each in known]


def _slices(slices: Slices, seconds: float) -> dict[str, Any]:
    """Return percentiles over time; there are at most 128 slices, whatever the run's length."""
    count = sum(one.count for row in slices.by_operation.values() for one in row)
    while slices.length > _FEWEST_SLICES and count < _LATENCIES * slices.length:
        slices = slices.halved()
    width = slices.width
    each = slices.by_operation
    buckets = {name: [one.buckets() for one in row] for name, row in each.items()}
    buckets[ALL] = [sum_of_buckets(column) for column in zip(*buckets.values(), strict=True)]
    ends = [min(seconds, (n + 1) * width) for n in range(slices.length)]
    return {
        "seconds": [_short((n * width + end) / 2) for n, end in enumerate(ends)],
        "by_operation": {
            name: {
                figure: [
                    _short(percentile_ns(found, percentile) / 1e6) if found else None
                    for found in row
                ]
                for figure, percentile in _FIGURES.items()
            }
            for name, row in buckets.items()
        },
    }


# --- by percentile -------------------------------------------------------------------------


def _inverse(count: int) -> Iterator[float]:
    """Yield 1 / (1 - share), a given number of them to each doubling, as far as `count` tells."""
    steps = 0
    while (inverse := 2 ** (steps / _STEPS)) < count:
        yield inverse
        steps += 1
    yield float(max(count, 1))


def _percentiles(run: RunResult, inverse: Sequence[float]) -> dict[str, Values]:
    """Return latencies in milliseconds: of all operations, and of each where there are more."""
    histograms = {ALL: run.latency()}
    if len(run.by_operation) > 1:
        histograms |= {name: o.histogram for name, o in run.by_operation.items()}
    return {name: _curve(h, inverse) for name, h in histograms.items() if h.count}


def _curve(histogram: Histogram, inverse: Sequence[float]) -> Values:
    """Return the latency at each percentile that so many latencies can tell."""
    told = [x for x in inverse if x <= histogram.count or x == 1]
    found = histogram.percentiles_ns([100 - 100 / x for x in told])
    known: Values = [_short(found[100 - 100 / x] / 1e6) for x in told]
    return known + [None] * (len(inverse) - len(known))


def _short(value: float) -> float:
    """Return the value with the five digits that a chart can show."""
    return float(f"{value:.5g}")
