"""
The plans of the slowest statements, asked for when everything has been measured.

A statement is executed once more (`EXPLAIN (ANALYZE, BUFFERS)`) only where it can change nothing:
its plan writes, locks and asks no other server, no function in it is volatile, and the transaction
is read-only, under a timeout, and rolled back. Of all others the plan alone is told.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ...database.postgresql import first_line
from ...failures.redaction import masked, redacted, shortened
from ...results.plans import PlanNode, StatementPlan
from ..instruments.slow import SlowStatement

_TIMEOUT_MS = 10_000
_READ_ONLY = "SET TRANSACTION READ ONLY"
_PLAN = "EXPLAIN (VERBOSE, FORMAT JSON) "
_EXECUTED = "EXPLAIN (ANALYZE, BUFFERS, VERBOSE, FORMAT JSON) "
_WRITES, _LOCKS, _ELSEWHERE = "ModifyTable", "LockRows", ("Foreign Scan", "Custom Scan")
_CALLED = re.compile(r'([A-Za-z_]\w*|"[^"]+")\s*\(')
_VOLATILE = text(
    "SELECT DISTINCT proname FROM pg_catalog.pg_proc "
    "WHERE proname = ANY(CAST(:names AS text[])) AND provolatile = 'v'"
)
# Foreign keys of a table of which no index begins with their column.
_UNINDEXED = text(
    """
    SELECT a.attname FROM pg_catalog.pg_constraint c
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
    WHERE c.contype = 'f' AND c.conrelid = to_regclass(:relation) AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_index i
        WHERE i.indrelid = c.conrelid AND i.indkey[0] = c.conkey[1])"""
)
_CONDITIONS = (
    "Index Cond", "Recheck Cond", "Filter", "Join Filter", "Hash Cond", "Merge Cond",
)  # fmt: skip
_FAR_OFF = 100.0


async def plans_of(
    engine: AsyncEngine, statements: Sequence[tuple[str, SlowStatement]], *, parameters: bool
) -> tuple[StatementPlan, ...]:
    """Return the plan of each; what cannot be explained says why, and takes nothing else away."""
    found = []
    for statement, slow in statements:
        plan = StatementPlan(
            statement=shortened(statement),
            operation=slow.operation,
            calls=slow.calls,
            mean_ms=slow.mean_ns / 1e6,
            slowest_ms=slow.slowest_ns / 1e6,
            parameters=repr(slow.parameters)[:1000] if parameters else None,
            source=slow.source,
        )
        found.append(await _explained(engine, statement, slow.parameters, plan, shown=parameters))
    return tuple(found)


async def _explained(
    engine: AsyncEngine, statement: str, parameters: Any, plan: StatementPlan, *, shown: bool
) -> StatementPlan:
    note = None
    try:
        tree = await _asked(engine, _PLAN + statement, parameters)
        note = await _why_not_executed(engine, tree)
        if note is None:
            try:
                tree = await _asked(engine, _EXECUTED + statement, parameters)
            except (DBAPIError, OSError) as error:
                note = f"it could not be executed again: {redacted(first_line(error), error)}"
        findings = [finding async for finding in _findings(engine, tree)]
    except (DBAPIError, OSError) as error:
        return replace(plan, note=f"no plan: {redacted(first_line(error), error)}")
    return replace(
        plan,
        nodes=tuple(_nodes(tree, shown=shown)),
        executed="Actual Rows" in tree,
        note=note,
        findings=tuple(findings),
    )


async def _asked(engine: AsyncEngine, explain: str, parameters: Any) -> dict[str, Any]:
    """Return the plan's tree, asked for in a transaction of its own that changes nothing."""
    async with engine.connect() as opened:
        connection = await _in_transactions(opened)
        await connection.exec_driver_sql(_READ_ONLY)
        await connection.exec_driver_sql(f"SET LOCAL statement_timeout = {_TIMEOUT_MS}")
        try:
            answer = await connection.exec_driver_sql(explain, parameters or None)
            (told,) = answer.scalar_one()
        finally:
            await connection.rollback()
    tree: dict[str, Any] = told["Plan"]
    return tree


async def _in_transactions(connection: AsyncConnection) -> AsyncConnection:
    """Return the connection, for this once with transactions where the engine has none."""
    return await connection.execution_options(isolation_level="REPEATABLE READ")


async def _why_not_executed(engine: AsyncEngine, tree: dict[str, Any]) -> str | None:
    """Return why a statement is not to be executed once more, None where it may be."""
    steps = list(_steps(tree))
    kinds = {step["Node Type"] for _, step in steps}
    if _WRITES in kinds:
        return "not executed: it writes"
    if _LOCKS in kinds:
        return "not executed: it locks rows"
    if kinds & set(_ELSEWHERE):
        return "not executed: it asks another server"
    names = {name for _, step in steps for name in _called(step)}
    async with engine.connect() as connection:
        answer = await connection.execute(_VOLATILE, {"names": sorted(names)})
        volatile = answer.scalars().all()
        await connection.rollback()
    return f"not executed: {min(volatile)}() is volatile" if volatile else None


def _called(step: dict[str, Any]) -> Iterator[str]:
    """Yield what looks like a function's name in a step."""
    if "Function Name" in step:
        yield step["Function Name"]
    for value in step.values():
        texts = value if isinstance(value, list) else [value]
        for one in texts:
            if isinstance(one, str):
                yield from (name.strip('"') for name in _CALLED.findall(one))


def _steps(step: dict[str, Any], depth: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    yield depth, step
    for below in step.get("Plans", ()):
        yield from _steps(below, depth + 1)


def _nodes(tree: dict[str, Any], *, shown: bool) -> Iterator[PlanNode]:
    for depth, step in _steps(tree):
        conditions = [f"{name}: {step[name]}" for name in _CONDITIONS if name in step]
        condition = "; ".join(conditions) or None
        executed = "Actual Rows" in step
        yield PlanNode(
            depth=depth,
            what=_what(step),
            condition=condition if shown or condition is None else masked(condition),
            estimated_rows=step["Plan Rows"],
            rows=step["Actual Rows"] if executed else None,
            loops=step["Actual Loops"] if executed else None,
            ms=step["Actual Total Time"] * step["Actual Loops"] if executed else None,
            blocks=(
                step.get("Shared Hit Blocks", 0) + step.get("Shared Read Blocks", 0)
                if executed
                else None
            ),
        )


def _what(step: dict[str, Any]) -> str:
    """Return a step as PostgreSQL's own text has it."""
    kind = step["Node Type"]
    if kind == _WRITES:
        kind = step.get("Operation", kind)
    if step.get("Join Type") not in (None, "Inner"):
        kind = f"{kind} ({step['Join Type']})"
    using = f" using {step['Index Name']}" if "Index Name" in step else ""
    on = f" on {step['Relation Name']}" if "Relation Name" in step else ""
    return f"{kind}{using}{on}"


async def _findings(engine: AsyncEngine, tree: dict[str, Any]) -> AsyncIterator[str]:
    """Yield what of a plan is to be looked at."""
    for _, step in _steps(tree):
        if (far := _far_off(step)) is not None:
            yield far
        if step["Node Type"] == "Seq Scan" and "Filter" in step:
            async for finding in _unindexed(engine, step):
                yield finding


def _far_off(step: dict[str, Any]) -> str | None:
    if "Actual Rows" not in step or not step["Actual Loops"]:
        return None
    estimated, actual = max(step["Plan Rows"], 1), max(step["Actual Rows"], 1)
    factor = max(estimated / actual, actual / estimated)
    if factor < _FAR_OFF:
        return None
    return (
        f"{_what(step)}: {step['Actual Rows']:,.0f} rows, and {step['Plan Rows']:,} were expected: "
        "ANALYZE the table, or its statistics do not tell"
    )


async def _unindexed(engine: AsyncEngine, step: dict[str, Any]) -> AsyncIterator[str]:
    """Yield the foreign keys without an index that a scan of the whole table filters by."""
    relation = f'"{step["Schema"]}"."{step["Relation Name"]}"'
    async with engine.connect() as connection:
        answer = await connection.execute(_UNINDEXED, {"relation": relation})
        columns = answer.scalars().all()
        await connection.rollback()
    for column in columns:
        if re.search(rf'(?<!\w)"?{re.escape(column)}"?(?!\w)', step["Filter"]):
            yield (
                f"{step['Relation Name']}.{column} is a foreign key without an index, and all of "
                f"{step['Relation Name']} is read to filter by it"
            )
