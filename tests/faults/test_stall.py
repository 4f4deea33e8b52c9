"""A server that stands still: the open model's percentiles tell, the closed one's do not."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from async_loader import ArrivalRate, RunResult, Semaphore, Throttle, Workload, run
from async_loader.database.postgresql import closing, create_engine, create_sessions

pytestmark = pytest.mark.timeout(60)


@dataclass(frozen=True)
class Stall:
    """How long a run is, and the server stands still in its middle, in seconds."""

    run: float
    stall: float


POOL = 4
SHORT, FULL = Stall(3.0, 0.6), Stall(10.0, 2.0)


@asynccontextmanager
async def frozen_backends(admin: AsyncEngine, database: str) -> AsyncIterator[None]:
    """Stop the processes that serve a database, as a host that is out of memory would."""
    async with admin.connect() as connection:
        found = await connection.scalars(
            text("SELECT pid FROM pg_stat_activity WHERE datname = :name"), {"name": database}
        )
        pids = list(found)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def stalled(
    url: str, admin: AsyncEngine, throttle: Throttle, times: Stall, ops: int | None = None
) -> RunResult:
    """A run of a duration, or of a number of operations, whose server stalls after a third."""
    workload = Workload("stall")
    database = make_url(url).database
    assert database is not None
    begun, a_third = 0, asyncio.Event()

    @workload.operation("ask", kind="read")
    async def ask(session: AsyncSession) -> None:
        nonlocal begun
        begun += 1
        if ops is not None and begun > ops / 3:
            a_third.set()
        await session.execute(text("SELECT 1"))

    async def freeze() -> None:
        await (asyncio.sleep(times.run / 3) if ops is None else a_third.wait())
        async with frozen_backends(admin, database):
            await asyncio.sleep(times.stall)

    async with closing(create_engine(make_url(url), pool_size=POOL)) as engine:
        async with AsyncExitStack() as stack:  # a connection that is opened later is not frozen
            for _ in range(POOL):
                await stack.enter_async_context(engine.connect())
        measuring = run(
            workload,
            sessions=create_sessions(engine),
            ops=ops,
            duration=times.run if ops is None else None,
            throttle=throttle,
            latency_limit=times.stall / 2,
        )
        result, _ = await asyncio.gather(measuring, freeze())
    return result


@pytest.mark.parametrize("times", [SHORT, pytest.param(FULL, marks=pytest.mark.soak)])
async def test_the_open_model_finds_the_stall_in_its_p99(
    database_url: str, admin: AsyncEngine, times: Stall
) -> None:
    """What was due while the server stood still has waited for it, each from its own time on."""
    rate = 100
    result = await stalled(database_url, admin, ArrivalRate(rate), times)
    assert result.completed == rate * times.run
    assert (result.failed, result.indeterminate, result.dropped) == (0, 0, 0)
    p99 = result.latency().percentiles_ns([99.0])[99.0] / 1e9
    # 1 % of the arrivals are those due in the first tenth of a second of the full stall.
    assert p99 > times.stall - 1.1 * times.run / 100
    assert result.late >= rate * times.stall / 2 * 0.95
    print(f"open p99 {p99:.2f} s, {result.late} late; {times}")


async def test_the_closed_model_does_not(database_url: str, admin: AsyncEngine) -> None:
    # By number: those in flight are fewer than 1 % however slow the machine is.
    result = await stalled(database_url, admin, Semaphore(POOL), SHORT, ops=2000)
    assert 0 < result.late <= 2 * POOL, "those in flight: nobody else was asked"
    p99 = result.latency().percentiles_ns([99.0])[99.0] / 1e9
    assert p99 < SHORT.stall / 2
