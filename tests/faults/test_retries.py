"""What the server gave up for others is tried again; a commit that nobody knows of is not."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from async_loader import Chunks, OperationContext, Workload, run
from async_loader.database.backends import backend_of
from async_loader.database.postgresql import closing, create_engine, create_sessions

from .test_sqlstates import Duel, lock_crosswise, write_what_changed

pytestmark = pytest.mark.timeout(30)
PAIRS = 5


@pytest.mark.parametrize("duel", [write_what_changed, lock_crosswise])
async def test_the_loser_of_a_duel_tries_again(
    database_url: str, engine: AsyncEngine, duel: Duel
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE account AS SELECT n id, 0 balance FROM"
                                      " generate_series(0, 1) n"))  # fmt: skip
    workload = Workload("duel")
    barriers = [asyncio.Barrier(2) for _ in range(PAIRS)]
    tries: dict[int, list[float]] = {}

    @workload.operation("duel", kind="write")
    async def fight(session: AsyncSession, op: OperationContext) -> None:
        tries.setdefault(op.index, []).append(op.rng.random())
        if len(tries[op.index]) == 1:
            await duel(session, op.index % 2, barriers[op.index // 2])
        else:
            await session.execute(text("UPDATE account SET balance = balance + 1 WHERE id = 0"))
            await asyncio.sleep(0.05)
        await session.commit()

    async with closing(create_engine(make_url(database_url), pool_size=2)) as own:
        result = await run(
            workload,
            sessions=create_sessions(own),
            ops=2 * PAIRS,
            throttle=Chunks(2),  # the winner of a pair does not lock the next one's rows
            max_tries=3,
        )
    found = result.by_operation["duel"]
    assert (found.count, found.failed, found.indeterminate) == (2 * PAIRS, 0, 0)
    assert (found.retries, found.retried) == (PAIRS, PAIRS)
    assert result.errors == {}, "what succeeded in the end is no failure"
    assert sorted(map(len, tries.values())) == [1] * PAIRS + [2] * PAIRS
    assert all(len(set(drawn)) == 1 for drawn in tries.values()), "each try is the same operation"
    # The latency of half of them holds the second try, with its wait.
    assert found.histogram.percentiles_ns([60.0])[60.0] > 50_000_000
    assert found.split is not None
    assert found.split.orm.count == 2 * PAIRS


async def test_the_tries_end(database_url: str) -> None:
    """Also over a plain `Session`: it is given up each time."""
    workload = Workload("hopeless")
    given_up = text("DO $$ BEGIN RAISE 'not now' USING ERRCODE = '40001'; END $$")

    @workload.operation("write", kind="write")
    async def write(session: AsyncSession) -> None:
        await session.execute(given_up)

    async with closing(create_engine(make_url(database_url), pool_size=1)) as own:
        result = await run(
            workload, sessions=create_sessions(own), ops=3, concurrency=1, max_tries=4
        )
    found = result.by_operation["write"]
    assert (found.count, found.failed, found.indeterminate) == (0, 3, 0)
    assert (found.retries, found.retried) == (9, 3)
    assert result.errors["40001 serialization_failure"].count == 3


async def test_checks_of_a_try_that_was_given_up_do_not_count(engine: AsyncEngine) -> None:
    workload = Workload("checks")
    tried: list[int] = []

    @workload.operation("write", kind="write")
    async def write(session: AsyncSession, op: OperationContext) -> None:
        tried.append(op.index)
        op.check("begun", True)
        if tried.count(op.index) < 3:
            op.check("given up", False)
            await session.execute(text("DO $$BEGIN RAISE SQLSTATE '40001'; END$$"))
        if op.index == 1:
            op.check("failed", False)
            raise ValueError

    result = await run(workload, sessions=create_sessions(engine), ops=4, max_tries=3)
    assert {name: (c.passed, c.failed) for name, c in result.checks.items()} == {
        "begun": (4, 0),
        "failed": (0, 1),
    }


async def test_a_sync_twin_is_tried_again_too(database_url: str, engine: AsyncEngine) -> None:
    from sqlalchemy.orm import Session

    from async_loader.database.postgresql import Namespace
    from async_loader.load.runner.sync_runner import run_sync
    from async_loader.load.specs.run import RunSpec

    workload = Workload("twins")
    tried: list[int] = []

    @workload.operation("write", kind="write")
    async def write(session: AsyncSession, op: OperationContext) -> None: ...

    @write.sync
    def write_sync(session: Session, op: OperationContext) -> None:
        tried.append(op.index)
        if tried.count(op.index) < 3:
            session.execute(text("DO $$BEGIN RAISE SQLSTATE '40P01'; END$$"))
        session.execute(text("SELECT 1"))

    url = make_url(database_url)
    backend = backend_of(url)
    sync = backend.create_sync_engine(
        url, pool_size=1, namespace=Namespace(), statement_timeout=5.0
    )
    sessions, _ = backend.sync_session_factories(sync, reads_autocommit=True)
    try:
        result = run_sync(workload, RunSpec.of(ops=4, max_tries=3), sessions=sessions)
    finally:
        sync.dispose()
    found = result.by_operation["write"]
    assert (found.count, found.failed, found.retries, found.retried) == (4, 0, 8, 4)
