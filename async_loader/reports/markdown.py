"""Markdown for a job's summary or a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from statistics import median

from ..results.run import RunResult
from ..verdict.knee import by_of, fault, level_of
from ..verdict.validity import measurement_text
from ..verdict.verdict import Verdict, Word, judge, worst
from . import shards
from .comparison import RunsByMode, base_of, ratios
from .console import milliseconds, sentences, service_times
from .findings import repeat_lines, server_lines
from .next_command import next_command
from .plans import plan_lines
from .sweep import advice_lines, advice_of, headline, latency_limit, level_text

_LATENCIES = ("p50", "p90", "p95", "p99", "p99_9", "max")
_MOST_ERRORS = 10
_SIGNS: Mapping[Word, str] = {
    "passed": "✅",
    "not measured": "❔",
    "failed": "❌",
    "stopped": "⚠️",
}


def render(result: RunResult) -> str:
    """Return the verdict with its reasons, the thresholds and a row for each operation."""
    verdict = judge(result)
    lines = [
        f"### {_headline(verdict)}: {_plain(result.title)}, {result.throughput:,.0f} operations/s",
        "",
        f"{result.outcome}: {result.completed:,} operations in {result.seconds:.2f} s, "
        f"{result.error_rate:.2%} failed{_beside(result)}",
        "",
        *(f"- {_plain(reason)}" for reason in verdict.remarks),
        "",
        *_thresholds(verdict),
        *_changes(result),
        *_operations(result),
        *_shards(result),
        *_errors(result),
        *_findings(result),
    ]
    for sentence in sentences(result):
        lines += ["", f"> {_plain(sentence)}"]
    if (served := service_times(result)) is not None:
        lines += ["", f"Without our own queue an operation takes: {_plain(served)}."]
    if (command := next_command(result)) is not None:
        lines += ["", "Latencies at 70 % of that throughput:", "", "```sh", command, "```"]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def _beside(result: RunResult) -> str:
    """Return what else was counted, and whether the measurement is good."""
    counts = {
        "dropped": result.dropped,
        "late": result.late,
        "tried again": result.retries,
    }
    parts = [f", {count:,} {name}" for name, count in counts.items() if count]
    return "".join(parts) + f"; measurement {measurement_text(result)}"


def _shards(result: RunResult) -> list[str]:
    if not result.shards:
        return []
    columns = shards.headings(result)
    lines = [_row(*columns), "|---|" + "---:|" * (len(columns) - 1)]
    return [*lines, *(_row(*map(_plain, row)) for row in shards.rows(result)), ""]


def render_comparison(ways: RunsByMode) -> str:
    """Return a row for each way, with the medians of its rounds, and what kept one from passing."""
    base = base_of(ways)
    against = ratios(ways, base)
    lines = [
        f"### {len(ways)} ways compared",
        "",
        _row("", "", "ops/s", "p50", "p95", "p99", "failed", f"x {_plain(base)}"),
        "|---|---|" + "---:|" * 6,
    ]
    for label, runs in ways.items():
        latencies = [run.latency().summary_ms() for run in runs]
        lines.append(
            _row(
                _SIGNS[worst(map(judge, runs)).word],
                _plain(label),
                f"{median(run.throughput for run in runs):,.0f}",
                *(milliseconds(median(x[p] for x in latencies)) for p in ("p50", "p95", "p99")),
                f"{max(run.error_rate for run in runs):.2%}",
                "-" if isnan(against[label]) else f"{against[label]:.2f}",
            )
        )
    lines += ["", "Medians over the rounds; latencies in milliseconds.", ""]
    for label, runs in ways.items():
        reasons = dict.fromkeys(reason for run in runs for reason in judge(run).reasons)
        lines += [f"- {_plain(label)}: {_plain(reason)}" for reason in reasons]
    return "\n".join(lines).rstrip("\n") + "\n"


def render_sweep(steps: Sequence[RunResult]) -> str:
    """Return what to run with, and a row for each step."""
    advice, limit = advice_of(steps), latency_limit(steps)
    knee = steps[advice.step] if advice else None
    lines = [f"### {_SIGNS['passed' if advice else 'failed']} {headline(steps, advice)}", ""]
    lines += [f"- {_plain(line)}" for line in advice_lines(steps, advice)]
    lines += ["", _row(by_of(steps[0]), "ops/s", "p50", "p95", "p99", "conns", "busy", "")]
    lines.append("|---:|" + "---:|" * 6 + "---|")
    for step in sorted(steps, key=level_of):
        latency = step.latency().summary_ms()
        figures = (
            f"{step.throughput:,.0f}",
            *(milliseconds(latency[figure]) for figure in ("p50", "p95", "p99")),
            f"{step.pool.peak_in_use if step.pool else 0:,}",
            f"{step.process.loop_busy:.0%}",
        )
        remark = "**the knee**" if step is knee else fault(step, limit) or ""
        lines.append(_row(level_text(step), *figures, remark))
    return "\n".join([*lines, "", "Latencies in milliseconds."]) + "\n"


def _headline(found: Verdict) -> str:
    return f"{_SIGNS[found.word]} {found.word}"


def _thresholds(verdict: Verdict) -> Iterator[str]:
    thresholds = [one for one in verdict.criteria if one.kind == "threshold"]
    if not thresholds:
        return
    yield "| threshold | found | |"
    yield "|---|---:|---|"
    for one in thresholds:
        text = _OUTCOMES[one.outcome]
        if one.passed and one.reason:
            text = f"{text}: {_plain(one.reason)}"
        yield _row(f"`{re.sub('[|`]', '', one.name)}`", one.found, text)
    yield ""


_OUTCOMES = {"passed": "holds", "not measured": "**not measured**", "failed": "**fails**"}


def _changes(result: RunResult) -> Iterator[str]:
    if result.baseline is None:
        return
    yield "| against the baseline | was | now | change | 95 % interval | |"
    yield "|---|---:|---:|---:|---:|---|"
    for one in result.baseline.changes:
        found = f"**{one.finding}**" if one.finding == "regression" else one.finding
        why = f": {_plain(one.reason)}" if one.reason else ""
        figures = (one.before_text, one.now_text, one.change_text, one.interval_text)
        yield _row(f"`{re.sub('[|`]', '', one.check)}`", *figures, f"{found}{why}")
    yield ""
    yield from (f"- {_plain(sentence)}" for sentence in result.baseline.differences)
    yield ""


def _operations(result: RunResult) -> Iterator[str]:
    yield _row("operation", "count", "failed", *(name.replace("_", ".") for name in _LATENCIES))
    yield "|---|" + "---:|" * (len(_LATENCIES) + 2)
    for name, operation in result.by_operation.items():
        latency = operation.histogram.summary_ms()
        bad = operation.failed + operation.indeterminate
        figures = [milliseconds(latency[key]) if operation.count else "-" for key in _LATENCIES]
        yield _row(_plain(name), f"{operation.count:,}", f"{bad:,}", *figures)
    yield from ("", "Latencies in milliseconds.")


def _errors(result: RunResult) -> Iterator[str]:
    if not result.errors:
        return
    yield from ("", "| error | count | for example | at |", "|---|---:|---|---|")
    errors = sorted(result.errors.items(), key=lambda item: -item[1].count)
    for name, error in errors[:_MOST_ERRORS]:
        sample, source = error.sample[:200], error.source or "-"
        yield _row(_plain(name), f"{error.count:,}", _plain(sample), _plain(source))
    if len(errors) > _MOST_ERRORS:
        yield _row(f"and {len(errors) - _MOST_ERRORS} more", "", "", "")


def _findings(result: RunResult) -> Iterator[str]:
    if result.repeated_statements:
        yield from ("", "Repeated statements (N+1):", "")
        yield from (f"- {_plain(line)}" for line in repeat_lines(result))
    if lines := list(plan_lines(result)):
        yield from ("", "Plans of the slowest statements:", "", "```text")
        yield from (line.replace("`", "'") for line in lines)
        yield "```"
    if result.server_side is not None:
        yield from ("", "Server:", "")
        yield from (f"- {_plain(text)}" for _, text in server_lines(result.server_side))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Return text on one line that ends no cell, starts no markup and calls nobody by @name."""
    escaped = re.sub(r"([\\|<>*_`\[\]#~])", r"\\\1", " ".join(text.split()))
    return escaped.replace("@", "@\N{ZERO WIDTH SPACE}")
