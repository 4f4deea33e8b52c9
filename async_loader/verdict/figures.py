"""The figures of a result that a threshold or a check can be about, found by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..results.histogram import Histogram, sum_of
from ..results.parts import OperationResult
from ..results.run import RunResult
from .over_time import When, figure_over, samples_over

Operations = list[OperationResult]

# Metrics whose rate is a share, from 0 to 1: only these are written and shown in %.
SHARES = ("errors", "checks", "dropped", "retries", "after_commit", "late")
# Metrics of the whole run, of which no operation has a part of its own.
OF_ALL = {
    "schedule_lag": "the schedule is one for all operations",
    "server_time": "the server's account is of all operations",
    "server_rows": "the server's account is of all operations",
}
PERCENTILE = re.compile(r"p\((\d+(?:\.\d+)?)\)")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a result; `text` is how the user wrote what it is asked for."""

    text: str
    metric: str
    operation: str | None
    aggregate: str
    tags: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    when: When = field(default=When(), kw_only=True)

    @property
    def is_high_worse(self) -> bool:
        """Whether a figure gets worse upwards, by what is asked of it."""
        return True


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
DURATIONS = (*TRENDS, "schedule_lag", "server_time")
AGGREGATES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(DURATIONS, ("p(N)", "avg", "med", "min", "max", "count")),
    "server_time": ("avg",),
    "server_rows": ("avg", "count"),
    "statements": ("avg", "max", "count"),
    "n_plus_one": ("max", "count"),
    "retries": ("rate", "count"),
    "after_commit": ("rate", "count"),
    "late": ("rate", "count"),
    "errors": ("rate", "count"),
    "checks": ("rate", "count"),
    "ops": ("rate", "count"),
    "dropped": ("rate", "count"),
}


def figure_of(result: RunResult, threshold: Figure) -> float | None:
    """Return the figure that a threshold is about, None where there is none."""
    if threshold.metric == "checks":
        return _of_checks(result, threshold)
    operations = operations_of(result, threshold)
    if not any(o.due for o in operations):
        return None  # of nothing there is no figure, not even a 0
    metric, aggregate = threshold.metric, threshold.aggregate
    if not threshold.when.is_always:
        names, high = names_of(result, threshold), threshold.is_high_worse
        return figure_over(result, names, metric, aggregate, threshold.when, high=high)
    if metric == "n_plus_one":
        return _of_repeats(result, threshold, operations)
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
    if figure.metric not in TRENDS:
        return None
    if not figure.when.is_always:
        return samples_over(result, names_of(result, figure), figure.when)
    return TRENDS[figure.metric](operations_of(result, figure)).count


def durations_of(result: RunResult, figure: Figure) -> Histogram | None:
    """Return the durations that a figure is of, None where it is of none of an operation's."""
    if figure.metric not in TRENDS:
        return None
    return TRENDS[figure.metric](operations_of(result, figure))


def names_of(result: RunResult, figure: Figure) -> list[str]:
    """Return the names of the operations that a figure is about."""
    wanted = set(figure.tags)
    return [
        name
        for name, operation in result.by_operation.items()
        if figure.operation in (None, name) and wanted <= set((operation.tags or {}).items())
    ]


def operations_of(result: RunResult, figure: Figure) -> Operations:
    """Return the operations that a figure is about."""
    return [result.by_operation[name] for name in names_of(result, figure)]


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


def _share_or_count(
    count: Callable[[OperationResult], int],
) -> Callable[[RunResult, Operations, str], float | None]:
    """Return what counts something of operations, or its share of those that began."""

    def figure(_result: RunResult, operations: Operations, aggregate: str) -> float | None:
        counted = sum(count(operation) for operation in operations)
        started = sum(operation.started for operation in operations)
        if aggregate == "count":
            return float(counted)
        return counted / started if started else None

    return figure


def _of_retries(result: RunResult, operations: Operations, aggregate: str) -> float | None:
    """Return the tries after the first, or the share of operations that took more than one."""
    count = _RETRIES if aggregate == "count" else _RETRIED
    return count(result, operations, aggregate)


_RETRIES = _share_or_count(lambda operation: operation.retries)
_RETRIED = _share_or_count(lambda operation: operation.retried)


def _of_late(result: RunResult, operations: Operations, aggregate: str) -> float | None:
    if result.settings and result.settings.get("latency_limit") is None:
        return None  # nothing was ever late
    return _LATE(result, operations, aggregate)


_LATE = _share_or_count(lambda operation: operation.late)


def _of_server_time(result: RunResult, operations: Operations, _aggregate: str) -> float | None:
    side, started = result.server_side, sum(operation.started for operation in operations)
    return side.total_ms / started if side and side.total_ms is not None and started else None


def _of_server_rows(result: RunResult, operations: Operations, aggregate: str) -> float | None:
    side, started = result.server_side, sum(operation.started for operation in operations)
    if side is None or side.rows is None or not started:
        return None
    return float(side.rows) if aggregate == "count" else side.rows / started


def _of_repeats(result: RunResult, figure: Figure, operations: Operations) -> float | None:
    """Return how many statements are an N+1, or how often one operation sent the worst."""
    looked = any(operation.split is not None for operation in operations)
    if not looked or result.settings.get("n_plus_one") == 0:
        return None
    names = names_of(result, figure)
    found = [one for one in result.repeated_statements if one.operation in names]
    if figure.aggregate == "count":
        return float(len(found))
    return float(max((one.most for one in found), default=0))


_OTHERS: dict[str, Callable[[RunResult, Operations, str], float | None]] = {
    "statements": _of_statements,
    "retries": _of_retries,
    "after_commit": _share_or_count(lambda operation: operation.after_commit),
    "late": _of_late,
    "server_time": _of_server_time,
    "server_rows": _of_server_rows,
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
