"""A run that one begins and several work on: once over it stays over, left it is paused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from async_loader.concurrency.stop import Stop
from async_loader.errors import JobError
from async_loader.jobs import BatchJob, list_runs
from tests.counting import Counter, counting, fill, tally


async def test_whoever_comes_late_begins_no_run_of_its_own(engine: AsyncEngine) -> None:
    await fill(engine, 1_000)
    job, sessions = counting(), async_sessionmaker(engine)
    async with job.taking_part(sessions, workers=1, tasks=6) as part:
        run = await part.begin({})
    for _ in range(2):
        async with job.taking_part(sessions, workers=2) as part:
            done = await part.work_on(run, workers=2, stop=Stop(), on_progress=None)
            assert (done.run, done.state, done.rows_read) == (run, "done", 1_000)
    assert done.partitions == 10, "as many as there are chunks: six tasks would have 24"
    assert len(await list_runs(engine)) == 1
    assert await tally(engine) == {1: 1_000}


async def test_a_run_is_paused_only_when_nobody_works_on_it(engine: AsyncEngine) -> None:
    await fill(engine, 200)
    begun, go_on = asyncio.Event(), asyncio.Event()
    job, sessions = BatchJob("held", select=select(Counter), chunk=100), async_sessionmaker(engine)

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        begun.set()
        await go_on.wait()

    async with job.taking_part(sessions, workers=1) as part:
        run = await part.begin({})
        assert (await part.leave(run)).state == "paused"
        assert await part.begin({}) == run
        working = asyncio.create_task(part.work_on(run, workers=1, stop=Stop(), on_progress=None))
        await begun.wait()
        assert (await part.leave(run)).state == "running"
        go_on.set()
        assert (await working).state == "done"
        assert (await part.leave(run)).state == "done"


async def test_a_paused_run_is_not_gone_on_with_by_a_worker(engine: AsyncEngine) -> None:
    await fill(engine, 200)
    async with counting().taking_part(async_sessionmaker(engine), workers=1) as part:
        run = await part.begin({})
        await part.leave(run)
        left = await part.work_on(run, workers=1, stop=Stop(), on_progress=None)
    assert (left.state, left.rows_read) == ("paused", 0)


async def test_another_jobs_run_is_refused(engine: AsyncEngine) -> None:
    await fill(engine, 200)
    sessions = async_sessionmaker(engine)
    async with counting().taking_part(sessions, workers=1) as part:
        run = await part.begin({})
    other = counting(name="other")
    async with other.taking_part(sessions, workers=1) as part:
        with pytest.raises(JobError, match="run 1 is one of 'counting', not of 'other'"):
            await part.work_on(run, workers=1, stop=Stop(), on_progress=None)
