"""Several runs side by side: a table, and one chart of connections over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan, nan
from statistics import median
from string import ascii_lowercase
from typing import Any

import plotext
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..load.workloads import BUILT_IN
from ..results.run import RunResult
from .console import circumstances, milliseconds, printed

# The rounds of each way, by its label: a mode, or the file that it was read from.
RunsByMode = Mapping[str, Sequence[RunResult]]

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


def render(ways: RunsByMode, *, width: int = 80, color: bool = False) -> str:
    """
    Return the comparison; figures are medians over the rounds.

    `width` in columns, of which at most 100 are used; `color` adds ANSI codes.
    """
    width = min(width, 100)
    first = next(iter(ways.values()))[0]
    parts: list[Any] = [*circumstances(first, skip=("load model",)), _table(ways)]
    if chart := _chart(ways, width):
        parts += [Text.from_ansi(chart) if color else Text(plotext.uncolorize(chart)), ""]
    parts += _lessons(ways)
    return printed(parts, width=width, color=color)


def group(runs: Iterable[RunResult]) -> dict[str, list[RunResult]]:
    """
    Return the runs of each mode, in the order of the first round.

    Where semaphore ran with and without batched inserts, the latter is a row `stock`; where one
    mode ran at several loads, as in a sweep, each load is a row.
    """
    runs = list(runs)
    modes = _modes(runs)
    loads: dict[str, set[str]] = {}
    for run, mode in zip(runs, modes, strict=True):
        loads.setdefault(mode, set()).add(_load(run))
    by_label: dict[str, list[RunResult]] = {}
    for run, mode in zip(runs, modes, strict=True):
        label = f"{mode} {_load(run)}" if len(loads[mode]) > 1 else mode
        by_label.setdefault(label, []).append(run)
    return by_label


def _modes(runs: Iterable[RunResult]) -> list[str]:
    runs = list(runs)
    batched = any(run.settings.get("batch_inserts") for run in runs)

    def mode_of(run: RunResult) -> str:
        unbatched = run.settings.get("batch_inserts", True) is False
        # To an application that does not batch, to do without it is nothing to tell apart.
        usual = run.settings.get("workload", BUILT_IN[0]) in BUILT_IN
        stock = run.mode == "semaphore" and unbatched and (batched or usual)
        return "stock" if stock else run.mode

    return [mode_of(run) for run in runs]


def _load(run: RunResult) -> str:
    return str(run.settings.get("rate") or run.settings.get("concurrency", "?"))


def base_of(ways: RunsByMode) -> str:
    """Return the label that the others are held against."""
    return BASE if BASE in ways else next(iter(ways))


def ratios(ways: RunsByMode, base: str) -> dict[str, float]:
    """Return each way's throughput over the base's: the median of the rounds' own ratios."""
    return {
        label: median(
            [
                run.throughput / beside.throughput
                for run, beside in zip(runs, ways[base], strict=False)
                if beside.throughput
            ]
            or [nan]
        )
        for label, runs in ways.items()
    }


def _table(ways: RunsByMode) -> Table:
    base = base_of(ways)
    against = ratios(ways, base)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("mode", min_width=9, overflow="fold")
    headings = ("seconds", "ops/s", "p50", "p95", "p99 ms", "conns", "MiB", f"x {base}")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for label, runs in ways.items():
        latencies = [run.latency().percentiles_ns([50.0, 95.0, 99.0]) for run in runs]
        table.add_row(
            escape(label),
            f"{median(run.seconds for run in runs):.2f}",
            f"{median(run.throughput for run in runs):,.0f}",
            *(milliseconds(median(x[p] for x in latencies) / 1e6) for p in (50.0, 95.0, 99.0)),
            f"{max(run.pool.peak_in_use if run.pool else 0 for run in runs)}",
            f"{median(run.process.peak_memory_bytes for run in runs) / 2**20:.0f}",
            "-" if isnan(against[label]) else f"{against[label]:.2f}",
        )
    return table


def _chart(ways: RunsByMode, width: int) -> str:
    """Return the connections in use over the last round's time, every way on one pair of axes."""
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, _HEIGHT)
    drawn = []
    free = (letter for letter in ascii_lowercase * 9 if letter not in _MARKERS.values())
    for label, runs in ways.items():
        in_use = runs[-1].series.in_use
        if any(in_use):
            marker = _MARKERS.get(label) or next(free)
            plotext.plot(range(len(in_use)), in_use, marker=marker)
            drawn.append(f"{marker} {label}")
    if not drawn:
        return ""
    plotext.title("connections in use")
    plotext.xlabel(f"seconds     ({', '.join(drawn)})")
    plotext.ylim(lower=0)
    chart: str = plotext.build()
    return chart


def _lessons(ways: RunsByMode) -> Iterable[str]:
    """Say what differs between the ways where nothing should, and where a run failed."""
    counts = {
        (run.count_of("write"), run.count_of("read")) for runs in ways.values() for run in runs
    }
    if len(counts) == 1:
        created, read = counts.pop()
        yield f"created {created:,}, read {read:,} in every run"
    else:
        yield "created and read differ between the runs:"
        for label, runs in ways.items():
            each = ", ".join(f"{r.count_of('write'):,} and {r.count_of('read'):,}" for r in runs)
            yield f"  {escape(label)}: {each}"
    for label, runs in ways.items():
        if bad := sum(run.failed + run.indeterminate for run in runs):
            yield f"[red]{escape(label)}: {bad:,} operations failed[/]"
