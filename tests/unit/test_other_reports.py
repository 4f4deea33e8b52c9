"""JUnit and Markdown: every verdict in them, every name escaped."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

from async_loader.reports import junit, markdown

from .test_results import result_of

SETTINGS = {"max_error_rate": 0.01, "threshold": ["ops:count>=3", "op_duration:avg<1us"]}


def test_junit_has_a_case_for_each_verdict() -> None:
    result = replace(result_of(10**6, 10**6, 10**6), settings=SETTINGS)
    suite = ET.fromstring(junit.render(result))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "0")
    failed = {case.get("name"): case.find("failure") is not None for case in suite}
    assert failed == {
        "error rate at most 1.0000%": False,
        "ops:count>=3": False,
        "op_duration:avg<1us": True,
    }


def test_junit_says_that_a_run_was_interrupted() -> None:
    result = replace(result_of(1, failed=9), outcome="interrupted", settings=SETTINGS)
    suite = ET.fromstring(junit.render(result))
    assert suite.get("errors") == "1"
    assert suite.get("tests") == "4"
    assert suite.get("failures") == "2", "the error rate and one threshold"


def test_markdown_has_verdicts_and_operations() -> None:
    result = replace(result_of(10**6, failed=2), settings=SETTINGS)
    result = replace(result, by_operation={"a|b*": result.by_operation["create"]})
    text = markdown.render(result)
    assert "### done: 1 operations" in text
    assert "| `op_duration:avg<1us` | 1 | **fails** |" in text
    assert r"| a\|b\* | 1 | 2 | 1.00 |" in text
    assert "| 40001 | 2 | - |" in text
