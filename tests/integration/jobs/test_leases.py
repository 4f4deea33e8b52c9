"""Chunks that take longer than the lease, or than their run: nobody waits for them for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from async_loader.errors import JobError
from async_loader.jobs import BatchJob, status
from async_loader.jobs.guard import Guard
from tests.counting import Counter, counting, fill, tally

LEASE = 0.5


@pytest.fixture(params=["asyncpg", "psycopg"])
async def theirs(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine of another process, as it were."""
    engine = create_async_engine(
        make_url(database_url).set(drivername=f"postgresql+{request.param}")
    )
    yield engine
    await engine.dispose()


def slow(go_on: asyncio.Event, begun: asyncio.Event, **options: Any) -> tuple[BatchJob, list[int]]:
    """Return a job whose every apply waits, and what it was called for."""
    job = BatchJob("counting", select=select(Counter), chunk=100, partitions=1, **options)
    calls: list[int] = []

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        calls.append(counters[0].id)
        for counter in counters:
            counter.n += 1
        await session.flush()
        begun.set()
        await go_on.wait()

    return job, calls


async def lease_renewed(engine: AsyncEngine, times: int) -> None:
    """Wait until a lease was renewed so often."""
    query = text("SELECT fresh_until FROM async_loader_jobs.worker")
    seen: set[Any] = set()
    while len(seen) <= times:
        async with engine.connect() as connection:
            seen.add(await connection.scalar(query))
        await asyncio.sleep(0.02)


async def test_a_chunk_may_take_longer_than_its_lease(
    theirs: AsyncEngine, engine: AsyncEngine
) -> None:
    """It is renewed meanwhile, on another connection; others wait, and apply is called once."""
    await fill(engine, 200)
    go_on, begun = asyncio.Event(), asyncio.Event()
    job, calls = slow(go_on, begun, lease=LEASE)
    running = asyncio.create_task(job.run(async_sessionmaker(theirs)))
    await begun.wait()
    other = asyncio.create_task(counting(lease=LEASE).run(async_sessionmaker(engine)))
    await lease_renewed(engine, 8)  # each a third of a lease after the one before
    go_on.set()
    assert (await running).state == (await other).state == "done"
    assert calls.count(1) == 1
    assert await tally(engine) == {1: 200}


async def test_a_server_that_ends_who_idles_does_not_end_a_chunk(
    database_url: str, engine: AsyncEngine
) -> None:
    await fill(engine, 100)
    go_on, begun = asyncio.Event(), asyncio.Event()
    job, calls = slow(go_on, begun, lease=LEASE)
    strict = create_async_engine(database_url)
    async with engine.connect() as connection:
        database = await connection.scalar(text("SELECT current_database()"))
        await connection.execute(
            text(f"ALTER DATABASE {database} SET idle_in_transaction_session_timeout = '300ms'")
        )
        await connection.commit()
    running = asyncio.create_task(job.run(async_sessionmaker(strict)))
    await begun.wait()
    await lease_renewed(engine, 6)
    go_on.set()
    assert (await running).state == "done"
    assert calls == [1]
    await strict.dispose()


async def test_the_slow_one_fails_alone_and_names_the_lease(
    theirs: AsyncEngine, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(engine, 500)
    go_on, begun = asyncio.Event(), asyncio.Event()
    job, calls = slow(go_on, begun, lease=LEASE)
    renew = Guard.beat

    async def beat(self: Guard) -> None:
        """Renew but the first one's not, as where its pooler has no room."""
        if self.me != 1:
            await renew(self)

    monkeypatch.setattr(Guard, "beat", beat)
    running = asyncio.create_task(job.run(async_sessionmaker(theirs)))
    await begun.wait()
    other, theirs_calls = slow(asyncio.Event(), asyncio.Event(), lease=LEASE)
    taking = asyncio.create_task(other.run(async_sessionmaker(engine)))
    while not theirs_calls:  # it has ended the slow one's transaction, and begun
        assert not taking.done(), taking
        await asyncio.sleep(0.02)
    await asyncio.sleep(LEASE)  # so long the worker has been there: now the chunk has, too
    go_on.set()
    with pytest.raises(JobError, match=r"up to id=100 took .* lease \(0.5 s\) was not renewed"):
        await running
    assert calls == [1]
    assert (await status(engine, "counting")).state == "running"  # the other's
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    monkeypatch.undo()
    assert await tally(engine) == {0: 500}
    await counting(partitions=1).run(async_sessionmaker(engine))
    assert await tally(engine) == {1: 500}


@pytest.mark.parametrize("times", [1, 100], ids=["once", "always"])
async def test_a_cancelled_run_holds_no_rows_whatever_apply_does(
    theirs: AsyncEngine, engine: AsyncEngine, times: int
) -> None:
    await fill(engine, 200)
    begun, let_go = asyncio.Event(), asyncio.Event()
    job = BatchJob("counting", select=select(Counter), chunk=100, partitions=1)
    swallowed = 0

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        nonlocal swallowed
        for counter in counters:
            counter.n += 1
        await session.flush()
        begun.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed > times:
                    raise

    running = asyncio.create_task(job.run(async_sessionmaker(theirs)))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert swallowed == 2 if times == 1 else swallowed > 2  # it is asked again
    try:
        async with asyncio.timeout(30):
            done = await counting(partitions=1).run(async_sessionmaker(engine))
    finally:
        let_go.set()
    assert done.state == "done"
    assert await tally(engine) == {1: 200}


async def test_a_blocked_loop_keeps_what_nobody_has_taken(engine: AsyncEngine) -> None:
    """The lease has run out, but the fence holds: once is once."""
    await fill(engine, 200)
    job = BatchJob("counting", select=select(Counter), chunk=100, partitions=1, lease=0.2)
    calls = 0

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.5)
        for counter in counters:
            counter.n += 1

    assert (await job.run(async_sessionmaker(engine))).state == "done"
    assert calls == 2
    assert await tally(engine) == {1: 200}
