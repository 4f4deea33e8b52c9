"""JUnit XML, as CI systems show it: a test case for the error rate and for each threshold."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from async_loader.results import RunResult
from async_loader.thresholds import verdicts_of


def render(result: RunResult) -> str:
    """Return the document; each case's time is the run's, for none has one of its own."""
    suite = ET.Element("testsuite", name="async_loader", time=f"{result.seconds:.3f}")
    allowed = result.settings.get("max_error_rate")
    if allowed is not None:
        found = f"{result.error_rate:.4%} of the operations failed"
        _case(suite, f"error rate at most {allowed:.4%}", found, result.error_rate <= allowed)
    for verdict in verdicts_of(result):
        figure = "there is no such figure" if verdict.figure is None else f"{verdict.figure:.6g}"
        _case(suite, verdict.threshold.text, f"found: {figure}", verdict.passed)
    failures = len(suite.findall("testcase/failure"))
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failures))
    suite.set("errors", "0")
    if result.outcome != "done":
        stopped = ET.SubElement(suite, "testcase", classname="async_loader", name="the run ended")
        ET.SubElement(stopped, "error", message=f"the run was {result.outcome}")
        suite.set("tests", str(len(suite.findall("testcase"))))
        suite.set("errors", "1")
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ET.Element, name: str, found: str, passed: bool) -> None:
    classname = f"async_loader.{suite.get('name')}"
    case = ET.SubElement(suite, "testcase", classname=classname, name=name)
    if not passed:
        ET.SubElement(case, "failure", message=found)
    ET.SubElement(case, "system-out").text = found
