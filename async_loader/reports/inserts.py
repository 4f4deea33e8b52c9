"""RunsByMode to insert the same rows, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..inserts.bench import Measure
from .console import printed


def render(
    measures: Sequence[Measure], *, latency: float = 0.0, width: int = 80, color: bool = False
) -> str:
    """
    Return the table of measures; `latency` in seconds is what was added to a round trip.

    `width` in columns, of which at most 100 are used; `color` adds ANSI codes.
    """
    first = measures[0]
    added = f", {latency * 1e3:g} ms added to each round trip" if latency else ""
    title = f"[bold]{first.rows:,} rows of shape {first.shape}[/], medians in turns{added}"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("way", min_width=20, no_wrap=True)
    for heading in ("seconds", "rows/s", "trips", "CPU s", "x stock", "in all", "x stock"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in measures:
        table.add_row(
            one.way,
            f"{one.seconds:.3f}",
            f"{one.rows_per_second:,.0f}",
            f"{one.round_trips:,}",
            f"{one.cpu_seconds:.3f}",
            f"{1 / one.ratio_to_stock:.2f}",
            f"{one.total_seconds:.3f}",
            f"{1 / one.total_ratio_to_stock:.2f}",
        )
    note = (
        "`seconds` is the flush or write alone, `in all` with the making of objects, `add_all` and "
        "the commit; "
        "`x stock` is how many times faster than SQLAlchemy's own flush."
    )
    return printed([title, table, note], width=min(width, 100), color=color)


def render_json(measures: Sequence[Measure]) -> str:
    """Return the measures as one document."""
    document = {"schema": 1, "measures": [asdict(one) for one in measures]}
    return json.dumps(document, indent=1) + "\n"
