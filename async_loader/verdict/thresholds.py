"""
Thresholds on a result, in the grammar of k6: `metric{op:name}:aggregate<value`.

    op_duration{op:checkout}:p(95)<50ms      errors:rate<0.1%      ops:rate>=500

Durations take us, ms (the default) or s; shares take %. Without `{op:...}` a threshold is
about all operations together; `{team:billing}` are those of a tag, `{stage:2}` is a stage. Behind
the bound may stand `after 30s`, a warm-up of its own, and `for 10s`: so long it has to be broken.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..results.run import RunResult
from .figures import AGGREGATES, DURATIONS, OF_ALL, PERCENTILE, SHARES, Figure, figure_of
from .over_time import METRICS, When

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
_VALUE = re.compile(
    r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s|%)?"
    r"(?:\s+after\s+(\d+(?:\.\d+)?)\s*(ms|s|m|h))?(?:\s+for\s+(\d+(?:\.\d+)?)\s*(ms|s|m|h))?"
)
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
# `op:` is the last but for a stage: a name may hold commas and colons.
_SELECTORS = re.compile(r"(?P<before>(?:(?!op:)\w+:[^,]*,)*)(?P<last>.*)", re.S)


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

    @property
    def is_high_worse(self) -> bool:
        """Whether a figure gets worse upwards: what bounds it from above says so."""
        return not self.is_lower

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
    value, when = _value(text, right, figure)
    if when.lasting and comparison == "==":
        raise wrong(text, len(text) - len(right), "what lasts is above or below a bound")
    return Threshold(
        text,
        figure.metric,
        figure.operation,
        figure.aggregate,
        comparison,
        value,
        tags=figure.tags,
        when=when,
    )


def parse_figure(text: str, left: str) -> Figure:
    """Return the figure that `left`, the beginning of the text, names; raises as `parse`."""
    selector, _, aggregate = left.partition(":") if "{" not in left else _after_brace(left)
    metric, operation, tags, stage = _selector(text, selector.strip())
    aggregate = aggregate.strip()
    if metric not in AGGREGATES:
        known = _listed(AGGREGATES, metric)
        raise wrong(text, 0, f"unknown metric {metric!r}; the metrics are {known}")
    if metric in OF_ALL and (operation is not None or tags):
        raise wrong(text, len(metric), OF_ALL[metric])
    if metric == "checks" and tags:
        raise wrong(text, len(metric), "a check has a name, and no tags")
    _check_aggregate(text, left, metric, aggregate)
    if stage is not None and metric not in METRICS:
        raise wrong(text, len(metric), _OVER_TIME)
    return Figure(text, metric, operation, aggregate, tags=tags, when=When(stage))


def broken_so_far(result: RunResult, thresholds: Iterable[Threshold]) -> list[Threshold]:
    """
    Return what does not hold in a run that is still going on.

    What can only be told at its end is left until then: a figure that does not exist yet, and a
    count that has yet to be reached.
    """
    final = [t for t in thresholds if t.aggregate != "count" or t.comparison in ("<", "<=")]
    figures = ((threshold, figure_of(result, threshold)) for threshold in final)
    return [t for t, figure in figures if figure is not None and not t.holds(figure)]


def check_names(
    thresholds: Iterable[Figure], operations: Mapping[str, Mapping[str, str]], stages: int = 0
) -> None:
    """
    Raise `ConfigurationError` for one that is about an operation, tag or stage that there is not.

    `operations` are their tags by their names.
    """
    known = list(operations)
    for threshold in thresholds:
        _check_tags(threshold, operations)
        if (threshold.when.stage or 0) > stages:
            there_are = f"there are {stages}" if stages else "the load has no stages"
            place = max(threshold.text.find("stage:"), 0)
            raise wrong(threshold.text, place, f"no stage {threshold.when.stage}: {there_are}")
        name = threshold.operation
        # A check gets its name when it is made: nobody knows it before.
        if name is not None and threshold.metric != "checks" and name not in known:
            place = threshold.text.find(name)
            raise wrong(
                threshold.text,
                max(place, 0),
                f"no operation {name!r}; the operations are {_listed(known, name)}",
            )


def _check_tags(figure: Figure, operations: Mapping[str, Mapping[str, str]]) -> None:
    wanted = set(figure.tags)
    if wanted and not any(wanted <= set(tags.items()) for tags in operations.values()):
        known = dict.fromkeys(f"{k}:{v}" for tags in operations.values() for k, v in tags.items())
        there_are = f"The tags are {', '.join(known)}" if known else "no operation has tags"
        first = f"{figure.tags[0][0]}:{figure.tags[0][1]}"
        place = max(figure.text.find(first), 0)
        raise wrong(figure.text, place, f"no operation is tagged so: {there_are}")


def _after_brace(left: str) -> tuple[str, str, str]:
    """Split behind the last brace: a name may have its own, as in `GET /orders/{order_id}`."""
    if "}" not in left:
        return left, "", ""
    selector, brace, rest = left.rpartition("}")
    return selector + brace, ":", rest.lstrip().removeprefix(":")


_Selector = tuple[str, str | None, tuple[tuple[str, str], ...], int | None]


def _selector(text: str, selector: str) -> _Selector:
    """Return the metric, and which operation, tags and stage of it are meant."""
    metric, brace, inner = selector.partition("{")
    if not brace:
        return metric, None, (), None
    if not inner.endswith("}"):
        raise wrong(text, len(selector), "expected } after the operation's name")
    operation, stage, tags = None, None, []
    for key, value in _pairs(inner[:-1]):
        if not key or not value or (key == "stage" and not re.fullmatch("[1-9]\\d*", value)):
            raise wrong(
                text, len(metric) + 1, "expected op:NAME, stage:NUMBER or TAG:VALUE in the braces"
            )
        if key == "op":
            operation = value
        elif key == "stage":
            stage = int(value)
        else:
            tags.append((key, value))
    return metric.strip(), operation, tuple(tags), stage


def _pairs(inner: str) -> Iterator[tuple[str, str]]:
    """Yield what is between braces: tags and a stage by commas, an operation's name as it is."""
    found = _SELECTORS.fullmatch(inner.strip())
    assert found is not None
    for pair in filter(None, found["before"].split(",")):
        key, _, value = pair.partition(":")
        yield key.strip(), value.strip()
    last, staged = found["last"], re.fullmatch(r"(.*),\s*stage:(\d+)", found["last"], re.S)
    if staged is not None and last.lstrip().startswith("op:"):
        last = staged[1]
        yield "stage", staged[2]
    key, colon, value = last.strip().partition(":")
    yield (key.strip(), value.strip()) if colon else ("", "")


def _check_aggregate(text: str, left: str, metric: str, aggregate: str) -> None:
    allowed = AGGREGATES[metric]
    match = PERCENTILE.fullmatch(aggregate)
    if match and "p(N)" in allowed and 0 < float(match[1]) <= 100:
        return
    if aggregate not in allowed or aggregate == "p(N)":
        place = left.rindex(aggregate)  # an empty one is found at the very end
        choices = ", ".join(allowed)
        raise wrong(text, place, f"{metric} has the aggregates {choices}")


_OVER_TIME = f"over time and by stages there are {', '.join(sorted(METRICS))}"


def _value(text: str, right: str, figure: Figure) -> tuple[float, When]:
    """Return the bound, and of which time the figure is to be."""
    metric, aggregate = figure.metric, figure.aggregate
    match = _VALUE.fullmatch(right.strip())
    place = len(text) - len(right)
    if match is None:
        raise wrong(text, place, "expected a number, with a unit such as ms, s or %")
    unit = match[2] or ""
    timed = metric in DURATIONS and aggregate != "count"
    if (unit in _OF_DURATIONS and not timed) or (unit == "%" and metric not in SHARES):
        raise wrong(text, place, f"{metric}:{aggregate} is not measured in {unit}")
    after, lasting = (
        float(number) * _SECONDS[unit] if number else 0.0
        for number, unit in ((match[3], match[4]), (match[5], match[6]))
    )
    if (after or lasting) and metric not in METRICS:
        raise wrong(text, place, _OVER_TIME)
    return float(match[1]) / _UNITS[unit], When(figure.when.stage, after, lasting)


def wrong(text: str, place: int, problem: str) -> ConfigurationError:
    """Return the error of an expression, its wrong place marked."""
    return ConfigurationError(f"in {text[:place]}▶{text[place:]}: {problem}")


def _listed(names: Iterable[str], meant: str) -> str:
    """Return names in a line, and the one that was probably meant."""
    known = list(names)
    close = difflib.get_close_matches(meant, known, n=1)
    return ", ".join(known) + (f" (did you mean {close[0]}?)" if close else "")
