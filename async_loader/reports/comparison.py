"""Several runs side by side: a table, and one chart of connections over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import plotext
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from async_loader.reports.console import circumstances, milliseconds, printed
from async_loader.results import RunResult

BASE = "sync"
_HEIGHT = 14
# Letters, since a pipe has no colours to tell the lines apart.
_MARKERS = {
    "semaphore": "s",
    "chunks": "c",
    "unbounded": "u",
    "sync": "1",
    "threads": "t",
    "stock": "o",
}


def render(runs: Sequence[RunResult], *, width: int = 80, color: bool = False) -> str:
    """
    Return the comparison; figures are medians over the rounds.

    `width` in columns, of which at most 100 are used; `color` adds ANSI codes.
    """
    width = min(width, 100)
    by_mode = group(runs)
    parts: list[Any] = [*circumstances(runs[0], skip=("let in by",)), _table(by_mode)]
    if chart := _chart(by_mode, width):
        parts += [Text.from_ansi(chart) if color else Text(plotext.uncolorize(chart)), ""]
    parts += _lessons(by_mode)
    return printed(parts, width=width, color=color)


def group(runs: Iterable[RunResult]) -> dict[str, list[RunResult]]:
    """
    Return the runs of each mode, in the order of the first round.

    Where semaphore ran with and without batched inserts, the latter is a row `stock`.
    """
    by_mode: dict[str, list[RunResult]] = {}
    for run in runs:
        stock = run.mode == "semaphore" and not run.settings.get("batch_inserts", True)
        by_mode.setdefault("stock" if stock else run.mode, []).append(run)
    return by_mode


def ratios(by_mode: dict[str, list[RunResult]], base: str) -> dict[str, float]:
    """Return each mode's throughput over the base's: the median of the rounds' own ratios."""
    return {
        mode: median(
            run.throughput / beside.throughput
            for run, beside in zip(runs, by_mode[base], strict=False)
            if beside.throughput
        )
        for mode, runs in by_mode.items()
    }


def _table(by_mode: dict[str, list[RunResult]]) -> Table:
    base = BASE if BASE in by_mode else next(iter(by_mode))
    against = ratios(by_mode, base)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("mode", min_width=9)
    headings = ("seconds", "ops/s", "p50", "p95", "p99 ms", "conns", "MiB", f"x {base}")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for mode, runs in by_mode.items():
        latencies = [run.latency().percentiles_ns([50.0, 95.0, 99.0]) for run in runs]
        table.add_row(
            mode,
            f"{median(run.seconds for run in runs):.2f}",
            f"{median(run.throughput for run in runs):,.0f}",
            *(milliseconds(median(x[p] for x in latencies) / 1e6) for p in (50.0, 95.0, 99.0)),
            f"{max(run.pool.peak_in_use if run.pool else 0 for run in runs)}",
            f"{median(run.process.peak_memory_bytes for run in runs) / 2**20:.0f}",
            f"{against[mode]:.2f}",
        )
    return table


def _chart(by_mode: dict[str, list[RunResult]], width: int) -> str:
    """Return the connections in use over the last round's time, every mode on one pair of axes."""
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, _HEIGHT)
    drawn = []
    for mode, runs in by_mode.items():
        in_use = runs[-1].series.in_use
        if any(in_use):
            plotext.plot(range(len(in_use)), in_use, marker=_MARKERS[mode])
            drawn.append(f"{_MARKERS[mode]} {mode}")
    if not drawn:
        return ""
    plotext.title("connections in use")
    plotext.xlabel(f"seconds     ({', '.join(drawn)})")
    plotext.ylim(lower=0)
    chart: str = plotext.build()
    return chart


def _lessons(by_mode: dict[str, list[RunResult]]) -> Iterable[str]:
    """Say what differs between the modes where nothing should, and where a run failed."""
    counts = {
        (run.count_of("write"), run.count_of("read")) for runs in by_mode.values() for run in runs
    }
    if len(counts) == 1:
        created, read = counts.pop()
        yield f"created {created:,}, read {read:,} in every run"
    else:
        yield "created and read differ between the runs:"
        for mode, runs in by_mode.items():
            each = ", ".join(f"{r.count_of('write'):,} and {r.count_of('read'):,}" for r in runs)
            yield f"  {mode}: {each}"
    for mode, runs in by_mode.items():
        if bad := sum(run.failed + run.indeterminate for run in runs):
            yield f"[red]{mode}: {bad:,} operations failed[/]"
