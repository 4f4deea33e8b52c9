"""Cancelled operations and lost replies to COMMIT: what nobody knows is said to be unknown."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from async_loader import Chunks, OperationContext, Semaphore, Stop, Throttle, run
from async_loader.database.postgresql import closing, create_engine, create_sessions
from tests.faults.ledger import Ledger, make_table, no_backend_is_left
from tests.faults.proxy import FaultProxy

pytestmark = pytest.mark.timeout(60)
FULL = pytest.mark.soak


@pytest.mark.parametrize("count", [60, pytest.param(300, marks=FULL)])
async def test_operations_cancelled_at_random_points(
    database_url: str, admin: AsyncEngine, count: int
) -> None:
    await make_table(database_url)
    points = random.Random(count)
    stop = Stop()

    async def cancel_me_later(session: AsyncSession, op: OperationContext) -> None:
        if ledger.cancelled >= count:
            stop.request()
        task = asyncio.current_task()
        assert task is not None
        timer = asyncio.get_running_loop().call_later(points.random() * 0.03, task.cancel)
        task.add_done_callback(lambda _: timer.cancel())

    ledger = Ledger(cancel_me_later)
    async with closing(create_engine(make_url(database_url), pool_size=10)) as engine:
        # In chunks each operation is a task of its own: a cancelled one takes no other along.
        result = await run(
            ledger.workload,
            sessions=create_sessions(engine),
            duration=600,
            throttle=Chunks(10),
            stop=stop,
        )
        assert engine.pool.status().endswith("Current Checked out connections: 0")
        assert await ledger_is_written_again(engine)
    await no_backend_is_left(admin, make_url(database_url).database or "")
    committed = await ledger.reconcile(database_url, result)
    print(
        f"{len(ledger.told)} operations: {ledger.cancelled} cancelled and indeterminate,"
        f" {committed} of them committed; {ledger.count('ok')} ok"
    )
    assert ledger.cancelled >= count
    # Cancelled by nobody of the runner's: failed, but where a COMMIT may have gone through.
    cancelled = [e for e in result.errors.values() if e.kind in ("cancelled", "CancelledError")]
    assert sum(error.count for error in cancelled) == result.failed + result.indeterminate
    assert committed <= result.indeterminate


async def ledger_is_written_again(engine: AsyncEngine) -> bool:
    """Use every connection of the pool once more: one that was left mid-way would say so."""
    ledger = Ledger()
    ledger.workload.operations.clear()

    @ledger.workload.operation("read", kind="read")
    async def read(session: AsyncSession) -> None:
        assert not (await session.connection()).in_nested_transaction()
        await asyncio.sleep(0.01)

    result = await run(
        ledger.workload, sessions=create_sessions(engine), ops=20, throttle=Semaphore(10)
    )
    return result.completed == 20


@pytest.mark.parametrize("throttle", [Semaphore(8), Chunks(8)])
@pytest.mark.parametrize("count", [24, pytest.param(100, marks=FULL)])
async def test_replies_to_commit_that_are_lost(
    database_url: str, admin: AsyncEngine, throttle: Throttle, count: int
) -> None:
    await make_table(database_url)
    ledger = Ledger()
    async with FaultProxy(database_url) as proxy:
        proxy.lose_replies_to_commit(count)
        async with closing(create_engine(proxy.url, pool_size=8)) as engine:
            result = await run(
                ledger.workload,
                sessions=create_sessions(engine),
                ops=2 * count,
                throttle=throttle,
                max_tries=5,
            )
        assert proxy.lost == count
        assert proxy.commits == 2 * count, "something was repeated"
        assert result.retries == 0
    assert (result.completed, result.failed, result.indeterminate) == (count, 0, count)
    # A reply was lost, so the commit was done: each of them is there.
    assert await ledger.reconcile(database_url, result) == count
    await no_backend_is_left(admin, make_url(database_url).database or "")
