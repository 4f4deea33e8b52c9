"""The result as JSON: what `RunResult.from_dict` reads back."""

from __future__ import annotations

import json

from async_loader.results import RunResult


def render(result: RunResult) -> str:
    """Return the document, with a new line at its end."""
    return json.dumps(result.to_dict(), indent=1) + "\n"
