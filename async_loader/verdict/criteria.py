"""
What is asked of a run, each thing with the figure it is judged by, and what comes of it.

A bound is held against the figure, and then against what speaks against the measurement, which
has a direction (see `validity.Bias`):

                      holds                                      does not hold
    inflates, starves latency below: passed, above: not measured  below: not measured
    hides             passed if it does at worst, too             failed
    loses             not measured                                failed
    few               not measured                                not measured
    no sample         -                                           failed
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from ..results.changes import Change
from ..results.notes import Stored
from ..results.part import Part
from ..results.run import Outcome, RunResult
from .figures import TRENDS, figure_of, figure_text
from .hidden import Hidden, at_worst, hidden_of
from .over_time import why_none
from .thresholds import Threshold, parse
from .validity import Bias, Doubt, doubts, few_samples

Kind = Literal["run", "errors", "threshold", "baseline", "measurement"]
Judgement = Literal["passed", "failed", "not measured"]

# What ended a run before its end.
ENDINGS: Mapping[Outcome, str] = {
    "interrupted": "somebody stopped the run before its end",
    "failed": "a broken threshold ended the run early",
    "aborted": "the run gave up: no operation succeeded any more",
    "lost": "a process of the run died",
    "hung": "the run did not end by itself, and was ended from outside",
}
# So many turns of an operation make it remarkable that none came.
_EXPECTED = 5
# Metrics that are about our own queue, which no doubt about it bends.
_OF_THE_QUEUE = ("loop_queue",)


@dataclass(frozen=True, slots=True)
class Criterion(Part):
    """One thing that is asked of a run, and whether it holds."""

    name: Annotated[str, Meta(description="as the user wrote it")]
    kind: Kind
    outcome: Judgement = "passed"
    figure: Annotated[float | None, Meta(description="in a threshold's units; null: none")] = None
    bound: float | None = None
    comparison: Annotated[
        Annotated[str, Stored(Literal["<", "<=", ">", ">=", "=="])] | None,
        Meta(description="by which the figure is held against the bound"),
    ] = None
    found: Annotated[str, Meta(description="the figure, for a reader")] = ""
    reason: Annotated[str, Meta(description="why it is not passed, or what stands beside")] = ""

    @property
    def passed(self) -> bool:
        """Whether it holds, and is known to."""
        return self.outcome == "passed"

    @property
    def sentence(self) -> str:
        """What kept it from being passed, in one sentence."""
        if self.kind == "threshold" and self.outcome == "failed":
            return f"a threshold does not hold: {self.name}: {self.reason}"
        if self.outcome == "not measured" and self.kind in ("threshold", "baseline", "errors"):
            return f"{self.name} is not measured: {self.reason}"
        return self.reason


def criteria_of(result: RunResult) -> Iterator[Criterion]:
    """Yield what a run's own settings ask of it, the run itself first."""
    yield _the_run(result)
    yield from _never_ran(result)
    allowed = result.settings.get("max_error_rate")
    if allowed is not None:
        yield _error_rate(result, allowed)
    yield from hold(result, map(parse, result.settings.get("threshold", [])))
    for change in result.baseline.changes if result.baseline else ():
        yield _of_change(change)
    if result.settings.get("require_valid"):
        yield _measurement(result)


def hold(result: RunResult, thresholds: Iterable[Threshold]) -> Iterator[Criterion]:
    """Yield for each threshold whether it holds."""
    found = doubts(result)
    return (_held(result, threshold, found) for threshold in thresholds)


def _the_run(result: RunResult) -> Criterion:
    """Return whether what was asked for was performed, well or not."""
    reason = ""
    if result.outcome == "aborted":
        after = result.settings.get("give_up")
        reason = ENDINGS["aborted"]
        if after is not None:
            reason = f"gave up: no operation has succeeded for {after:g} s"
        if worst := next(iter(result.errors), ""):
            reason = f"{reason}; the most frequent error: {worst}"
    elif result.outcome == "lost":
        lost = [f"{shard.name} {shard.lost}" for shard in result.shards if shard.lost]
        reason = f"a process of the run died: {', '.join(lost)}" if lost else ENDINGS["lost"]
    elif result.outcome == "interrupted" and result.stopped_by:
        reason = f"{result.stopped_by} stopped the run before its end"
    elif result.outcome in ENDINGS:
        reason = ENDINGS[result.outcome]
    elif not result.started:
        reason = "no operation was performed"
    elif result.not_started:
        reason = (
            f"{result.not_started:,} of the {result.planned:,} operations asked for were never "
            "started"
        )
    outcome: Judgement = "failed" if reason else "passed"
    if result.outcome == "failed" and _is_held_by_doubts(result):
        outcome = "not measured"
    return Criterion("the run", "run", outcome, reason=reason)


def _is_held_by_doubts(result: RunResult) -> bool:
    """Whether the threshold that ended a run early is, looked at closely, not measured."""
    found = [one.outcome for one in hold(result, map(parse, result.settings.get("threshold", [])))]
    return "not measured" in found and "failed" not in found


def _never_ran(result: RunResult) -> Iterator[Criterion]:
    """Yield what is to be said of operations of the mix that had no turn."""
    if not result.started or result.outcome != "done":
        return
    due = sum(operation.due for operation in result.by_operation.values())
    for name, operation in result.by_operation.items():
        if operation.share and not operation.due:
            expected = operation.share * due
            outcome: Judgement = "failed" if expected >= _EXPECTED else "passed"
            reason = f"operation {name!r} never ran: its share of the mix is {expected:.2g}"
            yield Criterion(f"operation {name!r} ran", "run", outcome, reason=reason)


def _error_rate(result: RunResult, allowed: float) -> Criterion:
    rate = result.error_rate
    dropped = result.dropped
    started = result.started
    at_most = (dropped + result.failed + result.indeterminate) / ((started + dropped) or 1)
    outcome: Judgement = "passed"
    reason = ""
    if rate > allowed:
        outcome = "failed"
        reason = f"{rate:.2%} of the operations failed, more than {allowed:.2%}"
    elif dropped and at_most > allowed:
        outcome = "not measured"
        reason = f"{dropped:,} were dropped, and with them it would be {at_most:.2%}"
    return Criterion(
        name=f"error rate at most {allowed:.4%}",
        kind="errors",
        outcome=outcome,
        figure=rate,
        bound=allowed,
        comparison="<=",
        found=f"{rate * 100:.4g}%",
        reason=reason,
    )


def _held(result: RunResult, threshold: Threshold, found: Iterable[Doubt]) -> Criterion:
    figure = figure_of(result, threshold)
    outcome, reason = _judged(result, threshold, figure, found)
    return Criterion(
        name=threshold.text,
        kind="threshold",
        outcome=outcome,
        figure=figure,
        bound=threshold.value,
        comparison=threshold.comparison,
        found=figure_text(threshold, figure),
        reason=reason,
    )


def _judged(
    result: RunResult, threshold: Threshold, figure: float | None, found: Iterable[Doubt]
) -> tuple[Judgement, str]:
    if figure is None:
        why = None if threshold.when.is_always else why_none(result, threshold.when)
        return ("not measured", why) if why else ("failed", "there is no such figure")
    if (few := few_samples(result, threshold)) is not None:
        return "not measured", f"the measurement is not good: {few.about}"
    bent = [doubt for doubt in found if _bends(doubt.bias, result, threshold)]
    about = f"the measurement is not good: {', '.join(doubt.about for doubt in bent)}"
    said = figure_text(threshold, figure)
    if not threshold.holds(figure):
        if bent and not _only_worse(threshold, bent):
            return "not measured", f"found {said}, but {about}"
        return "failed", f"found {said}"
    reason = _hidden(result, threshold)
    if reason is None and bent and not _only_better(threshold, bent):
        reason = about
    if reason is not None:
        return "not measured", f"found {said}, but {reason}"
    return "passed", about if bent else ""


def _bends(bias: Bias, result: RunResult, threshold: Threshold) -> bool:
    """Whether a doubt is about a figure, and known by no other way to be harmless."""
    if threshold.metric in TRENDS and threshold.metric not in _OF_THE_QUEUE:
        return threshold.aggregate != "count" and bias in ("inflates", "starves", "loses")
    if threshold.metric == "ops" and threshold.aggregate == "rate":
        if result.schedule is not None and result.completed == result.schedule.due:
            return bias == "loses"  # all that was due is done: more there cannot be
        if bias == "inflates":  # at full speed, throughput is what the run measures
            return result.schedule is not None
        return bias in ("starves", "short")
    return False


def _only_better(threshold: Threshold, bent: Iterable[Doubt]) -> bool:
    """Whether without what bends it, a figure that holds would hold all the more."""
    if any(doubt.bias == "loses" for doubt in bent):
        return False
    return threshold.is_lower if threshold.metric == "ops" else threshold.is_upper


def _only_worse(threshold: Threshold, bent: Iterable[Doubt]) -> bool:
    """Whether without what bends it, a broken bound would be broken all the more."""
    if all(doubt.bias == "loses" for doubt in bent):
        return True
    return threshold.is_upper if threshold.metric == "ops" else threshold.is_lower


def _hidden(result: RunResult, threshold: Threshold) -> str | None:
    """Return why a bound that holds would not, with what is hidden at its worst."""
    if not threshold.is_upper:
        return None
    worst = at_worst(result, threshold)
    if worst is None or threshold.holds(worst):
        return None
    hidden = hidden_of(result, threshold)
    return (
        f"the measurement is not good: {_what(hidden)} in no figure, and with them it may not hold"
    )


def _what(hidden: Hidden) -> str:
    parts = []
    if hidden.lost:
        parts.append(f"{hidden.lost:,} operations were dropped or abandoned")
    if hidden.missing:
        parts.append(
            f"{hidden.missing:,} were not begun while the run stood still for "
            f"{hidden.stalled:.1f} s"
        )
    return " and ".join(parts)


def _of_change(change: Change) -> Criterion:
    """Return the criterion of a change since the baseline; one that is only shown fails nothing."""
    outcome: Judgement = "passed"
    reason = ""
    if change.fails and change.finding == "regression":
        outcome, reason = "failed", f"worse than the baseline: {change.sentence}"
    elif change.finding == "inconclusive":
        outcome, reason = "not measured" if change.fails else "passed", change.reason
    return Criterion(
        name=change.check,
        kind="baseline",
        outcome=outcome,
        figure=change.now,
        bound=change.tolerance,
        found=change.sentence,
        reason=reason,
    )


def _measurement(result: RunResult) -> Criterion:
    about = ", ".join(doubt.about for doubt in doubts(result))
    return Criterion(
        name="the measurement is good",
        kind="measurement",
        outcome="not measured" if about else "passed",
        found=about or "it is",
        reason=f"the measurement is not good: {about}" if about else "",
    )
