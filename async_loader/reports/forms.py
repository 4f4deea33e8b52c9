"""The forms of `--out FORM=FILE`: how each is rendered, of one run and of several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from async_loader.reports import json, junit, markdown

Forms = dict[str, Callable[[Any], str]]

RUN_FORMS: Forms = {
    "json": json.render,
    "junit": junit.render,
    "markdown": markdown.render,
}
COMPARE_FORMS: Forms = {
    "json": json.render_comparison,
    "junit": junit.render_comparison,
    "markdown": markdown.render_comparison,
}
