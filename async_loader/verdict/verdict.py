"""Whether a run was good, in one word with its reasons: what every report says first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..results.run import Outcome, RunResult
from .thresholds import Verdict, figure_text, verdicts_of
from .validity import doubts

Word = Literal["passed", "failed", "stopped"]

# What ended a run before its end.
ENDINGS: Mapping[Outcome, str] = {
    "interrupted": "somebody stopped the run before its end",
    "failed": "a broken threshold ended the run early",
    "aborted": "the run gave up: no operation succeeded any more",
    "lost": "a process of the run died",
    "hung": "the run did not end by itself, and was ended from outside",
}


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The word, and a sentence for each thing that kept the run from passing."""

    word: Word
    reasons: tuple[str, ...] = ()


def conclusion(result: RunResult) -> Conclusion:
    """
    Return the conclusion on a run, by what its own settings ask of it.

    A run that somebody stopped is neither passed nor failed; one that gave up has failed.
    """
    reasons = [_broken(verdict) for verdict in verdicts_of(result) if not verdict.passed]
    if result.baseline is not None:
        reasons += [change.sentence for change in result.baseline.regressions]
    allowed = result.settings.get("max_error_rate")
    if allowed is not None and result.error_rate > allowed:
        reasons.insert(
            0, f"{result.error_rate:.2%} of the operations failed, more than {allowed:.2%}"
        )
    if result.settings.get("require_valid"):
        reasons += [f"the measurement is not good: {doubt.about}" for doubt in doubts(result)]
    if result.outcome in ENDINGS:
        reasons.insert(0, ENDINGS[result.outcome])
    if result.outcome == "interrupted":
        return Conclusion("stopped", tuple(reasons))
    return Conclusion("failed" if reasons else "passed", tuple(reasons))


def _broken(verdict: Verdict) -> str:
    if verdict.figure is None:
        return f"{verdict.threshold.text}: there is no such figure"
    return f"{verdict.threshold.text}: found {figure_text(verdict)}"
