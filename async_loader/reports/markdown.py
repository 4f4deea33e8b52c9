"""Markdown for a job's summary or a comment on a pull request."""

from __future__ import annotations

import re

from async_loader.diagnosis import bottleneck
from async_loader.reports.console import milliseconds
from async_loader.reports.findings import repeat_lines, server_lines
from async_loader.results import RunResult
from async_loader.thresholds import verdicts_of

_LATENCIES = ("p50", "p90", "p95", "p99", "p99_9", "max")


def render(result: RunResult) -> str:
    """Return the verdict, the thresholds and a row for each operation."""
    verdicts = verdicts_of(result)
    lines = [
        f"### {result.outcome}: {result.completed:,} operations in {result.seconds:.2f} s, "
        f"{result.throughput:,.0f} operations/s",
        "",
    ]
    if verdicts:
        lines += ["| threshold | found | |", "|---|---:|---|"]
        lines += [
            _row(
                f"`{verdict.threshold.text.replace('|', '')}`",
                "-" if verdict.figure is None else f"{verdict.figure:,.4g}",
                "holds" if verdict.passed else "**fails**",
            )
            for verdict in verdicts
        ]
        lines.append("")
    lines += [
        _row("operation", "count", "failed", *(name.replace("_", ".") for name in _LATENCIES)),
        "|---|" + "---:|" * (len(_LATENCIES) + 2),
    ]
    for name, operation in result.by_operation.items():
        latency = operation.histogram.summary_ms()
        bad = operation.failed + operation.indeterminate
        figures = [milliseconds(latency[key]) if operation.count else "-" for key in _LATENCIES]
        lines.append(_row(_plain(name), f"{operation.count:,}", f"{bad:,}", *figures))
    lines += ["", "Latencies in milliseconds."]
    if result.errors:
        lines += ["", "| error | count | sample at |", "|---|---:|---|"]
        lines += [
            _row(_plain(name), f"{error.count:,}", _plain(error.source or "-"))
            for name, error in result.errors.items()
        ]
    if result.repeated_statements:
        lines += ["", "Repeated statements (N+1):", ""]
        lines += [f"- {_plain(line)}" for line in repeat_lines(result)]
    if result.server_side is not None:
        lines += ["", "Server:", ""]
        lines += [f"- {_plain(text)}" for _, text in server_lines(result.server_side)]
    if sentence := bottleneck(result):
        lines += ["", sentence]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Return text that ends no cell and starts no markup."""
    return re.sub(r"([\\|<>*_`\[\]])", r"\\\1", text)
