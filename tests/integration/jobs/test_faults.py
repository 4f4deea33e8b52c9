"""Jobs whose connections are cut, whose replies are lost, and whose partitions are taken."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from async_loader.concurrency.stop import Stop
from async_loader.database.proxy import Link
from async_loader.jobs import BatchJob, JobStatus
from tests.counting import Counter, counting, fill, tally
from tests.faults.proxy import COMMIT, FaultProxy


class LosingProxy(FaultProxy):
    """Loses every seventh reply to a COMMIT."""

    async def pass_on(self, link: Link, data: bytes, *, to_server: bool) -> bytes:
        if to_server and data.endswith(COMMIT) and self.commits % 7 == 6:
            self.lose_replies_to_commit(1)
        return await super().pass_on(link, data, to_server=to_server)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("workers", "rows"),
    [(1, 10_000), (4, 10_000), pytest.param(4, 100_000, marks=pytest.mark.soak)],
)
async def test_every_seventh_reply_to_commit_is_lost(
    database_url: str, engine: AsyncEngine, workers: int, rows: int
) -> None:
    await fill(engine, rows)
    async with LosingProxy(database_url) as proxy:
        through = create_async_engine(proxy.url)
        done = await counting().run(async_sessionmaker(through), workers=workers)
        await through.dispose()
        assert proxy.lost >= rows // 1_000
    assert done.state == "done"
    assert done.rows_read == rows
    assert await tally(engine) == {1: rows}


async def test_a_lost_reply_is_not_tried_again(engine: AsyncEngine, database_url: str) -> None:
    """A chunk that was committed is applied no second time, also outside of the database."""
    await fill(engine, 1_000)
    applied: list[str] = []
    job = BatchJob("once", select=select(Counter), chunk=100)

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        for counter in counters:
            counter.n += 1
        applied.append(str(counters[0].id))

    async with FaultProxy(database_url) as proxy:
        through = create_async_engine(proxy.url)
        proxy.lose_replies_to_commit(2**30)
        with suppress(Exception):  # its own bookkeeping loses replies, too
            await asyncio.wait_for(job.run(async_sessionmaker(through)), 20)
        await through.dispose()
    assert len(applied) == len(set(applied))
    await job.run(async_sessionmaker(engine))
    assert await tally(engine) == {1: 1_000}


async def test_backends_killed_at_random(
    database_url: str, engine: AsyncEngine, admin: AsyncEngine
) -> None:
    """Chunks, readers and the heartbeat's connection: whichever is there."""
    await fill(engine, 10_000)
    others = create_async_engine(database_url)
    running = asyncio.create_task(counting().run(async_sessionmaker(others), workers=4))
    rng = random.Random(3)
    kills = 0
    while not (await tally(engine)).get(1):  # before that there is nothing to lose
        await asyncio.sleep(0.01)
    while not running.done():
        await asyncio.sleep(rng.uniform(0, 0.1))
        async with admin.connect() as connection:
            found = await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = :name ORDER BY random() LIMIT 1"
                ),
                {"name": engine.url.database},
            )
            kills += len(found.all())
    done = await running
    await others.dispose()
    assert kills > 5
    assert done.rows_read == 10_000
    await engine.dispose()  # ours were killed as well
    assert await tally(engine) == {1: 10_000}


async def test_serialization_failures_are_retried(database_url: str, engine: AsyncEngine) -> None:
    """Somebody else updates the same rows; at REPEATABLE READ that is an error, here no loss."""
    await fill(engine, 2_000)
    strict = create_async_engine(database_url, isolation_level="REPEATABLE READ")
    stop = asyncio.Event()

    async def disturb() -> int:
        rng, times = random.Random(5), 0
        while not stop.is_set():
            async with engine.begin() as connection:
                await connection.execute(
                    text("UPDATE counter SET n = n + 10 WHERE id = :id"),
                    {"id": rng.randint(1, 2_000)},
                )
            times += 1
        return times

    disturbing = [asyncio.create_task(disturb()) for _ in range(3)]
    done = await counting(chunk=200).run(async_sessionmaker(strict), workers=2)
    stop.set()
    times = sum(await asyncio.gather(*disturbing))
    await strict.dispose()
    assert done.rows_skipped == 0
    async with engine.connect() as connection:
        total = await connection.scalar(text("SELECT sum(n) FROM counter"))
    assert total == 2_000 + 10 * times


async def test_cancelling_leaves_no_task_and_no_connection(
    database_url: str, engine: AsyncEngine
) -> None:
    await fill(engine, 5_000)
    theirs = create_async_engine(database_url)
    before = asyncio.all_tasks()
    begun = asyncio.Event()

    def on_progress(seen: JobStatus) -> None:
        begun.set()

    running = asyncio.create_task(
        counting().run(async_sessionmaker(theirs), workers=3, on_progress=on_progress)
    )
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == before
    assert theirs.pool.checkedout() == 0  # type: ignore[attr-defined]  # of a queue pool
    await theirs.dispose()
    await counting().run(async_sessionmaker(engine))
    assert await tally(engine) == {1: 5_000}


async def test_a_request_to_stop_finishes_the_chunk_and_pauses(engine: AsyncEngine) -> None:
    await fill(engine, 1_000)
    stop = Stop()
    job = BatchJob("counting", select=select(Counter), chunk=100)

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        stop.request()
        for counter in counters:
            counter.n += 1

    done = await job.run(async_sessionmaker(engine), stop=stop)
    assert (done.state, done.rows_read, done.chunks) == ("paused", 100, 1)
    assert await tally(engine) == {0: 900, 1: 100}


@pytest.mark.parametrize("grace", [0.05, 3600.0])
async def test_a_deadline_or_a_second_request_cuts_the_chunk_off(
    engine: AsyncEngine, grace: float
) -> None:
    await fill(engine, 1_000)
    stop = Stop()
    job = BatchJob("counting", select=select(Counter), chunk=100, grace=grace)

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        counters[0].n = 7
        await session.flush()
        stop.request()
        if grace > 1:
            stop.request()
        await asyncio.Event().wait()

    done = await job.run(async_sessionmaker(engine), stop=stop)
    assert (done.state, done.rows_read) == ("paused", 0)
    assert await tally(engine) == {0: 1_000}
