"""The result as JSON: what `RunResult.from_dict` reads back."""

from __future__ import annotations

import json
from itertools import zip_longest

from ..results.run import RunResult
from ..verdict.document import document_of, documents_of
from .comparison import RunsByMode


def render(result: RunResult) -> str:
    """Return the document, with a new line at its end."""
    return json.dumps(document_of(result), indent=1) + "\n"


def render_comparison(ways: RunsByMode) -> str:
    """Return several runs as one document, in turns as they ran: A B C A B C."""
    rounds = zip_longest(*ways.values())
    runs = documents_of(run for turn in rounds for run in turn if run is not None)
    return json.dumps(runs, indent=1) + "\n"
