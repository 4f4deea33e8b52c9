"""
The verdict on a run: the one place that decides it.

Exit code, console, stderr, HTML, JUnit, Markdown, JSON, the library and the service render what
`judge` returns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from ..results.annotations import Count
from ..results.notes import Key
from ..results.part import Part
from ..results.run import RunResult
from .criteria import Criterion, Judgement, criteria_of
from .validity import doubts

Word = Literal["passed", "not measured", "failed", "stopped"]
# From the best to the worst: of several, the last one counts.
WORDS: tuple[Word, ...] = ("passed", "not measured", "failed", "stopped")

DONE = 0
FAILED = 99
NOT_MEASURED = 112
STOPPED = 105
REGRESSION = 98
TOO_MANY_FAILED = 1
LOST = 113


@dataclass(frozen=True, slots=True)
class Verdict(Part):
    """
    What comes of a run; it follows from all else and from the settings.

    `passed`: the work asked for was performed and measured, and what was asked of it holds.
    `failed`: it was not performed, or something does not hold. `not measured`: nobody can tell.
    `stopped`: somebody stopped it.
    """

    word: Word
    criteria: tuple[Criterion, ...]
    reasons: Annotated[
        tuple[str, ...], Meta(description="a sentence for each thing that kept it from passing")
    ]
    beside: Annotated[
        tuple[str, ...],
        Key("doubts"),
        Meta(description="what speaks against the measurement, however it ended"),
    ]
    exit_code: Annotated[Count, Meta(description="of the command, for the run alone")]

    @property
    def remarks(self) -> tuple[str, ...]:
        """The reasons; of one that passed what stands beside it, where something was asked."""
        asked = any(one.kind in ("threshold", "baseline") for one in self.criteria)
        if not self.reasons and self.beside and asked:
            return (f"the measurement is not good: {', '.join(self.beside)}",)
        said = (one.reason for one in self.criteria if one.kind == "run" and one.passed)
        return self.reasons or tuple(filter(None, said))

    @property
    def sentence(self) -> str:
        """The word with what is to be said of it, in one line."""
        if not self.remarks:
            return self.word
        joined = "; ".join(self.remarks)
        return f"passed, though {joined}" if self.word == "passed" else f"{self.word}: {joined}"


def judge(result: RunResult) -> Verdict:
    """Return the verdict on a run, by what its own settings ask of it."""
    criteria = tuple(criteria_of(result))
    outcomes = {criterion.outcome for criterion in criteria}
    word: Word = "passed"
    if result.outcome == "interrupted":
        word = "stopped"
    elif "failed" in outcomes:
        word = "failed"
    elif "not measured" in outcomes:
        word = "not measured"
    order: tuple[Judgement, ...] = ("failed", "not measured")
    reasons = (c.sentence for outcome in order for c in criteria if c.outcome == outcome)
    return Verdict(
        word=word,
        criteria=criteria,
        reasons=tuple(dict.fromkeys(reasons)),
        beside=tuple(doubt.about for doubt in doubts(result)),
        exit_code=_exit_code(word, result, criteria),
    )


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the one that counts of several: stopped, failed, not measured."""
    return max(verdicts, key=lambda verdict: WORDS.index(verdict.word))


def _exit_code(word: Word, result: RunResult, criteria: Iterable[Criterion]) -> int:
    if word != "failed":
        return {"passed": DONE, "not measured": NOT_MEASURED, "stopped": STOPPED}[word]
    if result.outcome == "lost":
        return LOST
    kinds = {criterion.kind for criterion in criteria if criterion.outcome == "failed"}
    given_up = result.outcome == "aborted"
    if "threshold" in kinds or ("run" in kinds and not given_up):
        return FAILED
    return TOO_MANY_FAILED if given_up or "errors" in kinds else REGRESSION
