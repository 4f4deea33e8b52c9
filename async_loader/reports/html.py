"""
The report as one HTML file that needs no network: verdict, charts, tables.

All words and tables are in the page as it is written, escaped by the template; its script adds
the charts. The page's own Content-Security-Policy lets nothing run or load but the style and
the scripts whose hashes it names, so that text which slipped through would still be text.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..results.run import RunResult
from ..verdict.knee import by_of
from ..verdict.verdict import Word, judge
from . import page_sweep
from . import page_tables as tables
from .comparison import RunsByMode
from .console import load_model, measurements, milliseconds, sentences
from .next_command import next_command
from .page_data import ALL, chart_data
from .sweep import advice_of, ways_of

_ASSETS = files("async_loader.reports") / "page"
# Operations that one chart shows at once: its colours. Of more, the reader chooses one.
MOST_LINES = 8
_LOAD = {"kind": "load", "title": "Throughput and latency by load", "choices": {}}
_IMPORT = re.compile(r"^import .*\n", re.M)


def render(result: RunResult) -> str:
    """Return the page of one run."""
    return render_comparison({result.mode: [result]})


def render_comparison(ways: RunsByMode) -> str:
    """Return the page of several runs, over the same axes; a page of one run for one."""
    return _page(ways, verdict=_verdict(ways))


def render_sweep(steps: Sequence[RunResult]) -> str:
    """Return the page of a sweep: what to run with, then its steps as of a comparison."""
    advice = advice_of(steps)
    said = "" if by_of(steps[0]) == "rate" else "concurrency "
    return _page(
        {f"{said}{level}": runs for level, runs in ways_of(steps).items()},
        verdict=page_sweep.verdict(steps, advice),
        compared=page_sweep.table(steps, advice),
        load=page_sweep.load_data(steps, advice),
    )


def _page(
    ways: RunsByMode,
    *,
    verdict: dict[str, Any],
    compared: tables.Table | None = None,
    load: dict[str, Any] | None = None,
) -> str:
    runs = [run for rounds in ways.values() for run in rounds]
    alone = runs[0] if len(runs) == 1 else None
    style, scripts = _style(), [_asset("uPlot.iife.min.js"), _script()]
    page: str = _template().render(
        style=style,
        scripts=scripts,
        policy=_policy(style, scripts),
        data=chart_data(ways) | ({"load": load} if load else {}),
        charts=[*([_LOAD] if load else []), *_charts(ways)],
        verdict=verdict,
        alone=alone,
        tiles=_tiles(alone) if alone else [],
        findings=_findings(alone) if alone else [],
        compared=compared or (None if alone else tables.compared(ways)),
        details={
            label if len(rounds) == 1 else f"{label}, round {number}": _details(run)
            for label, rounds in ways.items()
            for number, run in enumerate(rounds, 1)
        },
        circumstances=tables.circumstances(ways),
        version=version("async_loader"),
    )
    return page


def _findings(result: RunResult) -> list[str]:
    command = next_command(result)
    following = [] if command is None else [f"Latencies at 70 % of that throughput: {command}"]
    plans = [
        f"{plan.operation}: {plan.statement}: {finding}"
        for plan in result.plans or ()
        for finding in plan.findings
    ]
    return [*sentences(result), *plans, *following]


# --- what the page says --------------------------------------------------------------------


def _verdict(ways: RunsByMode) -> dict[str, Any]:
    """Return the word, what it is about, and the reasons."""
    runs = [run for rounds in ways.values() for run in rounds]
    word = tables.worst(runs)
    subject = ", ".join(dict.fromkeys(run.title for run in runs))
    if len(runs) == 1:
        (run,) = runs
        sentence = f"{run.completed:,} operations in {_seconds(run.seconds)}"
        if run.planned is not None and run.planned != run.completed:
            sentence = f"{run.completed:,} of {run.planned:,} operations in {_seconds(run.seconds)}"
        subject = f"{subject}, load model {load_model(run)}"
        if started := run.environment.get("started"):
            subject = f"{subject}, started {started[:16].replace('T', ' ')} UTC"
        return _says(word, sentence, subject, judge(run).remarks)
    good = sum(judge(run).word == "passed" for run in runs)
    reasons = {
        f"{label}: {reason}": None
        for label, rounds in ways.items()
        for run in rounds
        for reason in judge(run).reasons
    }
    sentence = f"{good} of {len(runs)} runs passed, {len(ways)} ways compared"
    return _says(word, sentence, subject, tuple(reasons))


def _says(word: Word, sentence: str, subject: str, reasons: tuple[str, ...]) -> dict[str, Any]:
    return {
        "word": word.replace(" ", "-"),
        "title": word.capitalize(),
        "sentence": sentence,
        "subject": subject,
        "reasons": reasons,
    }


def _tiles(run: RunResult) -> list[tuple[str, str, str, bool]]:
    """Return name, figure, unit, and whether it is bad, of what to see at a glance."""
    latency = run.latency().summary_ms()
    bad = run.failed + run.indeterminate
    tiles = [
        ("throughput", f"{run.throughput:,.0f}", "ops/s", False),
        *(
            (name, milliseconds(latency[name]) if run.completed else "-", "ms", False)
            for name in ("p50", "p95", "p99")
        ),
        ("failed", f"{bad:,}", f"{run.error_rate:.2%}" if bad else "", bool(bad)),
    ]
    if schedule := run.schedule:
        lag = schedule.lag.summary_ms()["p99"]
        dropped = f"of {schedule.due:,} due"
        tiles.append(("dropped", f"{schedule.dropped:,}", dropped, bool(schedule.dropped)))
        tiles.append(("schedule lag, p99", milliseconds(lag), "ms", False))
    if run.pool:
        of = f"of {run.pool.size:,}" if run.pool.size else ""
        tiles.append(("connections", f"{run.pool.peak_in_use:,}", of, False))
    tiles.append(("event loop", f"{run.process.loop_busy:.0%}", "busy", False))
    tiles.append(("memory", f"{run.process.peak_memory_bytes / 2**20:,.0f}", "MiB", False))
    return tiles


def _details(run: RunResult) -> dict[str, Any]:
    """Return the tables of one run."""
    return {
        "sentences": sentences(run),
        "thresholds": tables.thresholds(run),
        "baseline": run.baseline,
        "changes": tables.changes(run),
        "operations": tables.operations(run),
        "schedule": tables.schedule(run),
        "measurements": list(measurements(run)),
        "splits": tables.splits(run),
        "parts": tables.parts(run),
        "processes": tables.processes(run),
        "repeats": tables.repeats(run),
        "errors": tables.errors(run),
        "checks": tables.checks(run),
        "statements": tables.server_statements(run.server_side),
        "server": tables.server(run.server_side),
    }


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


# --- charts --------------------------------------------------------------------------------


def _charts(ways: RunsByMode) -> list[dict[str, Any]]:
    """Return the charts that there is something for: kind, title, what may be chosen."""
    runs = [run for rounds in ways.values() for run in rounds]
    several = len(ways) > 1
    names = list(dict.fromkeys(name for run in runs for name in run.by_operation))
    operations = [(ALL, "all operations"), *((n, n) for n in names)] if len(names) > 1 else []
    charts = [{"kind": "throughput", "title": "Throughput", "choices": {}}]
    if any(run.slices and run.slices.length > 1 for run in runs):
        figures = [("p99", "p99"), ("p95", "p95"), ("p50", "p50")] if several else []
        choices = {"operation": operations, "figure": figures}
        charts.append({"kind": "latency", "title": "Latency over time", "choices": choices})
    if any(any(run.series.in_use) for run in runs):
        charts.append({"kind": "connections", "title": "Connections", "choices": {}})
    if any(run.completed for run in runs):
        choices = {"operation": operations if several or len(operations) > MOST_LINES else []}
        charts.append({"kind": "percentiles", "title": "Latency by percentile", "choices": choices})
    return charts


# --- the file ------------------------------------------------------------------------------


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("async_loader.reports", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The order of operations is the workload's, not the alphabet's.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment.get_template("report.html")


def _asset(name: str) -> Markup:
    return Markup((_ASSETS / name).read_text(encoding="utf-8"))  # noqa: S704  a file of ours


def _style() -> Markup:
    return _asset("uPlot.min.css") + _asset("report.css")


def _script() -> Markup:
    """Return the modules as one: what one imports of another is what stands above it."""
    parts = (_asset(name) for name in ("charts.js", "figures.js", "report.js"))
    return Markup("").join(Markup(_IMPORT.sub("", part)) for part in parts)  # noqa: S704  ours


def _policy(style: str, scripts: list[Markup]) -> str:
    """Return the Content-Security-Policy that lets these run, and nothing else do anything."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash(style)}",
            f"script-src {' '.join(map(_hash, scripts))}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
