"""JUnit and Markdown: every verdict in them, every name escaped."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from async_loader.reports import junit, markdown
from async_loader.reports.forms import COMPARE_FORMS, RUN_FORMS, SWEEP_FORMS
from async_loader.results.errors import ErrorResult
from async_loader.settings.option_types import OUTPUTS
from tests.unit.results.test_results import result_of
from tests.unit.verdict.test_knee import step

SETTINGS = {"max_error_rate": 0.01, "threshold": ["ops:count>=3", "op_duration:avg<1us"]}
HOSTILE = '</script>"><img src=x onerror=alert(1)>&amp;\x00\x1b]]> @everyone `x` | \ud800'


def test_junit_has_a_case_for_each_verdict() -> None:
    result = replace(result_of(10**6, 10**6, 10**6), settings=SETTINGS)
    root = ET.fromstring(junit.render(result))
    (suite,) = root
    for element in (root, suite):
        assert {element.get(k) for k in ("tests", "failures", "errors")} == {"4", "1", "0"}
    cases = suite.findall("testcase")
    failed = {case.get("name"): case.find("failure") is not None for case in cases}
    assert failed == {
        "the run": False,
        "error rate at most 1.0000%": False,
        "ops:count>=3": False,
        "op_duration:avg<1us": True,
    }
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "a threshold does not hold: op_duration:avg<1us: found 1 ms"


def test_junit_times_add_up_to_the_run() -> None:
    suite = ET.fromstring(junit.render(replace(result_of(1), settings=SETTINGS)))[0]
    cases = suite.findall("testcase")
    assert sum(float(case.get("time", "")) for case in cases) == float(suite.get("time", "")) == 2


def test_junit_says_that_a_run_was_interrupted() -> None:
    result = replace(result_of(1, failed=9), outcome="interrupted", settings=SETTINGS)
    suite = ET.fromstring(junit.render(result))[0]
    assert suite.get("errors") == "1"
    assert suite.get("tests") == "4"
    assert suite.get("failures") == "2", "the error rate and one threshold"
    assert [part.tag for part in suite[0]] == ["error", "system-out"], "as strict readers want it"


def test_junit_of_a_comparison_has_a_suite_for_each_run() -> None:
    run = replace(result_of(1, failed=9), settings=SETTINGS)
    root = ET.fromstring(junit.render_comparison({"a": [run, run], "b": [run]}))
    names = [suite.get("name") for suite in root]
    assert names == ["mixed: a, round 1", "mixed: a, round 2", "mixed: b"]
    assert (root.get("tests"), root.get("failures")) == ("12", "6")


def test_junit_holds_any_text() -> None:
    result = replace(
        result_of(1, failed=1), workload=HOSTILE, errors={HOSTILE: ErrorResult(1, {}, HOSTILE)}
    )
    text = junit.render(result).encode()
    suite = ET.fromstring(text)[0]
    assert "<img src=x onerror=alert(1)>&amp;\ufffd\ufffd]]>" in (suite.get("name") or "")


def test_markdown_has_verdicts_and_operations() -> None:
    result = replace(result_of(10**6, failed=2), settings=SETTINGS)
    result = replace(result, by_operation={"a|b*": result.by_operation["create"]})
    text = markdown.render(result)
    assert text.startswith("### ❌ failed: mixed, 0 operations/s\n\ndone: 1 operations in 2.00 s")
    assert "- 66.67% of the operations failed, more than 1.00%" in text
    assert "| `op_duration:avg<1us` | 1 ms | **fails** |" in text
    assert "| `ops:count>=3` | 1 | **fails** |" in text
    assert r"| a\|b\* | 1 | 2 | 1.00 |" in text
    assert "| 40001 | 2 | sorry | - |" in text


def test_markdown_that_passed_has_no_reasons() -> None:
    text = markdown.render(replace(result_of(10**6), settings={"threshold": ["ops:count==1"]}))
    assert text.startswith("### ✅ passed")
    assert "\n- " not in text


def test_markdown_holds_any_text() -> None:
    hostile = ErrorResult(1, {}, "two\nlines | <script> @everyone #1 ![x](y)")
    text = markdown.render(replace(result_of(1, failed=1), errors={"x": hostile}))
    (line,) = [line for line in text.splitlines() if "two" in line]
    assert line == "| x | 1 | two lines \\| \\<script\\> @\u200beveryone \\#1 !\\[x\\](y) | - |"


def test_a_sweep_says_what_to_run_with() -> None:
    """Steps beyond the knee fail nothing: they are there to be bad."""
    steps = [step(1, workers=4), step(4, workers=4), step(64, workers=4, failed=90)]
    text = markdown.render_sweep(steps)
    assert text.startswith("### ✅ Concurrency 4\n\n- The knee: --concurrency 4 ")
    assert "| 4 | 400 | 10.0 | 10.0 | 10.0 | 4 | 50% | **the knee** |" in text
    assert "| 64 | 400 | 160 | 160 | 160 | 64 | 50% | 2.2% failed |" in text
    root = ET.fromstring(junit.render_sweep(steps))
    assert [root.get(key) for key in ("tests", "failures", "errors")] == ["1", "0", "0"]
    bad = [step(1, workers=4, failed=90)]
    assert markdown.render_sweep(bad).startswith("### ❌ No step is good")
    root = ET.fromstring(junit.render_sweep(bad))
    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.get("message") == "No step is good: at 1 already, 8.3% failed."
    assert root.get("failures") == "1"


@pytest.mark.parametrize(
    ("outcome", "sign"), [("done", "✅"), ("aborted", "❌"), ("interrupted", "⚠️")]
)
def test_markdown_of_a_comparison_has_a_row_for_each_way(outcome: str, sign: str) -> None:
    fast, slow = result_of(10**6, 10**6), result_of(10**6)
    slow = replace(slow, outcome=outcome)  # type: ignore[arg-type]  # one of an Outcome's
    text = markdown.render_comparison({"base": [fast], "b|x": [slow, fast]})
    assert "| ✅ | base | 1 | 1.00 | 1.00 | 1.00 | 0.00% | 1.00 |" in text
    assert rf"| {sign} | b\|x | 1 |" in text.replace("| 0.75 |", "")
    assert ("- b\\|x: " in text) is (outcome != "done")


def test_each_form_is_known_by_its_flag_and_of_every_command() -> None:
    assert set(RUN_FORMS) == set(COMPARE_FORMS) == set(SWEEP_FORMS) == set(OUTPUTS)
