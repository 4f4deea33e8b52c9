"""Idempotency keys: one run for each, however often a supervisor starts it."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from async_loader.errors import ConfigurationError, JobError
from async_loader.jobs import cancel, list_runs
from async_loader.testing import Interrupted, interrupt_after
from tests.counting import counting, fill, tally

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def sessions(engine: AsyncEngine) -> Sessions:
    await fill(engine, 300)
    return async_sessionmaker(engine)


async def test_what_is_done_is_not_done_again(engine: AsyncEngine, sessions: Sessions) -> None:
    first = await counting().run(sessions, idempotency_key="july")
    assert not first.done_already
    again = await counting().run(sessions, idempotency_key="july")
    assert (again.run, again.state, again.done_already) == (first.run, "done", True)
    assert await tally(engine) == {1: 300}
    other = await counting().run(sessions, idempotency_key="august")
    assert other.run != first.run
    assert (await counting().run(sessions)).run not in (first.run, other.run)
    assert await tally(engine) == {3: 300}


async def test_what_is_interrupted_goes_on(engine: AsyncEngine, sessions: Sessions) -> None:
    for _ in range(2):
        with pytest.raises(Interrupted), interrupt_after(1):
            await counting().run(sessions, idempotency_key="july")
    await counting().run(sessions, idempotency_key="july")
    assert await tally(engine) == {1: 300}
    assert len(await list_runs(engine)) == 1


async def test_a_run_without_a_key_takes_the_one_it_is_given(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    with pytest.raises(Interrupted), interrupt_after(1):
        await counting().run(sessions)
    await counting().run(sessions, idempotency_key="july")
    assert (await counting().run(sessions, idempotency_key="july")).done_already
    assert await tally(engine) == {1: 300}


async def test_other_work_under_the_same_key_is_refused(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await counting().run(sessions, idempotency_key="july")
    with pytest.raises(JobError, match=r"other arguments .*needs a key of its own"):
        await counting().run(sessions, arguments={"year": "2027"}, idempotency_key="july")
    with pytest.raises(Interrupted), interrupt_after(1):
        await counting().run(sessions, idempotency_key="august")
    with pytest.raises(JobError, match="has another idempotency key"):
        await counting().run(sessions, idempotency_key="september")
    await cancel(engine, "counting")
    with pytest.raises(JobError, match="was cancelled: to start anew give another key"):
        await counting().run(sessions, idempotency_key="august")


@pytest.mark.parametrize("key", ["", "  ", "two\nlines", "nul\0"])
async def test_a_key_is_a_line(sessions: Sessions, key: str) -> None:
    with pytest.raises(ConfigurationError, match="one line"):
        await counting().run(sessions, idempotency_key=key)


async def test_who_comes_at_once_shares_one_run(engine: AsyncEngine, sessions: Sessions) -> None:
    runs = await asyncio.gather(
        *(counting().run(sessions, idempotency_key="july") for _ in range(4))
    )
    assert len({run.run for run in runs}) == 1
    assert await tally(engine) == {1: 300}
