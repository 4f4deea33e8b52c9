"""The tables of the HTML report: rows of text, which the template escapes and lays out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isnan
from statistics import median
from typing import Any

from ..results.changes import Change
from ..results.findings import ServerSide
from ..results.run import RunResult
from ..results.time_split import MEANINGS, PARTS, parts_shown
from ..verdict.validity import doubts, measurement_text
from ..verdict.verdict import Word, judge
from ..verdict.verdict import worst as worst_of
from . import shards
from .comparison import RunsByMode, base_of, ratios
from .console import milliseconds
from .findings import checks_left_out, server_lines, shown_checks

_LATENCIES = ("mean", "p50", "p90", "p95", "p99", "p99_9", "max")
# A page of hundreds is read by nobody.
_MOST_REPEATS = 40
# Counts that have a column only where there are any.
_SELDOM = ("indeterminate", "dropped", "late", "retries")
ASKED, RAN_ON, DIFFERENT = "What was asked for", "What it ran on", "What differs"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell; `kind` is good, bad, warn or code, `more` is what unfolds below it."""

    text: str
    kind: str = ""
    more: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """
    A table whose first column heads its rows.

    `text` columns are for words, the others for numbers; a `narrow` one is no wider than these.
    """

    caption: str
    headings: tuple[str, ...]
    rows: list[tuple[str | Cell, ...]]
    text: frozenset[int] = frozenset({0})
    narrow: bool = False


@dataclass(frozen=True, slots=True)
class Split:
    """Where one operation's time went: means in milliseconds with their shares (0 to 1)."""

    operation: str
    parts: Mapping[str, tuple[str, float]]
    statements: str


def thresholds(result: RunResult) -> Table | None:
    """Return each threshold with the figure that it was held against."""
    rows: list[tuple[str | Cell, ...]] = []
    for one in judge(result).criteria:
        if one.kind == "errors":
            text = Cell(f"error rate at most {one.bound or 0.0:.2%}")
        elif one.kind == "threshold":
            text = Cell(one.name, "code")
        elif one.kind == "run" and one.reason:
            text = Cell(one.name)
        else:
            continue
        beside = one.reason if one.passed or not one.found else ""
        found = "; ".join(filter(None, (one.found, beside)))
        rows.append((text, found, _OUTCOMES[one.outcome]))
    if rows:
        rows.append(_measurement(result))
    return Table("", ("threshold", "found", "verdict"), rows) if rows else None


_OUTCOMES = {
    "passed": Cell("holds", "good"),
    "not measured": Cell("not measured", "warn"),
    "failed": Cell("fails", "bad"),
}


def _measurement(result: RunResult) -> tuple[str | Cell, ...]:
    """Return whether the figures above are to be believed, which not everybody asks for."""
    found = doubts(result)
    text = measurement_text(result) if found else ""
    if result.settings.get("require_valid"):
        return ("the measurement is good", text, _OUTCOMES["not measured" if found else "passed"])
    return ("the measurement", text, Cell("doubtful", "warn") if found else Cell("good", "good"))


def operations(result: RunResult) -> Table:
    """Return counts and latencies of each operation."""
    every = result.by_operation.values()
    counted = ["failed", *(key for key in _SELDOM if any(getattr(o, key) for o in every))]
    rows: list[tuple[str | Cell, ...]] = []
    for name, operation in result.by_operation.items():
        latency = operation.histogram.summary_ms()
        figures = [milliseconds(latency[key]) if operation.count else "-" for key in _LATENCIES]
        counts = [_bad(getattr(operation, key)) for key in counted]
        rows.append((name, f"{operation.count:,}", *counts, *figures))
    names = (name.replace("_", ".") for name in _LATENCIES)
    headings = ("operation", "count", *counted, *names)
    return Table("Latencies in milliseconds, of operations that ended well.", headings, rows)


def _bad(count: int) -> Cell:
    return Cell(f"{count:,}", "bad" if count else "")


def schedule(result: RunResult) -> Table | None:
    """Return how the schedule of arrivals was kept; None in a closed model."""
    if (kept := result.schedule) is None:
        return None
    lag = kept.lag.summary_ms()
    counts = (f"{kept.due:,}", f"{kept.started:,}", _bad(kept.dropped))
    keys = ("p50", "p95", "p99", "max")
    caption = "Lag: milliseconds from when an operation was due to when it began."
    headings = ("due", "started", "dropped", *(f"lag {key}" for key in keys))
    rows: list[tuple[str | Cell, ...]] = [(*counts, *(milliseconds(lag[key]) for key in keys))]
    return Table(caption, headings, rows, frozenset())


def processes(result: RunResult) -> Table | None:
    """Return what each process of a split run did."""
    rows: list[tuple[str | Cell, ...]] = []
    for (name, *figures), shard in zip(shards.rows(result), result.shards, strict=True):
        rows.append((Cell(name, "bad" if shard.lost else ""), *figures))
    return Table("", shards.headings(result), rows) if rows else None


def parts(result: RunResult) -> dict[str, tuple[str, str]]:
    """Return the parts of the time that are shown: each with its heading and its meaning."""
    found = [o.split for o in result.by_operation.values() if o.split is not None]
    return {name: (PARTS[name], MEANINGS[name]) for name in parts_shown(*found)}


def splits(result: RunResult) -> list[Split]:
    """Return where each operation's time went; nothing for a run without the time split."""
    found = []
    for name, operation in result.by_operation.items():
        if (split := operation.split) is None or not split.count:
            continue
        means = {key: getattr(split, key).mean_ns for key in parts(result)}
        whole = sum(means.values()) or 1.0
        found.append(
            Split(
                name,
                {key: (milliseconds(ns / 1e6), ns / whole) for key, ns in means.items()},
                f"{split.statements_per_operation:.2f} ({split.most_statements})",
            )
        )
    return found


def repeats(result: RunResult) -> Table | None:
    """Return the statements that operations repeat."""
    rows: list[tuple[str | Cell, ...]] = [
        (
            repeat.operation,
            f"{repeat.most:,}",
            f"{repeat.mean:.1f}",
            f"{repeat.operations:,}",
            Cell(repeat.statement, "code"),
            Cell(repeat.source, "code") if repeat.source else "-",
            repeat.cause or "-",
        )
        for repeat in result.repeated_statements[:_MOST_REPEATS]
    ]
    headings = ("operation", "most", "mean", "operations", "statement", "asked by", "cause")
    caption = "How often one operation executed the same statement: at most and in the mean."
    if (more := len(result.repeated_statements) - len(rows)) > 0:
        caption += f" Those executed most; {more:,} more are in the JSON."
    return Table(caption, headings, rows, frozenset({0, 4, 5, 6})) if rows else None


def errors(result: RunResult) -> Table | None:
    """Return each class of failure with its sample."""
    rows: list[tuple[str | Cell, ...]] = []
    for name, error in sorted(result.errors.items(), key=lambda item: -item[1].count):
        where = ", ".join(f"{op} {count:,}" for op, count in error.by_operation.items())
        source = Cell(error.source, "code") if error.source else "-"
        sample = Cell(error.sample, more=error.traceback)
        rows.append((name, f"{error.count:,}", where, sample, source))
    headings = ("error", "count", "operations", "for example", "at")
    return Table("", headings, rows, frozenset({0, 2, 3, 4})) if rows else None


def checks(result: RunResult) -> Table | None:
    """Return how often each of the workload's own checks held."""
    rows: list[tuple[str | Cell, ...]] = [
        (name, Cell(f"{check.passed:,}"), _bad(check.failed))
        for name, check in shown_checks(result)
    ]
    rows += [(line, Cell(""), Cell("")) for line in checks_left_out(result)]
    return Table("", ("check", "held", "did not"), rows) if rows else None


def server_statements(side: ServerSide | None) -> Table | None:
    """Return what the server spent on each statement."""
    if side is None or not side.statements:
        return None
    whole = side.total_ms or sum(s.total_ms for s in side.statements) or 1.0
    rows: list[tuple[str | Cell, ...]] = [
        (
            Cell(one.statement, "code"),
            f"{one.calls:,}",
            f"{one.total_ms / 1000:,.2f}",
            f"{one.total_ms / whole:.0%}",
            f"{one.mean_ms:.3f}",
            f"{one.rows:,}",
        )
        for one in side.statements
    ]
    headings = ("statement", "calls", "total s", "share", "mean ms", "rows")
    return Table("As pg_stat_statements counted them during the run.", headings, rows)


def server(side: ServerSide | None) -> list[tuple[str, str]]:
    """Return what else the server told: counts, waits, and what it would not tell."""
    lines = server_lines(side) if side is not None else ()
    return [(label, text) for label, text in lines if label != "server SQL"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A change's interval as a picture: places from 0 to 100 of which 50 is no change."""

    low: float
    high: float
    change: float
    tolerance: float


def changes(result: RunResult) -> list[tuple[tuple[str | Cell, ...], Interval | None]]:
    """Return each change since the baseline: its cells, and its interval where there is one."""
    if result.baseline is None:
        return []
    return [
        (
            (
                Cell(change.check, "code"),
                _finding(change),
                change.change_text,
                change.interval_text,
                change.before_text,
                change.now_text,
            ),
            _interval(change),
        )
        for change in result.baseline.changes
    ]


def _finding(change: Change) -> Cell:
    kinds = {"regression": "bad" if change.fails else "warn", "inconclusive": "warn"}
    return Cell(change.finding, kinds.get(change.finding, "good"), change.reason or None)


def _interval(change: Change) -> Interval | None:
    if change.low is None or change.high is None or change.change is None:
        return None
    worst = -change.tolerance if change.unit == "/s" else change.tolerance
    span = max(abs(v) for v in (2 * worst, change.low, change.high)) * 1.05 or 1.0
    places = (50 + 50 * v / span for v in (change.low, change.high, change.change, worst))
    return Interval(*places)


# --- several runs --------------------------------------------------------------------------


def compared(ways: RunsByMode) -> Table:
    """Return a row for each way, with the medians of its rounds."""
    base = base_of(ways)
    against = ratios(ways, base)
    rows: list[tuple[str | Cell, ...]] = []
    for label, runs in ways.items():
        latencies = [run.latency().summary_ms() for run in runs]
        rows.append(
            (
                label,
                verdict_cell(worst(runs)),
                f"{median(run.seconds for run in runs):,.2f}",
                f"{median(run.throughput for run in runs):,.0f}",
                *(milliseconds(median(x[p] for x in latencies)) for p in ("p50", "p95", "p99")),
                f"{max(run.error_rate for run in runs):.2%}",
                f"{max(run.pool.peak_in_use if run.pool else 0 for run in runs):,}",
                f"{median(run.process.peak_memory_bytes for run in runs) / 2**20:,.0f}",
                "-" if isnan(against[label]) else f"{against[label]:.2f}",
            )
        )
    headings = (
        *("way", "verdict", "seconds", "ops/s", "p50", "p95", "p99 ms"),
        *("failed", "conns", "MiB", f"× {base}"),
    )
    return Table(_rounds(ways), headings, rows, frozenset({0}))


def _rounds(ways: RunsByMode) -> str:
    most = max(map(len, ways.values()))
    if most == 1:
        return ""
    figures = f"Medians of {most} rounds; failed and conns are the most of any."
    return f"{figures} The charts show the round of median throughput."


def worst(runs: Iterable[RunResult]) -> Word:
    """Return the worst of the runs' verdicts."""
    return worst_of(map(judge, runs)).word


_TONES: Mapping[Word, str] = {
    "passed": "good",
    "not measured": "warn",
    "stopped": "warn",
    "failed": "bad",
}


def verdict_cell(word: Word) -> Cell:
    """Return a verdict as a cell."""
    return Cell(word, _TONES[word])


def circumstances(ways: RunsByMode) -> dict[str, Table]:
    """Return by title what was asked for and on what it ran, what differs between runs first."""
    known = [_facts(runs[0]) for runs in ways.values()]
    facts = list(dict.fromkeys(fact for each in known for fact in each))
    differing = [fact for fact in facts if len({each.get(fact) for each in known}) > 1]
    tables = {}
    if differing:
        rows: list[tuple[str | Cell, ...]] = [
            (fact[1], *(each.get(fact, "-") for each in known)) for fact in differing
        ]
        text = frozenset(range(len(known) + 1))
        tables[DIFFERENT] = Table("", ("option", *ways), rows, text, narrow=True)
    for title in (ASKED, RAN_ON):
        rows = [
            (fact[1], known[0][fact])
            for fact in facts
            if fact not in differing and fact[0] == title
        ]
        if rows:
            tables[title] = Table("", ("", ""), rows, frozenset({0, 1}), narrow=True)
    return tables


def _facts(run: RunResult) -> dict[tuple[str, str], str]:
    """Return what is known of a run, by the table it belongs to and its name."""
    # The run's own first: a rate makes an open model of whatever mode was the default.
    own = {"workload": run.workload, "mode": run.mode}
    asked = own | dict(run.settings) | own
    facts = {(ASKED, name): text for name, text in _leaves(asked)}
    for part in run.environment.values():
        if isinstance(part, Mapping):
            facts |= {(RAN_ON, name): text for name, text in _leaves(part)}
    return facts


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and text of whatever was said; what was left open is not worth a row."""
    for name, value in values.items():
        match value:
            case None | [] | ():
                continue
            case Mapping():
                yield from ((inner, text) for inner, text in _leaves(value))
            case bool():
                yield name, "on" if value else "off"
            case list() | tuple():
                yield name, ", ".join(map(str, value))
            case _:
                yield name, str(value)
