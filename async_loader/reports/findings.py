"""Repeated statements and the server's own account, as lines that every report can show."""

from __future__ import annotations

from collections.abc import Iterator

from ..load.metrics.check_tally import MOST_NAMES
from ..results.findings import DatabaseCounts, RepeatedStatement, ServerSide, ServerStatement
from ..results.loop_profile import LoopProfile
from ..results.parts import CheckResult
from ..results.run import RunResult

MOST_REPEATS = 10
MOST_STATEMENTS = 3
MOST_WAITS = 5
MOST_CHECKS = 20
MOST_FUNCTIONS = 3
_OWNERS = {
    "sqlalchemy": "SQLAlchemy",
    "driver": "driver",
    "application": "application",
    "async_loader": "async_loader itself",
    "loop": "the loop",
}


def accounting_lines(result: RunResult) -> Iterator[str]:
    """Yield what of the work asked for was not done, or not wholly, beside what failed."""
    if result.ended_by is not None:
        yield f"the run was over early: {result.ended_by}"
    if missing := result.not_started:
        yield f"{missing:,} of the {result.planned:,} operations asked for were never started"
    if kept := result.after_commit:
        which = "it had committed by then stays, and it was" if kept == 1 else ""
        which = which or "they had committed by then stays, and they were"
        yield f"{kept:,} failed after commit: what {which} not tried again"


def repeat_lines(result: RunResult) -> Iterator[str]:
    """Yield a line for each N+1, those with most executions first, and how many are not shown."""
    for repeat in result.repeated_statements[:MOST_REPEATS]:
        yield repeat_line(repeat, result)
    if (more := len(result.repeated_statements) - MOST_REPEATS) > 0:
        yield f"and {more} more, in the JSON"


def repeat_line(repeat: RepeatedStatement, result: RunResult) -> str:
    """Return one N+1: `read: SELECT ... ×40 in one operation, at shop/load.py:31 in ...`."""
    operation = result.by_operation.get(repeat.operation)
    of = f" of {operation.count:,}" if operation else ""
    text = (
        f"{repeat.operation}: {repeat.statement} ×{repeat.most} in one operation "
        f"(mean {repeat.mean:.1f}, in {repeat.operations:,}{of})"
    )
    if repeat.source:
        text += f", at {repeat.source}"
    return f"{text} ({repeat.cause})" if repeat.cause else text


def loop_owners(profile: LoopProfile) -> str:
    """Return whose code the event loop ran, and the functions of the application's most at work."""
    owners = sorted(profile.owners.items(), key=lambda item: -item[1])
    shares = [f"{_OWNERS.get(name, name)} {count / profile.busy:.0%}" for name, count in owners]
    functions = [
        f"{name} {count / profile.busy:.0%}"
        for name, count in list(profile.functions.items())[:MOST_FUNCTIONS]
        if count > 0.02 * profile.busy
    ]
    return "; ".join(filter(None, (", ".join(shares), ", ".join(functions))))


def shown_checks(result: RunResult) -> list[tuple[str, CheckResult]]:
    """Return the checks that a report has room for: those that failed come first."""
    checks = sorted(result.checks.items(), key=lambda item: -item[1].failed)
    return checks[:MOST_CHECKS]


def checks_left_out(result: RunResult) -> Iterator[str]:
    """Yield how many checks are not shown, and what is better where each has a name of its own."""
    if (more := len(result.checks) - MOST_CHECKS) > 0:
        yield f"and {more:,} more, in the JSON"
    if len(result.checks) > MOST_NAMES:
        yield (
            "checks have names of their own, and are counted by what those have in common: name a "
            "check by what it checks, not by what it checks it of"
        )


def server_lines(side: ServerSide) -> Iterator[tuple[str, str]]:
    """Yield (label, text) for what the server counted, where it waited, and what is missing."""
    if side.database is not None:
        yield "server", ", ".join(_counts(side.database))
    if side.samples:
        yield "server waits", _waits(side)
    for statement in (side.statements or ())[:MOST_STATEMENTS]:
        yield "server SQL", _statement(statement, side.total_ms or 0.0)
    for note in side.notes:
        yield "server", note


def _counts(counts: DatabaseCounts) -> Iterator[str]:
    if counts.cache_hits is not None:
        yield f"cache hits {counts.cache_hits:.1%}"
    yield _number(counts.commits, "commit")
    yield _number(counts.rollbacks, "rollback")
    yield _number(counts.deadlocks, "deadlock")
    size = f" ({counts.temp_bytes / 2**20:,.1f} MiB)" if counts.temp_files else ""
    yield _number(counts.temp_files, "temp file") + size


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _waits(side: ServerSide) -> str:
    seen = sum(side.waits.values())
    if not seen:
        return f"nothing seen in {side.samples} samples"
    busiest = sorted(side.waits.items(), key=lambda item: -item[1])[:MOST_WAITS]
    shares = ", ".join(f"{name} {count / seen:.0%}" for name, count in busiest)
    return f"{shares} ({seen / side.samples:.1f} connections, {side.samples} samples)"


def _statement(statement: ServerStatement, total_ms: float) -> str:
    share = f" ({statement.total_ms / total_ms:.0%})" if total_ms else ""
    return (
        f"{statement.total_ms / 1000:,.2f} s{share}, {statement.calls:,} × "
        f"{statement.mean_ms:.3f} ms: {statement.statement}"
    )
