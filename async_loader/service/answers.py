"""What came of a comparison, in four answers: worse, better, the same within X %, cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..results.changes import Change
from ..verdict.regression import parse_check

Answer = Literal["worse", "better", "the same", "cannot tell"]

_PERCENTILES = {"med": "median", "avg": "mean"}


def answer_of(change: Change) -> Answer:
    """
    Return what is known of one figure.

    The same: its whole 95 % interval lies within the tolerance, on either side. What may have
    become much better and may not is not the same.
    """
    if change.finding == "regression":
        return "worse"
    if change.finding == "improved":
        return "better"
    if change.low is None or change.high is None:
        return "cannot tell"
    is_within = -change.tolerance <= change.low and change.high <= change.tolerance
    return "the same" if is_within else "cannot tell"


def overall(changes: Sequence[Change]) -> Answer:
    """
    Return what is known of all figures together: no more than of the weakest of them.

    One that is worse is enough for that. For any other answer all must be known; then those
    that are better count beside those that are the same.
    """
    found = {answer_of(change) for change in changes} or {"cannot tell"}
    answers: tuple[Answer, ...] = ("worse", "cannot tell", "better", "the same")
    return next(answer for answer in answers if answer in found)


def tolerance_of(changes: Sequence[Change]) -> float:
    """Return within how much they are the same: the widest of their tolerances."""
    return max((change.tolerance for change in changes), default=0.0)


def in_words(change: Change) -> str:
    """Return what a change's figure is called: `median latency of checkout`."""
    figure = parse_check(change.check).figure
    of = f" of {figure.operation}" if figure.operation is not None else ""
    if figure.metric == "ops":
        return f"throughput{of}"
    if figure.metric == "errors":
        return f"errors{of}"
    aggregate = figure.aggregate.replace("(", "").replace(")", "")
    return f"{_PERCENTILES.get(aggregate, aggregate)} latency{of}"
