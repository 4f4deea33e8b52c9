"""A sweep: a row for each step, one chart of throughput and p95, and what to run with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import plotext
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ..results.run import RunResult
from ..verdict.document import Sweep, documents_of
from ..verdict.knee import Advice, advise, by_of, fault, invalid_latencies, level_of, p95_ms
from ..verdict.validity import doubts, is_at_full_speed
from .console import circumstances, load_model, milliseconds, printed
from .console import render as render_run

_HEIGHT = 14


def render(steps: Sequence[RunResult], *, width: int = 80, color: bool = False) -> str:
    """
    Return the table, the chart and the advice.

    `width` in columns, of which at most 100 are used; `color` adds ANSI codes.
    """
    width = min(width, 100)
    limit = latency_limit(steps)
    advice = advise(steps, limit)
    parts: list[Any] = [*circumstances(steps[0], skip=("load model",)), _table(steps, advice)]
    if len(steps) > 1:
        chart = _chart(sorted(steps, key=level_of), width)
        parts += [Text.from_ansi(chart) if color else Text(plotext.uncolorize(chart)), ""]
    parts += advice_lines(steps, advice)
    return printed(parts, width=width, color=color)


def render_calibration(runs: Sequence[RunResult], *, width: int = 80, color: bool = False) -> str:
    """Return what the first run found at full speed, and the others as the steps of a sweep."""
    full, *below = runs
    if not below:  # it tells why
        return render_run(full, width=width, color=color)
    capacity = (
        f"At full speed, {load_model(full)}: {full.throughput:,.0f} operations/s. "
        "The latencies of that run hold our own queue; those below it do not."
    )
    text = printed([capacity, ""], width=min(width, 100), color=color)
    return text + render(below, width=width, color=color)


def calibrated(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Return the runs of a calibration as ways to compare."""
    full, *below = runs
    return {"at full speed": [full]} | ways_of(below)


def render_json(steps: Sequence[RunResult]) -> str:
    """Return the document: the advice, null where no step is good, and every step's result."""
    sweep = Sweep(by_of(steps[0]), tuple(map(level_of, steps)), advice_of(steps))
    return json.dumps(documents_of(steps, sweep), indent=1) + "\n"


def advice_of(steps: Sequence[RunResult]) -> Advice | None:
    """Return what to run with, None where no step is good."""
    return advise(steps, latency_limit(steps))


def ways_of(steps: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Return the steps as ways to compare, by their levels."""
    return {level_text(step): [step] for step in sorted(steps, key=level_of)}


def headline(steps: Sequence[RunResult], advice: Advice | None) -> str:
    """Return the load to run at, in two words."""
    if advice is None:
        return "No step is good"
    level = level_text(steps[advice.step])
    return level if advice.by == "rate" else f"Concurrency {level}"


def advice_lines(steps: Sequence[RunResult], advice: Advice | None) -> list[str]:
    """Return what to run with, in sentences; why not, where there is nothing to."""
    limit = latency_limit(steps)
    under = "" if limit is None else f" under {limit * 1e3:g} ms"
    if advice is None:
        lowest = min(steps, key=level_of)
        why = fault(lowest, limit)
        if (doubt := invalid_latencies(lowest)) is not None:
            why = f"{why} ({doubt.about})"
        return [f"No step is good{under}: at {level_text(lowest)} already, {why}."]
    knee = steps[advice.step]
    found = f"{advice.throughput:,.0f} operations/s, p95 {milliseconds(advice.p95_ms)} ms"
    if advice.by == "rate":
        lines = [f"The most with valid latencies{under}: {level_text(knee)} ({found})."]
    else:
        lines = [f"The knee{under}: --concurrency {advice.level:g} ({found})."]
    if advice.pool_size:
        lines.append(f"It used {advice.pool_size} connections: --pool-size {advice.pool_size}.")
    return lines + _limits(knee)


def _limits(knee: RunResult) -> list[str]:
    """Return what held the knee itself back, in a sentence."""
    found = [doubt for doubt in doubts(knee) if doubt.is_bottleneck]
    if not found:
        return []
    if is_at_full_speed(knee):
        return [
            f"That is all that one process can do ({found[0].about}); its latencies hold our own "
            "queue. More throughput needs more processes."
        ]
    return [f"But the measurement there is not good: {found[0].about}."]


def _table(steps: Sequence[RunResult], advice: Advice | None) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column(by_of(steps[0]), justify="right", min_width=11, no_wrap=True)
    for heading in ("ops/s", "p50", "p95", "p99 ms", "conns", "busy"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=6)
    table.add_column("", overflow="fold", min_width=12)
    knee = steps[advice.step] if advice else None
    for step in sorted(steps, key=level_of):
        latency = step.latency().summary_ms()
        remark = "<- the knee" if step is knee else fault(step, latency_limit(steps)) or ""
        table.add_row(
            level_text(step),
            f"{step.throughput:,.0f}",
            *(milliseconds(latency[p]) for p in ("p50", "p95", "p99")),
            f"{step.pool.peak_in_use if step.pool else 0}",
            f"{step.process.loop_busy:.0%}",
            remark,
        )
    return table


def _chart(steps: Sequence[RunResult], width: int) -> str:
    """Return throughput and p95 over the steps, each on an axis of its own."""
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, _HEIGHT)
    places = list(range(len(steps)))
    plotext.plot(places, [step.throughput for step in steps], marker="t", yside="left")
    plotext.plot(places, [p95_ms(step) for step in steps], marker="p", yside="right")
    plotext.title("t operations/s (left)     p p95 in ms (right)")
    plotext.xticks(places, [level_text(step) for step in steps])
    plotext.xlabel(by_of(steps[0]))
    chart: str = plotext.build()
    return chart


def level_text(step: RunResult) -> str:
    """Return a step's load, for a reader."""
    level = level_of(step)
    return f"{level:.6g}/s" if by_of(step) == "rate" else f"{level:.0f}"


def latency_limit(steps: Sequence[RunResult]) -> float | None:
    """Return the limit in seconds that the sweep was asked for."""
    limit = steps[0].settings.get("latency_limit")
    return None if limit is None else float(limit)
