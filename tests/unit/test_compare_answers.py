"""The four answers of a comparison."""

from __future__ import annotations

from dataclasses import replace

import pytest

from async_loader.results.changes import Change
from async_loader.service.answers import Answer, answer_of, in_words, overall

MEDIAN = Change("op_duration{op:GET /items/{id}}:med:10%", "ms", 0.1, low=-0.02, high=0.03)
SAME = replace(MEDIAN, finding="holds")
# It holds, as nothing of it is past the tolerance: -28 % (-50 to -5) is not the same for that.
PERHAPS_BETTER = replace(MEDIAN, low=-0.5, high=-0.05, finding="holds")
UNCLEAR = replace(MEDIAN, low=-0.2, high=0.3, finding="inconclusive")
UNKNOWN = replace(MEDIAN, low=None, high=None)
WORSE = replace(MEDIAN, low=0.2, high=0.3, finding="regression")
BETTER = replace(MEDIAN, low=-0.3, high=-0.2, finding="improved")


@pytest.mark.parametrize(
    ("change", "answer"),
    [(SAME, "the same"), (PERHAPS_BETTER, "cannot tell"), (UNCLEAR, "cannot tell"),
     (UNKNOWN, "cannot tell"), (WORSE, "worse"), (BETTER, "better")],
)  # fmt: skip
def test_of_one_figure(change: Change, answer: Answer) -> None:
    assert answer_of(change) == answer


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ([SAME] * 3, "the same"),
        ([SAME, *[UNCLEAR] * 7], "cannot tell"),
        ([SAME] * 7 + [UNKNOWN], "cannot tell"),
        ([BETTER, SAME], "better"),
        ([BETTER, UNCLEAR], "cannot tell"),
        ([WORSE, UNCLEAR], "worse"),
        ([WORSE, *[BETTER] * 7], "worse"),
        ([], "cannot tell"),
    ],
)
def test_of_all_it_is_no_stronger_than_the_weakest(changes: list[Change], answer: Answer) -> None:
    assert overall(changes) == answer


def test_figures_have_names() -> None:
    names = {
        "op_duration{op:GET /items/{id}}:med:10%": "median latency of GET /items/{id}",
        "op_duration:p(95):10%": "p95 latency",
        "op_duration:avg:10%": "mean latency",
        "ops:rate:10%": "throughput",
        "errors{op:save}:rate:1%": "errors of save",
    }
    assert {check: in_words(replace(MEDIAN, check=check)) for check in names} == names
