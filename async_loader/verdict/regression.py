"""
A result against a baseline: what changed, and whether that is more than noise.

    op_duration{op:checkout}:p(95):10%      ops:rate:5%      errors:rate:0.5%

A check names a figure in the grammar of thresholds and by how much it may get worse: longer,
fewer operations a second, more errors (in percentage points of the operations). It is a
regression only when the whole 95 % interval of the change lies past that tolerance.

With one baseline the interval holds the noise within the two runs. Runs of the same code
differ by more (what else the machine did), and of that one baseline tells nothing: the
tolerance must allow for it. Several baselines tell it, and widen the interval by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, exp, inf, log, sqrt
from statistics import fmean

from ..results.changes import Change, Comparison, Finding, Unit
from ..results.run import RunResult
from .bootstrap import (
    BLOCKS,
    FEWEST_BLOCKS,
    Draw,
    Statistic,
    Weights,
    blocks_of,
    correlation_time,
    error_share_of,
    influences,
    interval,
    mean_of,
    percentile_of,
    rate_of,
)
from .circumstances import differences
from .figures import Figure, figure_of, percentile_in
from .thresholds import parse_figure, wrong

# So many operations must lie beyond a percentile before it is held against another.
FEWEST_BEYOND = 20
FEWEST_SLICES = 16
# A run this many times as long is no advice.
_MOST_TIMES = 50
_TOLERANCE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")
_COMPARED = "op_duration (p(N) below 100, med, avg), ops:rate and errors:rate"
_USUAL = ("op_duration{{op:{}}}:med:10%", "op_duration{{op:{}}}:p(95):10%")


@dataclass(frozen=True, slots=True)
class Check:
    """
    By how much a figure may get worse: 0.1 is by a tenth, of shares by 0.1.

    A share's change is a difference, not a ratio: it may well have been 0. The others are
    compared by their logarithms, on which ratios are differences too.
    """

    text: str
    figure: Figure
    tolerance: float
    fails: bool = True

    @property
    def of_shares(self) -> bool:
        """Whether the figure is a share."""
        return self.figure.metric == "errors"

    @property
    def less_is_worse(self) -> bool:
        """Whether a regression points downwards."""
        return self.figure.metric == "ops"

    @property
    def unit(self) -> Unit:
        """What its figures are measured in."""
        return "share" if self.of_shares else "/s" if self.less_is_worse else "ms"

    def scaled(self, figure: float | None) -> float | None:
        """Return a figure on the scale on which it is compared; None where it has no place."""
        if figure is None or self.of_shares:
            return figure
        return log(figure) if figure > 0 else None

    def unscaled(self, place: float) -> float:
        """Return the figure at a place of that scale."""
        return place if self.of_shares else exp(place)

    def bounds(self) -> tuple[float, float]:
        """Return the distances at which a change is too bad, and as good as that."""
        sign = -1 if self.less_is_worse else 1
        if self.of_shares:
            return self.tolerance, -self.tolerance
        bad, good = 1 + sign * self.tolerance, 1 - sign * self.tolerance
        return (log(bad) if bad > 0 else -inf), (log(good) if good > 0 else -inf)

    def as_change(self, distance: float) -> float:
        """Return a distance on that scale as a change: relative, of shares the difference."""
        return distance if self.of_shares else exp(distance) - 1


def parse_check(text: str, *, fails: bool = True) -> Check:
    """Return the check; raises `ConfigurationError` that marks the wrong place by `▶`."""
    left, colon, right = text.rpartition(":")
    tolerance = _TOLERANCE.fullmatch(right)
    if not colon or tolerance is None:
        raise wrong(text, len(left) + len(colon), "expected a tolerance in %, such as 10%")
    figure = parse_figure(text, left)
    if figure.tags or not figure.when.is_always:
        raise wrong(text, 0, "what is compared with a baseline is of an operation, or of all")
    percentile = percentile_in(figure.aggregate)
    if figure.metric == "op_duration":
        comparable = figure.aggregate == "avg" or (percentile is not None and percentile < 100)
    else:
        comparable = figure.metric in ("ops", "errors") and figure.aggregate == "rate"
    if not comparable:
        raise wrong(text, 0, f"what is compared with a baseline is {_COMPARED}")
    return Check(text, figure, float(tolerance[1]) / 100, fails)


def usual_checks(result: RunResult) -> list[Check]:
    """Return what is shown where nothing is asked for; it fails no run."""
    names = [name for name, operation in result.by_operation.items() if operation.count]
    texts = [usual.format(name) for name in names for usual in _USUAL]
    return [parse_check(t, fails=False) for t in (*texts, "ops:rate:10%", "errors:rate:1%")]


def compare_with(
    baselines: Mapping[str, RunResult], result: RunResult, checks: Iterable[Check] = ()
) -> Comparison:
    """
    Return what changed since the baselines, results by the names of their files.

    Without checks the usual figures are shown, and none of them fails the run.
    """
    earlier = list(baselines.values())
    asked = list(checks) or usual_checks(result)
    return Comparison(
        baselines=tuple(baselines),
        differences=tuple(differences(baselines, result)),
        changes=tuple(_change(check, earlier, result) for check in asked),
    )


def _change(check: Check, earlier: Sequence[RunResult], result: RunResult) -> Change:
    now = figure_of(result, check.figure)
    change = Change(check.text, check.unit, check.tolerance, check.fails, now=now)
    places = [check.scaled(figure_of(one, check.figure)) for one in (*earlier, result)]
    before, here = [place for place in places[:-1] if place is not None], places[-1]
    if here is None or len(before) < len(earlier):
        where = "this run" if here is None else "the baseline"
        return replace(change, reason=f"{where} has no such figure")
    middle = fmean(before)
    change = replace(change, before=check.unscaled(middle), change=check.as_change(here - middle))
    if reason := _too_few(check, (*earlier, result)):
        return replace(change, reason=reason)
    found = _interval(check, earlier, result, here - middle)
    if isinstance(found, str):
        return replace(change, reason=found)
    low, high = found
    return replace(
        change,
        low=check.as_change(low),
        high=check.as_change(high),
        finding=_finding(check, low, high),
        reason=_what_would_tell(check, here - middle, low, high),
    )


def _too_few(check: Check, runs: Sequence[RunResult]) -> str:
    """Return why the runs have too little to compare, empty where they have enough."""
    if any(run.slices is None for run in runs):
        return "the result of an older version has no slices of time"
    shortest = min(run.slices.length for run in runs if run.slices)
    if shortest < FEWEST_SLICES:
        return "too few data: a run must last two seconds or more"
    percentile = percentile_in(check.figure.aggregate)
    if percentile is None:
        return ""
    needed = ceil(FEWEST_BEYOND / (1 - percentile / 100))
    counts = Figure(check.text, check.figure.metric, check.figure.operation, "count")
    fewest = min(figure_of(run, counts) or 0 for run in runs)
    return f"too few data: {fewest:,.0f} of {needed:,} operations" if fewest < needed else ""


class _Distance:
    """How far a result lies from the middle of its baselines, all in so many parts of time."""

    def __init__(
        self, check: Check, earlier: Sequence[RunResult], result: RunResult, parts: int
    ) -> None:
        *self._before, self._now = (_statistic(check, run, parts) for run in (*earlier, result))
        once = (1,) * parts
        each = [statistic(once) or 0.0 for statistic in self._before]
        self.count = len(each)
        # Deviations from a mean of so few are too small by this.
        widen = sqrt(self.count / (self.count - 1)) if self.count > 1 else 0.0
        self._deviations = [widen * (one - fmean(each)) for one in each]

    def of(self, weights: Weights) -> float | None:
        """Return the distance when parts count as often as their weight."""
        return self._to(weights, range(self.count))

    def drawn(self, draw: Draw) -> float | None:
        """
        Return the distance in a draw: of its parts, from the middle of its baselines.

        It adds how far one of the baselines lies from the middle of all: this run may lie
        as far from it by itself.
        """
        distance = self._to(draw.weights, draw.runs)
        return None if distance is None else distance + self._deviations[draw.stand_in]

    def _to(self, weights: Weights, runs: Sequence[int]) -> float | None:
        now = self._now(weights)
        found = {run: self._before[run](weights) for run in set(runs)}  # drawn twice, they are one
        before = [found[run] for run in runs]
        known = [place for place in before if place is not None]
        return None if now is None or len(known) < len(before) else now - fmean(known)


def _interval(
    check: Check, earlier: Sequence[RunResult], result: RunResult, exact: float
) -> tuple[float, float] | str:
    """Return the interval of the distance, moved to the exact one; or why there is none."""
    shortest = min(run.slices.length for run in (*earlier, result) if run.slices)
    finest = _Distance(check, earlier, result, shortest)
    lasting = correlation_time(influences(finest.of, shortest))
    independent = shortest / (2 * lasting)
    blocks = max(FEWEST_BLOCKS, min(BLOCKS, int(independent)))
    distance = _Distance(check, earlier, result, blocks)
    found = interval(distance.drawn, blocks, distance.count)
    if found is None:
        return "too few data: there are parts of the run without any operation"
    # Where the noise lasts for longer than a block, the blocks are fewer witnesses than they
    # are many: by the root of this, and as much again as their spread is known less well.
    widen = max(1.0, blocks / independent)
    middle = distance.of((1,) * blocks) or 0.0
    return exact + widen * (found[0] - middle), exact + widen * (found[1] - middle)


def _statistic(check: Check, result: RunResult, blocks: int) -> Statistic:
    """Return how the check's figure is made of a drawing of the result's blocks, scaled."""
    assert result.slices is not None
    where = (result.slices, result.seconds, blocks, check.figure.operation)
    percentile = percentile_in(check.figure.aggregate)
    if check.less_is_worse:
        plain = rate_of(*where)
    elif check.of_shares:
        plain = error_share_of(blocks_of(*where))
    elif percentile is None:
        plain = mean_of(blocks_of(*where))
    else:
        plain = percentile_of(blocks_of(*where), percentile)
    return lambda weights: check.scaled(plain(weights))


def _finding(check: Check, low: float, high: float) -> Finding:
    worst, best = check.bounds()
    if check.less_is_worse:  # mirrored: what is higher is worse from here on
        low, high, worst, best = -high, -low, -worst, -best
    if low > worst:
        return "regression"
    if high < best:
        return "improved"
    return "holds" if high <= worst else "inconclusive"


def _what_would_tell(check: Check, distance: float, low: float, high: float) -> str:
    """Return why an interval tells nothing, and how much longer a run would, if it would."""
    if _finding(check, low, high) != "inconclusive":
        return ""
    noise = f"the interval holds the tolerance of {100 * check.tolerance:g} %"
    room = abs(check.bounds()[0] - distance)
    times = ((high - low) / 2 / room) ** 2 if room else inf
    if times > _MOST_TIMES:
        return f"{noise}, and the change is too near to it"
    return f"{noise}: some {max(2, ceil(times))} times the operations would tell"
