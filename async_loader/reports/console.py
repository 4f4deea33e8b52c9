"""The summary on the terminal: readable at 80 columns, plain in a pipe."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from ..results.parts import OperationResult, ProcessResult
from ..results.run import RunResult
from ..results.time_split import PARTS, parts_shown
from ..results.warm_up import WarmUpResult
from ..verdict.diagnosis import blocked_loop, bottleneck, leaked_connections, serialised_writes
from ..verdict.validity import doubts, is_at_full_speed, measurement_text
from ..verdict.verdict import Verdict, judge
from .changes import baseline_lines
from .findings import (
    accounting_lines,
    checks_left_out,
    loop_owners,
    repeat_lines,
    server_lines,
    shown_checks,
)
from .narrow import is_too_wide, one_below_another
from .next_command import next_lines
from .plans import plan_parts
from .shards import headings, rows

_DURABILITY = ("fsync", "synchronous_commit", "journal_mode", "synchronous")
# Where eight of them have to fit beside a name.
_HEADINGS = {"pool_wait": "pool", "elsewhere": "other", "loop_queue": "queue"}
_LATENCIES = ("p50", "p90", "p95", "p99", "p99_9", "max")


def render(result: RunResult, *, width: int = 80, color: bool = False) -> str:
    """
    Return the summary of a run.

    `width` in columns, of which at most 100 are used; `color` adds ANSI codes.
    """
    verdict = judge(result)
    parts: list[RenderableType] = [_headline(result), _totals(result), *verdict_lines(verdict), ""]
    parts += [*circumstances(result), _operations(result)]
    if any(operation.split for operation in result.by_operation.values()):
        parts.append(_time_split(result))
    parts += [_row(label, text) for label, text in measurements(result)]
    if result.server_side is not None:
        parts += [_row(label, text) for label, text in server_lines(result.server_side)]
    if result.shards:
        parts.append(_shards(result))
    parts += _repeats(result)
    parts += plan_parts(result)
    parts += _errors(result)
    parts += _checks(result)
    parts += _thresholds(verdict)
    parts += baseline_lines(result.baseline)
    for sentence in sentences(result):
        parts += ["", f"[yellow]{escape(sentence)}[/]"]
    if lines := next_lines(result, min(width, 100)):
        parts += ["", *map(escape, lines)]
    return printed(parts, width=min(width, 100), color=color)


def printed(parts: Iterable[RenderableType], *, width: int, color: bool) -> str:
    """Return what rich makes of the parts, without blanks at line ends or doubled blank lines."""
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=color,
        no_color=not color,
        highlight=False,
        color_system="standard" if color else None,
    )
    for part in parts:
        if isinstance(part, Table) and is_too_wide(part, console):
            console.print(*one_below_another(part, width), sep="\n")
        else:
            console.print(part)
    lines = "\n".join(line.rstrip() for line in file.getvalue().splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines) + "\n"


def sentences(result: RunResult) -> list[str]:
    """Return what held the run back, and what speaks against its measurement."""
    found = [
        blocked_loop(result),
        *leaked_connections(result),
        *result.unseen,
        bottleneck(result),
        serialised_writes(result),
        _journal(result),
    ]
    # A busy process is the first thing that the bottleneck would be.
    found += [doubt.sentence for doubt in doubts(result) if not doubt.is_bottleneck]
    return [sentence for sentence in found if sentence is not None]


def _journal(result: RunResult) -> str | None:
    """Return what a SQLite file could be set to, which is its owner's to decide."""
    database = result.environment.get("database", {})
    mode = database.get("settings", {}).get("journal_mode")
    if database.get("product") != "SQLite" or mode in (None, "wal", "memory"):
        return None
    return (
        f"The SQLite file is as it was found, in journal_mode {mode}, in which who reads and who "
        "writes wait for each other: PRAGMA journal_mode=WAL, which the file keeps, ends that."
    )


def circumstances(result: RunResult, skip: Sequence[str] = ()) -> Iterator[RenderableType]:
    """Yield a line for each thing that was asked for and each it ran on."""
    return (_row(label, text) for label, text in _facts(result) if label not in skip)


def _headline(result: RunResult) -> str:
    style = "green" if result.outcome == "done" and not result.errors else "yellow"
    planned = result.planned
    of = f" of {planned:,}" if planned is not None and planned != result.completed else ""
    return (
        f"[bold {style}]{result.outcome}[/]  [bold]{result.completed:,}{of} operations "
        f"in {result.seconds:.2f} s: {result.throughput:,.0f} operations/s[/]"
    )


def _totals(result: RunResult) -> str:
    parts = [f"created {result.count_of('write'):,}", f"read {result.count_of('read'):,}"]
    if result.failed:
        parts.append(f"[red]failed {result.failed:,}[/]")
    if result.indeterminate:
        parts.append(f"[red]indeterminate {result.indeterminate:,}[/]")
    if result.dropped:
        parts.append(f"[red]dropped {result.dropped:,}[/]")
    if (limit := result.settings.get("latency_limit")) is not None:
        share = result.late / result.completed if result.completed else 0.0
        parts.append(f"late {result.late:,} ({share:.2%} took more than {limit * 1e3:g} ms)")
    if result.retries:
        parts.append(f"tried again {result.retries:,}")
    return ", ".join(parts)


def _facts(result: RunResult) -> Iterator[tuple[str, str]]:
    """Yield what was asked for and on what it ran."""
    asked, found = result.settings, result.environment
    if label := asked.get("label"):
        yield "label", label
    yield "workload", f"{result.workload}, seed {asked.get('seed', 0)}{_helped(result)}"
    yield "load model", load_model(result)
    if database := found.get("database"):
        durability = ", ".join(
            f"{name} {database['settings'][name]}"
            for name in _DURABILITY
            if name in database["settings"]
        )
        yield (
            "database",
            (f"{database['product']} {database['version']} {database['where']}, {durability}"),
        )
        if "kept" in database:
            yield "data kept in", database["kept"]
    if versions := found.get("versions"):
        yield "versions", ", ".join(f"{name} {number}" for name, number in versions.items())
    if machine := found.get("machine"):
        yield "machine", f"{machine['platform']}, {machine['cpus']} cores, {machine['loop']} loop"


def _helped(result: RunResult) -> str:
    """Return what the run does for its operations that an application's own sessions may not."""
    asked = result.settings
    if result.environment.get("database") is None:
        return ""
    found = ["inserts in batches"] if asked.get("batch_inserts") else []
    found += ["reads by fast paths"] if asked.get("fast_paths") else []
    found += ["reads in AUTOCOMMIT"] if asked.get("read_autocommit") else []
    return f", {', '.join(found)}" if found else ""


def load_model(result: RunResult) -> str:
    """Return the load that was asked for: open or closed, and its rate, users or stages."""
    asked = result.settings
    stages = " ".join(asked.get("stage", []))
    if result.mode == "open":
        rate = " ".join(filter(None, (asked.get("rate"), stages))) or "?"
        most = f"at most {asked.get('max_in_flight', '?')} in flight"
        return f"open, {rate} {asked.get('arrivals', '')}, {most}"
    if result.mode == "ramp":
        return f"closed, users {stages or '?'}"
    users = asked.get("concurrency", "?")
    closed = {"semaphore": f"closed, {users} users", "chunks": f"closed, chunks of {users}"}
    return closed.get(result.mode, f"{result.mode}, concurrency {users}")


def _operations(result: RunResult) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("operation", overflow="fold", min_width=10)
    for heading in ("count", "failed", "p50", "p90", "p95", "p99", "p99.9", "max ms"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=6)
    for name, operation in result.by_operation.items():
        table.add_row(escape(name), *_cells(operation))
    return table


def _cells(operation: OperationResult) -> list[str]:
    bad = operation.failed + operation.indeterminate
    latency = operation.histogram.summary_ms()
    figures = [milliseconds(latency[key]) if operation.count else "-" for key in _LATENCIES]
    return [f"{operation.count:,}", f"[red]{bad:,}[/]" if bad else "0", *figures]


def _time_split(result: RunResult) -> Table:
    """Return where the time of each operation went, in means, which add up."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("mean ms", overflow="fold", min_width=10)
    shown = parts_shown(*(o.split for o in result.by_operation.values() if o.split is not None))
    for heading in (*(_HEADINGS.get(name, PARTS[name]) for name in shown), "SQL (most)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, operation in result.by_operation.items():
        if (split := operation.split) is None:
            continue
        means = {name: part.mean_ns for name, part in split.parts()}
        whole = sum(means.values()) or 1.0
        table.add_row(
            escape(name),
            *(_with_share(means[name], whole) for name in shown),
            f"{split.statements_per_operation:.2f} ({split.most_statements})",
        )
    return table


def _with_share(ns: float, whole: float) -> str:
    if not ns:
        return "-"
    small = f"{ns / 1e6:.2f}"  # more would not fit into 80 columns
    return f"{milliseconds(ns / 1e6) if ns >= 1e5 else small} {ns / whole:3.0%}"


def _shards(result: RunResult) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    for number, heading in enumerate(headings(result)):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in rows(result):
        table.add_row(*map(escape, row))
    return table


def measurements(result: RunResult) -> Iterator[tuple[str, str]]:
    """Yield (label, text) for what the pool, the event loop and the process went through."""
    if (before := result.warm_up) is not None:
        yield "warm-up", _warm_up(before)
    if pool := result.pool:
        size = f" of {pool.size}" if pool.size else ""
        yield "connections", f"{pool.peak_in_use}{size} in use at peak, {pool.peak_waiting} waiting"
    if schedule := result.schedule:
        late = schedule.lag.percentiles_ns([99.0])[99.0] / 1e6
        yield (
            "schedule",
            f"{schedule.started:,} of {schedule.due:,} arrivals started, "
            f"{milliseconds(late)} ms late at p99",
        )
    process = result.process
    lag = process.loop_lag.percentiles_ns([99.0])[99.0] / 1e6
    if result.mode not in ("sync", "threads"):
        yield "event loop", f"{_busy(process)}, lag p99 {milliseconds(lag)} ms"
        if (profile := result.loop_profile) is not None and profile.busy:
            yield "loop runs", loop_owners(profile)
    else:
        yield result.mode, f"{process.loop_busy:.0%} busy"
    yield "measurement", measurement_text(result)
    if (served := service_times(result)) is not None:
        yield "service time", f"{served} on average, without our own queue"
    memory = process.peak_memory_bytes / 2**20
    number = f"{process.processes} of them, " if process.processes > 1 else ""
    yield "process", f"{number}CPU {process.cpu_seconds:.1f} s, peak memory {memory:.0f} MiB"


def _warm_up(before: WarmUpResult) -> str:
    latency = before.histogram.summary_ms()
    others = {"failed": before.failed, "dropped": before.dropped}
    counts = [f"{before.completed:,} operations in {before.seconds:.2f} s"]
    counts += [f"{count:,} {name}" for name, count in others.items() if count]
    figures = ", ".join(f"{p} {milliseconds(latency[p])} ms" for p in ("p50", "p99"))
    return f"{', '.join(counts)}, {figures}; in no other figure"


def service_times(result: RunResult) -> str | None:
    """
    Return what each operation takes but for its wait for our own event loop.

    None where that wait is no part of what was measured: not at full speed.
    """
    if not is_at_full_speed(result):
        return None
    times = []
    for name, operation in result.by_operation.items():
        if (split := operation.split) is not None and operation.count:
            whole = sum(part.mean_ns for label, part in split.parts() if label != "loop_queue")
            times.append(f"{name} {milliseconds(whole / 1e6)} ms")
    shown = [*times[:_MOST_SERVED], *(["..."] if len(times) > _MOST_SERVED else [])]
    return ", ".join(shown) or None


_MOST_SERVED = 6


def _busy(process: ProcessResult) -> str:
    """Return how busy the event loop was: had it no core, it was not it that was busy."""
    machine = process.machine
    if machine is None or not machine.starved or machine.waited is None:
        return f"{process.loop_busy:.0%} busy"
    return f"ran {machine.ran:.0%} of the time, waited for a core {machine.waited:.0%}"


def _errors(result: RunResult) -> Iterator[str]:
    accounting = [f"[bold yellow]{escape(line)}[/]" for line in accounting_lines(result)]
    if accounting:
        yield ""
        yield from accounting
    if not result.errors:
        return
    yield ""
    yield f"[bold red]errors[/]  {result.error_rate:.2%} of the operations"
    for name, error in result.errors.items():
        where = ", ".join(f"{op} {n:,}" for op, n in error.by_operation.items())
        yield f"  [red]{error.count:>7,}[/] {escape(name)} ({escape(where)})"
        if error.sample != name:
            yield f"          {escape(error.sample)}"
        if error.source is not None:
            yield f"          at {escape(error.source)}"


def _repeats(result: RunResult) -> Iterator[RenderableType]:
    """Return the N+1, each with what to look at."""
    if not result.repeated_statements:
        return
    yield ""
    yield "[bold]repeated statements[/]  (N+1)"
    for line in repeat_lines(result):
        yield f"  [yellow]{escape(line)}[/]"


def _checks(result: RunResult) -> Iterator[str]:
    if result.checks:
        yield ""
        yield "[bold]checks[/]"
    for name, check in shown_checks(result):
        style = "red" if check.failed else "green"
        yield f"  [{style}]{check.passed:,} of {check.passed + check.failed:,}[/]  {escape(name)}"
    for line in checks_left_out(result):
        yield f"  [dim]{escape(line)}[/]"


def verdict_lines(verdict: Verdict) -> Iterator[RenderableType]:
    """Yield the word, and below it a line for each reason."""
    style = _STYLES[verdict.word]
    yield f"[bold {style}]{verdict.word}[/]"
    for reason in verdict.remarks:
        yield f"  [{style}]{escape(reason)}[/]"


_STYLES = {"passed": "green", "not measured": "yellow", "failed": "red", "stopped": "yellow"}
_MARKS = {
    "passed": "[green]holds[/]",
    "not measured": "[bold yellow]not measured[/]",
    "failed": "[bold red]fails[/]",
}


def _thresholds(verdict: Verdict) -> Iterator[str]:
    thresholds = [one for one in verdict.criteria if one.kind == "threshold"]
    if thresholds:
        yield ""
        yield "[bold]thresholds[/]"
    for one in thresholds:
        found = "no figure" if one.figure is None else f"{one.figure:,.4g}"
        beside = f": {escape(one.reason)}" if one.passed and one.reason else ""
        yield f"  {_MARKS[one.outcome]}  {escape(one.name)}  (found {found}){beside}"


def _row(label: str, text: str) -> Table:
    """Return a line whose text wraps below itself."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=12, style="dim")
    grid.add_column(overflow="fold")
    grid.add_row(label, escape(text))
    return grid


def milliseconds(value: float) -> str:
    """Return a duration in milliseconds with three digits that matter, or in whole seconds."""
    if value >= 99_999.5:
        return f"{value / 1000:.0f}s"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"
