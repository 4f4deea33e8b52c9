"""The result as JSON: what `RunResult.from_dict` reads back."""

from __future__ import annotations

import json
from collections.abc import Iterable

from async_loader.results import RESULT_SCHEMA, RunResult


def render(result: RunResult) -> str:
    """Return the document, with a new line at its end."""
    return json.dumps(result.to_dict(), indent=1) + "\n"


def render_comparison(runs: Iterable[RunResult]) -> str:
    """Return several runs as one document, in the order in which they ran."""
    document = {"schema": RESULT_SCHEMA, "runs": [run.to_dict() for run in runs]}
    return json.dumps(document, indent=1) + "\n"
