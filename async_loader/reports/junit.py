"""
JUnit XML, as CI systems show it.

A suite for each run, in it a case for the run itself, for the error rate, for each threshold and
for each change since the baseline.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from ..results.run import RunResult
from ..verdict.criteria import ENDINGS, Criterion
from ..verdict.verdict import judge
from .comparison import RunsByMode
from .sweep import advice_lines, advice_of, level_text

# What XML 1.0 cannot hold, not even escaped: a document with one in it is no document.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_COUNTED = (("tests", "."), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))


def render(result: RunResult) -> str:
    """Return the document of one run."""
    return _document([_suite(result, result.title)])


def render_comparison(ways: RunsByMode) -> str:
    """Return the document of several runs: a suite for each round of each."""
    suites = []
    for label, runs in ways.items():
        for number, run in enumerate(runs, 1):
            name = f"{label}, round {number}" if len(runs) > 1 else label
            suites.append(_suite(run, f"{run.title}: {name}"))
    return _document(suites)


def render_sweep(steps: Sequence[RunResult]) -> str:
    """
    Return the document of a sweep: one case, that there is a load to run at.

    Steps beyond the knee are bad, and meant to be: they have no cases of their own.
    """
    advice = advice_of(steps)
    lines = advice_lines(steps, advice)
    seconds = sum(step.seconds for step in steps)
    failures = "0" if advice else "1"
    name = _printable(f"{steps[0].title}: sweep")
    suite = ET.Element("testsuite", name=name, tests="1", failures=failures, errors="0")
    suite.set("time", f"{seconds:.3f}")
    found = "\n\n".join(["\n".join(lines), *(f"{level_text(s)}: {_summary(s)}" for s in steps)])
    _case(suite, "a step is good", found, failed="" if advice else lines[0], seconds=seconds)
    return _document([suite])


def _document(suites: list[ET.Element]) -> str:
    root = ET.Element("testsuites", name="async_loader")
    root.extend(suites)
    for key, _ in _COUNTED:
        root.set(key, str(sum(int(suite.get(key, 0)) for suite in suites)))
    root.set("time", f"{sum(float(suite.get('time', 0)) for suite in suites):.3f}")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(result: RunResult, name: str) -> ET.Element:
    suite = ET.Element("testsuite", name=_printable(name), time=f"{result.seconds:.3f}")
    if started := result.environment.get("started"):
        suite.set("timestamp", started)
    verdict = judge(result)
    for criterion in verdict.criteria:
        _criterion(suite, result, criterion)
    said = f"verdict: {verdict.sentence}"
    ET.SubElement(suite, "system-out").text = _printable(said)
    for key, tag in _COUNTED:
        suite.set(key, str(len(suite.findall(f"testcase/{tag}"))))
    return suite


def _case(
    suite: ET.Element, name: str, found: str, *, failed: str = "", seconds: float = 0.0
) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=f"async_loader.{suite.get('name')}",
        name=_printable(name),
        time=f"{seconds:.3f}",  # the run's is the first case's: CI systems add them up
    )
    if failed:
        ET.SubElement(case, "failure", type="threshold", message=_printable(failed))
    ET.SubElement(case, "system-out").text = _printable(found)


def _criterion(suite: ET.Element, result: RunResult, one: Criterion) -> None:
    """Add a case: failed, an error where it is not measured, skipped where it only shows."""
    is_run = one.name == "the run"
    name = f"baseline {one.name}" if one.kind == "baseline" else one.name
    _case(suite, name, _found(result, one), seconds=result.seconds if is_run else 0.0)
    case = suite[-1]
    if is_run and result.outcome != "done":
        _first(case, "error", ENDINGS[result.outcome])
    elif one.outcome == "failed":
        _first(case, "failure", one.sentence, type="threshold")
    elif one.outcome == "not measured":
        _first(case, "error", one.sentence, type="not measured")
    elif one.kind == "baseline" and one.reason:
        _first(case, "skipped", one.reason)


def _found(result: RunResult, one: Criterion) -> str:
    if one.kind == "threshold":
        beside = f"; {one.reason}" if one.passed and one.reason else ""
        return f"found: {one.found}{beside}"
    if one.kind == "errors":
        return f"{result.error_rate:.4%} of the operations failed"
    return _summary(result) if one.name == "the run" else one.found or one.reason


def _first(case: ET.Element, tag: str, message: str, **attributes: str) -> None:
    """Add what a case came to, before its output: strict readers want that order."""
    case.insert(0, ET.Element(tag, attributes, message=_printable(message)))


def _summary(result: RunResult) -> str:
    lines = [
        f"{result.outcome}: {result.completed:,} operations in {result.seconds:.2f} s, "
        f"{result.throughput:,.0f} operations/s"
    ]
    for name, operation in result.by_operation.items():
        latency = operation.histogram.summary_ms()
        figures = ", ".join(f"{key} {latency[key]:.4g} ms" for key in ("p50", "p95", "p99", "max"))
        lines.append(f"{name}: {operation.count:,} ended well, {figures}")
    for name, error in result.errors.items():
        lines.append(f"{error.count:,} failed by {name}: {error.sample}")
    return "\n".join(lines)


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
