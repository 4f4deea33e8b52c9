"""Failures that the server names are reported by SQLSTATE and name, for each operation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from async_loader import OperationContext, Workload, run
from async_loader.database.postgresql import closing, create_engine, create_sessions

pytestmark = pytest.mark.timeout(30)

# Of a pair of operations, each with its barrier, at most one can end well. A pair has the rows
# 2k and 2k + 1 to itself: the next pair begins while one of this one is not done, and would
# otherwise take a row from it and wait at its barrier for an operation that cannot start.
Duel = Callable[[AsyncSession, int, asyncio.Barrier], Awaitable[None]]


async def outrun_the_statement_timeout(session: AsyncSession, n: int, _: asyncio.Barrier) -> None:
    await session.execute(text("SET LOCAL statement_timeout = '20ms'"))
    await session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": 20 * (n % 2)})


async def wait_for_a_lock(session: AsyncSession, n: int, both: asyncio.Barrier) -> None:
    await session.execute(text("SET LOCAL lock_timeout = '20ms'"))
    if n % 2 == 0:
        await update(session, n)
    await both.wait()
    if n % 2 == 1:
        try:
            await update(session, n - 1)
        finally:
            await both.wait()
    else:
        await both.wait()


async def write_what_changed(session: AsyncSession, n: int, both: asyncio.Barrier) -> None:
    await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    await session.execute(text("SELECT balance FROM account"))
    await both.wait()
    await update(session, n - n % 2)


async def lock_crosswise(session: AsyncSession, n: int, both: asyncio.Barrier) -> None:
    await session.execute(text("SET LOCAL deadlock_timeout = '10ms'"))
    await update(session, n)
    await both.wait()
    await update(session, n ^ 1)


async def update(session: AsyncSession, row: int) -> None:
    await session.execute(
        text("UPDATE account SET balance = balance + 1 WHERE id = :id"), {"id": row}
    )


@pytest.mark.parametrize(
    ("duel", "name"),
    [
        (outrun_the_statement_timeout, "57014 query_canceled"),
        (wait_for_a_lock, "55P03 lock_not_available"),
        (write_what_changed, "40001 serialization_failure"),
        (lock_crosswise, "40P01 deadlock_detected"),
    ],
)
async def test_by_sqlstate_and_by_name(
    database_url: str, engine: AsyncEngine, duel: Duel, name: str
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE account AS SELECT n id, 0 balance FROM"
                                      " generate_series(0, 9) n"))  # fmt: skip
    workload = Workload("duel")
    barriers = [asyncio.Barrier(2) for _ in range(5)]

    @workload.operation("duel", kind="write")
    async def fight(session: AsyncSession, op: OperationContext) -> None:
        await duel(session, op.index, barriers[op.index // 2])
        await session.commit()

    async with closing(create_engine(make_url(database_url), pool_size=2)) as own:
        result = await run(workload, sessions=create_sessions(own), ops=10, concurrency=2)
    assert set(result.errors) == {name}
    assert result.errors[name].by_operation == {"duel": 5}
    # The server rolled them back: nothing is unknown.
    assert (result.completed, result.failed, result.indeterminate) == (5, 5, 0)
