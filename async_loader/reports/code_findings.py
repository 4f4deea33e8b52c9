"""
What a run found that has a line in somebody's code, as code hosts show it beside that line.

SARIF (GitHub's code scanning and others) and GitLab's Code Quality: N+1s, and what stands out in
the plans of the slowest statements.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from ..results.run import RunResult
from .comparison import RunsByMode
from .findings import repeat_line

_PLACE = re.compile(r"(?P<path>.+):(?P<line>\d+)(?: in .*)?")
_RULES = {
    "n-plus-one": "One operation sends a statement again and again",
    "slow-plan": "The plan of a slow statement has something to be looked at",
}


@dataclass(frozen=True, slots=True)
class CodeFinding:
    """One finding and its line; `about` is what makes it the same one in another run."""

    rule: str
    message: str
    path: str
    line: int
    about: str

    @property
    def fingerprint(self) -> str:
        """The same for as long as it is the same finding, whichever line it moves to."""
        return sha256("\0".join((self.rule, self.path, self.about)).encode()).hexdigest()


def render_sarif(result: RunResult) -> str:
    """Return the findings of a run as SARIF 2.1.0."""
    return _sarif([result])


def render_sarif_of_several(ways: RunsByMode) -> str:
    """Return the findings of several runs, each once."""
    return _sarif(run for runs in ways.values() for run in runs)


def render_sarif_of_sweep(steps: Sequence[RunResult]) -> str:
    """Return the findings of all steps, each once."""
    return _sarif(steps)


def render_code_quality(result: RunResult) -> str:
    """Return the findings of a run as GitLab's Code Quality takes them."""
    return _code_quality([result])


def render_code_quality_of_several(ways: RunsByMode) -> str:
    """Return the findings of several runs, each once."""
    return _code_quality(run for runs in ways.values() for run in runs)


def render_code_quality_of_sweep(steps: Sequence[RunResult]) -> str:
    """Return the findings of all steps, each once."""
    return _code_quality(steps)


def _findings(results: Iterable[RunResult]) -> list[CodeFinding]:
    found = {one.fingerprint: one for result in results for one in _findings_of(result)}
    return list(found.values())


def _findings_of(result: RunResult) -> Iterator[CodeFinding]:
    for repeat in result.repeated_statements:
        if (place := _place(repeat.source)) is not None:
            about = f"{repeat.operation} {repeat.statement}"
            yield CodeFinding("n-plus-one", repeat_line(repeat, result), *place, about)
    for plan in result.plans or ():
        if (place := _place(plan.source)) is not None:
            for finding in plan.findings:
                message = f"{finding} ({plan.statement})"
                yield CodeFinding("slow-plan", message, *place, f"{plan.statement} {finding}")


def _place(source: str | None) -> tuple[str, int] | None:
    """Return file and line; None for what has none."""
    found = _PLACE.fullmatch(source or "")
    return None if found is None else (found["path"].replace("\\", "/"), int(found["line"]))


def _sarif(results: Iterable[RunResult]) -> str:
    rules = [
        {"id": rule, "shortDescription": {"text": text}, "fullDescription": {"text": text}}
        for rule, text in _RULES.items()
    ]
    driver = {"name": "async_loader", "version": version("async_loader"), "rules": rules}
    document = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": list(map(_result, _findings(results)))}],
    }
    return json.dumps(document, indent=1) + "\n"


def _result(finding: CodeFinding) -> dict[str, Any]:
    place = {"artifactLocation": {"uri": finding.path}, "region": {"startLine": finding.line}}
    return {
        "ruleId": finding.rule,
        "level": "warning",
        "message": {"text": finding.message},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"asyncLoader/v1": finding.fingerprint},
    }


def _code_quality(results: Iterable[RunResult]) -> str:
    found = [
        {
            "description": finding.message,
            "check_name": finding.rule,
            "fingerprint": finding.fingerprint,
            "severity": "major",
            "location": {"path": finding.path, "lines": {"begin": finding.line}},
        }
        for finding in _findings(results)
    ]
    return json.dumps(found, indent=1) + "\n"
