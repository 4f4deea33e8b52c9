"""The split of a whole run: it adds up, and its statements are the server's own count."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader import Workload, run
from async_loader.database.postgresql import create_sessions
from async_loader.load.workloads import mixed

CALLS = text(
    "SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements s"
    " JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = current_database()"
    " AND query !~* '^(begin|commit|rollback|create|select pg_catalog|show)'"
    " AND query ~ '(parent|child)' AND query !~ 'pg_'"
)


async def test_it_adds_up_and_equals_the_servers_count(engine: AsyncEngine) -> None:
    sessions = create_sessions(engine)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE EXTENSION pg_stat_statements"))
    await run(mixed.build(), sessions=sessions, ops=0)
    async with engine.begin() as connection:
        before = await connection.scalar(CALLS)
    result = await run(mixed.build(), sessions=sessions, ops=200, concurrency=5)
    async with engine.connect() as connection:
        after = await connection.scalar(CALLS)
    statements = 0
    for operation in result.by_operation.values():
        split = operation.split
        assert split is not None
        parts = [part for _, part in split.parts()]
        assert all(part.count == operation.count for part in parts)
        assert sum(part.mean_ns for part in parts) == pytest.approx(
            operation.histogram.mean_ns, rel=0.01
        )
        statements += split.statements
    assert before is not None
    assert after is not None
    assert statements == after - before
    create = result.by_operation["create"].split
    assert create is not None
    assert (create.statements_per_operation, create.most_statements) == (2.0, 2)


async def test_it_can_be_turned_off(engine: AsyncEngine) -> None:
    result = await run(mixed.build(), sessions=create_sessions(engine), ops=5, time_split=False)
    assert all(operation.split is None for operation in result.by_operation.values())
    assert "statements" not in result.to_dict()["by_operation"]["create"]


async def test_what_waits_for_a_blocked_loop_to_begin_it_waits_for_the_loop() -> None:
    workload = Workload("blocking")

    @workload.operation("block")
    async def block() -> None:
        time.sleep(0.002)  # what is blocked here is what is tested

    result = await run(workload, ops=40, concurrency=4)
    split = result.by_operation["block"].split
    assert split is not None
    # Three of four wait while one blocks; nothing here is anywhere else.
    assert split.loop_queue.mean_ns > split.application.mean_ns
    assert split.elsewhere.mean_ns < split.application.mean_ns
