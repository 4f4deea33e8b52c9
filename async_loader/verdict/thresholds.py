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
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..results.run import RunResult
from .figures import AGGREGATES, DURATIONS, PERCENTILE, SHARES, Figure, figure_of

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
_OF_DURATIONS = {"us", "µs", "ms", "s"}
_TOKENS = re.compile(r"(<=|>=|==|<|>)")
_VALUE = re.compile(r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s|%)?")


@dataclass(frozen=True, slots=True)
class Threshold(Figure):
    """One bound on one figure."""

    comparison: str
    value: float

    @property
    def is_upper(self) -> bool:
        """Whether it bounds the figure from above, and from below not."""
        return self.comparison in ("<", "<=")

    @property
    def is_lower(self) -> bool:
        """Whether it bounds the figure from below, and from above not."""
        return self.comparison in (">", ">=")

    def holds(self, figure: float) -> bool:
        """Return whether a figure keeps to it."""
        return _OPERATORS[self.comparison](figure, self.value)


def parse(text: str) -> Threshold:
    """Return the threshold; raises `ConfigurationError` that marks the wrong place by `▶`."""
    named = text.rfind("}") + 1  # a name may hold what compares: "GET /a<b>"
    left, *rest = _TOKENS.split(text[named:], maxsplit=1)
    if not rest:
        raise wrong(text, len(text), f"expected a comparison, one of {' '.join(_OPERATORS)}")
    comparison, right = rest
    figure = parse_figure(text, text[:named] + left)
    value = _value(text, right, figure.metric, figure.aggregate)
    return Threshold(text, figure.metric, figure.operation, figure.aggregate, comparison, value)


def parse_figure(text: str, left: str) -> Figure:
    """Return the figure that `left`, the beginning of the text, names; raises as `parse`."""
    selector, _, aggregate = left.partition(":") if "{" not in left else _after_brace(left)
    metric, operation = _selector(text, selector.strip())
    aggregate = aggregate.strip()
    if metric not in AGGREGATES:
        raise wrong(
            text, 0, f"unknown metric {metric!r}; the metrics are {_listed(AGGREGATES, metric)}"
        )
    if metric == "schedule_lag" and operation is not None:
        raise wrong(text, len(metric), "the schedule is one for all operations")
    _check_aggregate(text, left, metric, aggregate)
    return Figure(text, metric, operation, aggregate)


def broken_so_far(result: RunResult, thresholds: Iterable[Threshold]) -> list[Threshold]:
    """
    Return what does not hold in a run that is still going on.

    What can only be told at its end is left until then: a figure that does not exist yet, and a
    count that has yet to be reached.
    """
    final = [t for t in thresholds if t.aggregate != "count" or t.comparison in ("<", "<=")]
    figures = ((threshold, figure_of(result, threshold)) for threshold in final)
    return [t for t, figure in figures if figure is not None and not t.holds(figure)]


def check_names(thresholds: Iterable[Figure], operations: Iterable[str]) -> None:
    """Raise `ConfigurationError` for one that is about an operation that there is not."""
    known = list(operations)
    for threshold in thresholds:
        name = threshold.operation
        # A check gets its name when it is made: nobody knows it before.
        if name is not None and threshold.metric != "checks" and name not in known:
            place = threshold.text.find(name)
            raise wrong(
                threshold.text,
                max(place, 0),
                f"no operation {name!r}; the operations are {_listed(known, name)}",
            )


def _after_brace(left: str) -> tuple[str, str, str]:
    """Split behind the last brace: a name may have its own, as in `GET /orders/{order_id}`."""
    if "}" not in left:
        return left, "", ""
    selector, brace, rest = left.rpartition("}")
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
    allowed = AGGREGATES[metric]
    match = PERCENTILE.fullmatch(aggregate)
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
    timed = metric in DURATIONS and aggregate != "count"
    if (unit in _OF_DURATIONS and not timed) or (unit == "%" and metric not in SHARES):
        raise wrong(text, place, f"{metric}:{aggregate} is not measured in {unit}")
    return float(match[1]) / _UNITS[unit]


def wrong(text: str, place: int, problem: str) -> ConfigurationError:
    """Return the error of an expression, its wrong place marked."""
    return ConfigurationError(f"in {text[:place]}▶{text[place:]}: {problem}")


def _listed(names: Iterable[str], meant: str) -> str:
    """Return names in a line, and the one that was probably meant."""
    known = list(names)
    close = difflib.get_close_matches(meant, known, n=1)
    return ", ".join(known) + (f" (did you mean {close[0]}?)" if close else "")
