"""What the page of a sweep has beside its steps: what to run with, a table, a chart by load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..results.run import RunResult
from ..verdict.knee import Advice, by_of, fault, level_of
from .console import milliseconds
from .page_tables import Cell, Table
from .sweep import advice_lines, headline, latency_limit, level_text

_FIGURES = ("p50", "p95", "p99")


def verdict(steps: Sequence[RunResult], advice: Advice | None) -> dict[str, Any]:
    """Return the load to run at, to be read across the room, and why."""
    lines = advice_lines(steps, advice)
    return {
        "word": "passed" if advice else "failed",
        "title": headline(steps, advice),
        "sentence": lines[0],
        "subject": f"{steps[0].workload}, {len(steps)} steps of {by_of(steps[0])}",
        "reasons": lines[1:],
    }


def table(steps: Sequence[RunResult], advice: Advice | None) -> Table:
    """Return a row for each step, in the order of their loads."""
    knee = steps[advice.step] if advice else None
    rows: list[tuple[str | Cell, ...]] = []
    for step in sorted(steps, key=level_of):
        latency = step.latency().summary_ms()
        wrong = fault(step, latency_limit(steps))
        remark = Cell(wrong, "warn") if wrong else Cell("the knee", "good") if step is knee else ""
        rows.append(
            (
                level_text(step),
                remark,
                f"{step.throughput:,.0f}",
                *(milliseconds(latency[figure]) for figure in _FIGURES),
                f"{step.error_rate:.2%}",
                f"{step.pool.peak_in_use if step.pool else 0:,}",
                f"{step.process.loop_busy:.0%}",
            )
        )
    headings = (by_of(steps[0]), "remark", "ops/s", "p50", "p95", "p99 ms", "failed", "conns")
    return Table("", (*headings, "loop busy"), rows, frozenset({0, 1}))


def load_data(steps: Sequence[RunResult], advice: Advice | None) -> dict[str, Any]:
    """Return the data of the chart by load."""
    ordered = sorted(steps, key=level_of)
    latencies = [step.latency().summary_ms() for step in ordered]
    return {
        "by": by_of(steps[0]),
        "level": [level_of(step) for step in ordered],
        "throughput": [round(step.throughput, 2) for step in ordered],
        "latency": {figure: [each[figure] for each in latencies] for figure in _FIGURES},
        "knee": advice.level if advice else None,
    }
