"""The forms of `--out FORM=FILE`: how each is rendered, of one run and of several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from async_loader.reports import html, json, junit, markdown

Forms = dict[str, Callable[[Any], str]]

RUN_FORMS: Forms = {
    "html": html.render,
    "json": json.render,
    "junit": junit.render,
    "markdown": markdown.render,
}
COMPARE_FORMS: Forms = {
    "html": html.render_comparison,
    "json": json.render_comparison,
    "junit": junit.render_comparison,
    "markdown": markdown.render_comparison,
}
