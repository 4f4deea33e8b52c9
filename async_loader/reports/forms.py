"""The forms of `--out FORM=FILE`: how each is rendered, of one run and of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..results.run import RunResult
from . import code_findings, json, junit, markdown, sweep
from .comparison import RunsByMode

Forms = dict[str, Callable[[Any], str]]


def _html(result: RunResult) -> str:
    from . import html  # noqa: PLC0415  0.1 s that only a page needs

    return html.render(result)


def _html_of_several(ways: RunsByMode) -> str:
    from . import html  # noqa: PLC0415  as above

    return html.render_comparison(ways)


def _html_of_sweep(steps: Sequence[RunResult]) -> str:
    from . import html  # noqa: PLC0415  as above

    return html.render_sweep(steps)


RUN_FORMS: Forms = {
    "html": _html,
    "json": json.render,
    "codequality": code_findings.render_code_quality,
    "junit": junit.render,
    "sarif": code_findings.render_sarif,
    "markdown": markdown.render,
}
COMPARE_FORMS: Forms = {
    "html": _html_of_several,
    "json": json.render_comparison,
    "codequality": code_findings.render_code_quality_of_several,
    "junit": junit.render_comparison,
    "sarif": code_findings.render_sarif_of_several,
    "markdown": markdown.render_comparison,
}
SWEEP_FORMS: Forms = {
    "html": _html_of_sweep,
    "json": sweep.render_json,
    "codequality": code_findings.render_code_quality_of_sweep,
    "junit": junit.render_sweep,
    "sarif": code_findings.render_sarif_of_sweep,
    "markdown": markdown.render_sweep,
}
