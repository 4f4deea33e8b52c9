"""N+1s and plans as code hosts take them: with file and line, the same one in every run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from async_loader import RunResult
from async_loader.reports import code_findings, markdown
from async_loader.reports.forms import RUN_FORMS
from async_loader.results.findings import RepeatedStatement
from async_loader.results.plans import StatementPlan
from async_loader.runtime.outputs import write_job_summary
from tests.unit.results.test_results import result_of


def found(line: int = 31) -> RunResult:
    """A result with one N+1 and one plan that have a line, and one of each that has none."""
    repeats = [
        RepeatedStatement("read", "SELECT 1", f"shop/load.py:{line} in read", None, 1, 9, 9),
        RepeatedStatement("read", "SELECT 2", None, "flush", 1, 9, 9),
    ]
    plan = StatementPlan("SELECT 3", "read", 1, 1.0, 1.0, findings=("song.a has no index",))
    return replace(
        result_of(1),
        repeated_statements=tuple(repeats),
        plans=(replace(plan, source="shop/db.py:7 in find"), plan),
    )


def test_as_sarif() -> None:
    (run,) = json.loads(code_findings.render_sarif(found()))["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    places = [
        (
            one["ruleId"],
            one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"],
            one["locations"][0]["physicalLocation"]["region"]["startLine"],
        )
        for one in run["results"]
    ]
    assert places == [("n-plus-one", "shop/load.py", 31), ("slow-plan", "shop/db.py", 7)]
    assert {rule for rule, *_ in places} == rules
    assert "SELECT 1 ×9 in one operation" in run["results"][0]["message"]["text"]
    assert run["results"][1]["message"]["text"] == "song.a has no index (SELECT 3)"


def test_as_code_quality() -> None:
    one, other = json.loads(code_findings.render_code_quality(found()))
    assert (one["check_name"], one["severity"]) == ("n-plus-one", "major")
    assert one["location"] == {"path": "shop/load.py", "lines": {"begin": 31}}
    assert one["fingerprint"] != other["fingerprint"]


def test_a_finding_is_the_same_on_another_line_and_told_once() -> None:
    before, now = (json.loads(code_findings.render_code_quality(found(n))) for n in (31, 40))
    assert [one["fingerprint"] for one in before] == [one["fingerprint"] for one in now]
    several = {"a": [found(), found()], "b": [found()]}
    assert len(json.loads(code_findings.render_code_quality_of_several(several))) == 2
    (run,) = json.loads(code_findings.render_sarif_of_several(several))["runs"]
    assert len(run["results"]) == 2
    steps = [found(), found(40)]
    assert len(json.loads(code_findings.render_code_quality_of_sweep(steps))) == 2
    assert len(json.loads(code_findings.render_sarif_of_sweep(steps))["runs"][0]["results"]) == 2


def test_nothing_found_is_a_document_too() -> None:
    assert json.loads(code_findings.render_code_quality(result_of(1))) == []
    assert json.loads(code_findings.render_sarif(result_of(1)))["runs"][0]["results"] == []


def test_the_summary_of_a_job_is_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    write_job_summary([], RUN_FORMS, found())
    assert summary.read_text() == f"before\n{markdown.render(found())}\n"
    write_job_summary([f"markdown={summary}"], RUN_FORMS, found())
    assert summary.read_text().count("before") == 1, "who asks for it by name has it once"
    assert len(summary.read_text()) == len(f"before\n{markdown.render(found())}\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    write_job_summary([], RUN_FORMS, found())
    assert "the job's summary could not be written: Is a directory" in capsys.readouterr().err
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    write_job_summary([], RUN_FORMS, found())
