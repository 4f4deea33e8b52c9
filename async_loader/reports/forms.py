"""The forms of `--out FORM=FILE`: how each is rendered, of one run and of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..results.run import RunResult
from . import json, junit, markdown, sweep
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
    "junit": junit.render,
    "markdown": markdown.render,
}
COMPARE_FORMS: Forms = {
    "html": _html_of_several,
    "json": json.render_comparison,
    "junit": junit.render_comparison,
    "markdown": markdown.render_comparison,
}
SWEEP_FORMS: Forms = {
    "html": _html_of_sweep,
    "json": sweep.render_json,
    "junit": junit.render_sweep,
    "markdown": markdown.render_sweep,
}
