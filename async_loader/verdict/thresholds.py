"""
Thresholds on a result, in the grammar of k6: `metric{op:name}:aggregate<value`.

    op_duration{op:checkout}:p(95)<50ms      errors:rate<0.1%      ops:rate>=500

Durations take us, ms (the default) or s; shares take %. Without `{op:...}` a threshold is
about all operations together.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..histogram import Histogram, sum_of
from ..results.parts import OperationResult
from ..results.run import RunResult

Operations = list[OperationResult]

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
# Values are kept in milliseconds, shares (0 to 1) and plain numbers. Divisors, so that 95%
# is the 0.95 that 19 of 20 are.
_UNITS = {"": 1.0, "us": 1e3, "µs": 1e3, "ms": 1.0, "s": 1e-3, "%": 1e2}
_SHARES = ("errors", "checks", "dropped")
_OF_DURATIONS = {"us", "µs", "ms", "s"}
_TOKENS = re.compile(r"(<=|>=|==|<|>)")
_VALUE = re.compile(r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s|%)?")
_PERCENTILE = re.compile(r"p\((\d+(?:\.\d+)?)\)")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a result; `text` is how the user wrote what it is asked for."""

    text: str
    metric: str
    operation: str | None
    aggregate: str


@dataclass(frozen=True, slots=True)
class Threshold(Figure):
    """One bound on one figure."""

    comparison: str
    value: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A threshold, the figure it was held against (None: there is none), and whether it holds."""

    threshold: Threshold
    figure: float | None
    passed: bool


def _durations(part: str) -> Callable[[Operations], Histogram]:
    def histogram(operations: Operations) -> Histogram:
        if part == "histogram":
            return sum_of(*(o.histogram for o in operations))
        return sum_of(*(getattr(o.split, part) for o in operations if o.split is not None))

    return histogram


_TRENDS: dict[str, Callable[[Operations], Histogram]] = {
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
_DURATIONS = (*_TRENDS, "schedule_lag")
_AGGREGATES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_DURATIONS, ("p(N)", "avg", "med", "min", "max", "count")),
    "statements": ("avg", "max", "count"),
    "errors": ("rate", "count"),
    "checks": ("rate", "count"),
    "ops": ("rate", "count"),
    "dropped": ("rate", "count"),
}


def parse(text: str) -> Threshold:
    """Return the threshold; raises `ConfigurationError` that marks the wrong place by `▶`."""
    left, *rest = _TOKENS.split(text, maxsplit=1)
    if not rest:
        raise wrong(text, len(text), f"expected a comparison, one of {' '.join(_OPERATORS)}")
    comparison, right = rest
    figure = parse_figure(text, left)
    value = _value(text, right, figure.metric, figure.aggregate)
    return Threshold(text, figure.metric, figure.operation, figure.aggregate, comparison, value)


def parse_figure(text: str, left: str) -> Figure:
    """Return the figure that `left`, the beginning of the text, names; raises as `parse`."""
    selector, _, aggregate = left.partition(":") if "{" not in left else _after_brace(left)
    metric, operation = _selector(text, selector.strip())
    aggregate = aggregate.strip()
    if metric not in _AGGREGATES:
        raise wrong(text, 0, f"unknown metric {metric!r}; {_closest(metric, _AGGREGATES)}")
    if metric == "schedule_lag" and operation is not None:
        raise wrong(text, len(metric), "the schedule is one for all operations")
    _check_aggregate(text, left, metric, aggregate)
    return Figure(text, metric, operation, aggregate)


def judge(result: RunResult, thresholds: Iterable[Threshold]) -> list[Verdict]:
    """
    Hold a result against thresholds.

    A figure that does not exist (an operation that never ran, a time split that is off)
    fails its threshold: a gate must not pass on nothing.
    """
    verdicts = []
    for threshold in thresholds:
        figure = figure_of(result, threshold)
        compare = _OPERATORS[threshold.comparison]
        passed = figure is not None and compare(figure, threshold.value)
        verdicts.append(Verdict(threshold, figure, passed))
    return verdicts


def broken_so_far(result: RunResult, thresholds: Iterable[Threshold]) -> list[Verdict]:
    """
    Return what does not hold in a run that is still going on.

    What can only be told at its end is left until then: a figure that does not exist yet, and a
    count that has yet to be reached.
    """
    final = [t for t in thresholds if t.aggregate != "count" or t.comparison in ("<", "<=")]
    verdicts = judge(result, final)
    return [verdict for verdict in verdicts if verdict.figure is not None and not verdict.passed]


def verdicts_of(result: RunResult) -> list[Verdict]:
    """Hold a result against the thresholds that its own settings name."""
    return judge(result, map(parse, result.settings.get("threshold", [])))


def figure_text(verdict: Verdict) -> str:
    """Return the figure a verdict was made on, in the unit of its metric."""
    figure, threshold = verdict.figure, verdict.threshold
    if figure is None:
        return "no figure"
    if threshold.metric in _DURATIONS and threshold.aggregate != "count":
        return f"{figure:,.4g} ms"
    if threshold.metric in _SHARES and threshold.aggregate == "rate":
        return f"{figure * 100:.4g}%"
    return f"{figure:,.0f}" if threshold.aggregate == "count" else f"{figure:,.4g}"


def figure_of(result: RunResult, threshold: Figure) -> float | None:
    """Return the figure that a threshold is about, None where there is none."""
    if threshold.metric == "checks":
        return _of_checks(result, threshold)
    operations = _operations(result, threshold)
    if operations is None:
        return None
    metric, aggregate = threshold.metric, threshold.aggregate
    if metric in _TRENDS:
        return _of_trend(_TRENDS[metric](operations), aggregate)
    return _OTHERS[metric](result, operations, aggregate)


def percentile_in(aggregate: str) -> float | None:
    """Return the percentile (0 to 100) that an aggregate is, None where it is another one."""
    match = _PERCENTILE.fullmatch("p(50)" if aggregate == "med" else aggregate)
    return float(match[1]) if match else None


def samples_of(result: RunResult, figure: Figure) -> int | None:
    """Return how many durations a figure of durations is of, None where it is of none."""
    operations = _operations(result, figure)
    if operations is None or figure.metric not in _TRENDS:
        return None
    return _TRENDS[figure.metric](operations).count


def _operations(result: RunResult, figure: Figure) -> Operations | None:
    if figure.operation is None:
        return list(result.by_operation.values())
    named = result.by_operation.get(figure.operation)
    return None if named is None else [named]


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


def _after_brace(left: str) -> tuple[str, str, str]:
    selector, brace, rest = left.partition("}")
    return selector + brace, ":", rest.lstrip().removeprefix(":")


def _selector(text: str, selector: str) -> tuple[str, str | None]:
    metric, brace, tag = selector.partition("{")
    if not brace:
        return metric, None
    if not tag.endswith("}"):
        raise wrong(text, len(selector), "expected } after the operation's name")
    key, colon, name = tag[:-1].partition(":")
    if key.strip() != "op" or not colon or not name.strip():
        raise wrong(text, len(metric) + 1, "expected op:NAME between the braces")
    return metric.strip(), name.strip()


def _check_aggregate(text: str, left: str, metric: str, aggregate: str) -> None:
    allowed = _AGGREGATES[metric]
    match = _PERCENTILE.fullmatch(aggregate)
    if match and "p(N)" in allowed and 0 < float(match[1]) <= 100:
        return
    if aggregate not in allowed or aggregate == "p(N)":
        place = left.rindex(aggregate)  # an empty one is found at the very end
        choices = ", ".join(allowed)
        raise wrong(text, place, f"{metric} has the aggregates {choices}")


def _value(text: str, right: str, metric: str, aggregate: str) -> float:
    match = _VALUE.fullmatch(right.strip())
    place = len(text) - len(right)
    if match is None:
        raise wrong(text, place, "expected a number, with a unit such as ms, s or %")
    unit = match[2] or ""
    timed = metric in _DURATIONS and aggregate != "count"
    if (unit in _OF_DURATIONS and not timed) or (unit == "%" and metric not in _SHARES):
        raise wrong(text, place, f"{metric}:{aggregate} is not measured in {unit}")
    return float(match[1]) / _UNITS[unit]


def wrong(text: str, place: int, problem: str) -> ConfigurationError:
    """Return the error of an expression, its wrong place marked."""
    return ConfigurationError(f"in {text[:place]}▶{text[place:]}: {problem}")


def _closest(name: str, names: Iterable[str]) -> str:
    known = list(names)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"the metrics are {', '.join(known)}"
