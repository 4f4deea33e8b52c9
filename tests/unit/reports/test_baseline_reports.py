"""What changed since the baseline, in each form of the report."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

from async_loader.reports import console, junit, markdown
from async_loader.results.changes import Change, Comparison
from async_loader.verdict.verdict import judge
from tests.unit.results.test_results import result_of

SLOWER = Change(
    "op_duration{op:create}:p(95):10%", "ms", 0.1, True, 10.0, 13.0, 0.3, 0.2, 0.4, "regression"
)
SHOWN = replace(SLOWER, check="op_duration:med:10%", fails=False)
FEWER = Change("ops:rate:5%", "/s", 0.05, True, 900.0, 890.0, -0.011, -0.02, 0.01, "holds")
UNKNOWN = Change("errors:rate:1%", "share", 0.01, reason="too few data: [x] | y")
RESULT = replace(
    result_of(10**6),
    baseline=Comparison(
        ("main.json",),
        ("Python: 3.13 now, 3.12 in the baseline",),
        (SLOWER, SHOWN, FEWER, UNKNOWN),
    ),
)


def test_the_terminal_has_two_lines_for_each_change() -> None:
    text = console.render(RESULT)
    for line in (
        "against the baseline  main.json",
        "  regression  op_duration{op:create}:p(95):10%",
        "    13.000 ms, was 10.000 ms: +30.0%  (95 %: +20.0% to +40.0%)",
        "  holds  ops:rate:5%",
        "    890/s, was 900/s: -1.1%  (95 %: -2.0% to +1.0%)",
        "  inconclusive  errors:rate:1%",
        "    too few data: [x] | y",
        "  Python: 3.13 now, 3.12 in the baseline",
    ):
        assert f"\n{line}\n" in text
    assert "One baseline does not tell" in text
    assert RESULT.baseline is not None
    several = replace(RESULT.baseline, baselines=("a.json", "b.json"))
    assert "One baseline does not tell" not in console.render(replace(RESULT, baseline=several))
    assert "baseline" not in console.render(result_of(1))


def test_junit_has_a_case_for_each_change() -> None:
    assert RESULT.baseline is not None
    suite = ET.fromstring(junit.render(RESULT))[0]
    assert [suite.get(key) for key in ("tests", "failures", "errors")] == ["5", "1", "1"]
    cases = {case.get("name"): case for case in suite}
    failure = cases["baseline op_duration{op:create}:p(95):10%"].find("failure")
    assert failure is not None
    assert failure.get("message") == f"worse than the baseline: {SLOWER.sentence}"
    assert cases["baseline op_duration:med:10%"].find("failure") is None, "it is only shown"
    unknown = cases["baseline errors:rate:1%"].find("error")
    assert unknown is not None, "it was asked for, and nobody can tell"
    assert unknown.get("message") == "errors:rate:1% is not measured: too few data: [x] | y"
    shown = replace(RESULT.baseline, changes=(replace(UNKNOWN, fails=False),))
    suite = ET.fromstring(junit.render(replace(RESULT, baseline=shown)))[0]
    assert suite.get("skipped") == "1"


def test_markdown_has_a_row_for_each_change() -> None:
    text = markdown.render(RESULT)
    for line in (
        "| `op_duration{op:create}:p(95):10%` | 10.000 ms | 13.000 ms | +30.0% "
        "| +20.0% to +40.0% | **regression** |",
        "| `ops:rate:5%` | 900/s | 890/s | -1.1% | -2.0% to +1.0% | holds |",
        r"| `errors:rate:1%` | - | - | - | - | inconclusive: too few data: \[x\] \| y |",
        "- Python: 3.13 now, 3.12 in the baseline",
    ):
        assert f"\n{line}\n" in text


def test_a_regression_is_a_reason_to_fail() -> None:
    found = judge(RESULT)
    assert found.word == "failed"
    assert (found.exit_code, found.reasons[0]) == (
        98,
        "worse than the baseline: op_duration{op:create}:p(95):10%: regression, 13.000 ms, "
        "was 10.000 ms, +30.0% "
        "(95 %: +20.0% to +40.0%)",
    )
