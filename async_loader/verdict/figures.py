"""The figures of a result that a threshold or a check can be about, found by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..results.histogram import Histogram, sum_of
from ..results.parts import OperationResult
from ..results.run import RunResult

Operations = list[OperationResult]

# Metrics whose rate is a share, from 0 to 1: only these are written and shown in %.
SHARES = ("errors", "checks", "dropped")
PERCENTILE = re.compile(r"p\((\d+(?:\.\d+)?)\)")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a result; `text` is how the user wrote what it is asked for."""

    text: str
    metric: str
    operation: str | None
    aggregate: str


def _durations(part: str) -> Callable[[Operations], Histogram]:
    def histogram(operations: Operations) -> Histogram:
        if part == "histogram":
            return sum_of(*(o.histogram for o in operations))
        return sum_of(*(getattr(o.split, part) for o in operations if o.split is not None))

    return histogram


TRENDS: dict[str, Callable[[Operations], Histogram]] = {
    "op_duration": _durations("histogram"),
    "pool_wait": _durations("pool_wait"),
    "db_time": _durations("database"),
    "orm_time": _durations("orm"),
    "connect_time": _durations("connect"),
    "ping_time": _durations("ping"),
    "app_time": _durations("application"),
    "elsewhere_time": _durations("elsewhere"),
    "loop_queue": _durations("loop_queue"),
}
DURATIONS = (*TRENDS, "schedule_lag")
AGGREGATES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(DURATIONS, ("p(N)", "avg", "med", "min", "max", "count")),
    "statements": ("avg", "max", "count"),
    "errors": ("rate", "count"),
    "checks": ("rate", "count"),
    "ops": ("rate", "count"),
    "dropped": ("rate", "count"),
}


def figure_of(result: RunResult, threshold: Figure) -> float | None:
    """Return the figure that a threshold is about, None where there is none."""
    if threshold.metric == "checks":
        return _of_checks(result, threshold)
    operations = operations_of(result, threshold.operation)
    if not any(o.due for o in operations):
        return None  # of nothing there is no figure, not even a 0
    metric, aggregate = threshold.metric, threshold.aggregate
    if metric in TRENDS:
        return _of_trend(TRENDS[metric](operations), aggregate)
    return _OTHERS[metric](result, operations, aggregate)


def figure_text(figure: Figure, value: float | None) -> str:
    """Return a figure's value in the unit of its metric."""
    if value is None:
        return "no figure"
    if figure.metric in DURATIONS and figure.aggregate != "count":
        return f"{value:,.4g} ms"
    if figure.metric in SHARES and figure.aggregate == "rate":
        return f"{value * 100:.4g}%"
    return f"{value:,.0f}" if figure.aggregate == "count" else f"{value:,.4g}"


def percentile_in(aggregate: str) -> float | None:
    """Return the percentile (0 to 100) that an aggregate is, None where it is another one."""
    match = PERCENTILE.fullmatch("p(50)" if aggregate == "med" else aggregate)
    return float(match[1]) if match else None


def samples_of(result: RunResult, figure: Figure) -> int | None:
    """Return how many durations a figure of durations is of, None where it is of none."""
    histogram = durations_of(result, figure)
    return None if histogram is None else histogram.count


def durations_of(result: RunResult, figure: Figure) -> Histogram | None:
    """Return the durations that a figure is of, None where it is of none of an operation's."""
    if figure.metric not in TRENDS:
        return None
    return TRENDS[figure.metric](operations_of(result, figure.operation))


def operations_of(result: RunResult, name: str | None) -> Operations:
    """Return the operation of that name, all of them for None."""
    if name is None:
        return list(result.by_operation.values())
    named = result.by_operation.get(name)
    return [] if named is None else [named]


def _of_trend(histogram: Histogram, aggregate: str) -> float | None:
    if not histogram.count:
        return None
    percentile = percentile_in(aggregate)
    if percentile is not None:
        return histogram.percentiles_ns([percentile])[percentile] / 1e6
    return _OF_HISTOGRAM[aggregate](histogram)


# Each passes over a histogram, the mean for milliseconds: only what is asked for is worked out.
_OF_HISTOGRAM: dict[str, Callable[[Histogram], float]] = {
    "avg": lambda histogram: histogram.mean_ns / 1e6,
    "min": lambda histogram: histogram.min_ns / 1e6,
    "max": lambda histogram: histogram.max_ns / 1e6,
    "count": lambda histogram: float(histogram.count),
}


def _of_statements(_result: RunResult, operations: Operations, aggregate: str) -> float | None:
    splits = [o.split for o in operations if o.split is not None]
    timed = sum(split.count for split in splits)
    if not timed:
        return None
    total = sum(split.statements for split in splits)
    if aggregate == "max":
        return float(max(split.most_statements for split in splits))
    return total / timed if aggregate == "avg" else float(total)


def _of_errors(_result: RunResult, operations: Operations, aggregate: str) -> float | None:
    bad = sum(o.failed + o.indeterminate for o in operations)
    if aggregate == "count":
        return float(bad)
    ended = bad + sum(o.count for o in operations)
    return bad / ended if ended else None


def _of_ops(result: RunResult, operations: Operations, aggregate: str) -> float | None:
    count = sum(o.count for o in operations)
    return count / result.seconds if aggregate == "rate" and result.seconds else float(count)


def _of_lag(result: RunResult, _operations: Operations, aggregate: str) -> float | None:
    return _of_trend(result.schedule.lag, aggregate) if result.schedule else None


def _of_dropped(result: RunResult, operations: Operations, aggregate: str) -> float | None:
    if result.schedule is None:
        return None  # nothing was ever due
    dropped = sum(o.dropped for o in operations)
    if aggregate == "count":
        return float(dropped)
    due = dropped + sum(o.count + o.failed + o.indeterminate for o in operations)
    return dropped / due if due else None


_OTHERS: dict[str, Callable[[RunResult, Operations, str], float | None]] = {
    "statements": _of_statements,
    "errors": _of_errors,
    "ops": _of_ops,
    "schedule_lag": _of_lag,
    "dropped": _of_dropped,
}


def _of_checks(result: RunResult, threshold: Figure) -> float | None:
    """Return the share of checks that held, or how many did; `{op:...}` is a check's name."""
    checks = [c for n, c in result.checks.items() if threshold.operation in (None, n)]
    passed = sum(check.passed for check in checks)
    made = passed + sum(check.failed for check in checks)
    if not made:
        return None
    return passed / made if threshold.aggregate == "rate" else float(passed)
