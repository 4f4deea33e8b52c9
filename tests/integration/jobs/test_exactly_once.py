"""`assert_exactly_once` passes what is done once, and finds what is not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from async_loader.errors import ConfigurationError, JobError
from async_loader.jobs import BatchJob, list_runs
from async_loader.testing import NotExactlyOnceError, assert_exactly_once
from tests.counting import Counter, counting, fill, tally

Sessions = async_sessionmaker[AsyncSession]
ROWS = 8


@pytest.fixture
def sessions(engine: AsyncEngine) -> Sessions:
    return async_sessionmaker(engine)


def filling(
    engine: AsyncEngine, *statements: str, rows: int = ROWS
) -> Callable[[], Awaitable[None]]:
    """Return what puts counters and a log into their first state."""

    async def refill() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("DROP TABLE IF EXISTS counter"))
            await connection.execute(text("DROP TABLE IF EXISTS log"))
            for statement in statements:
                await connection.execute(text(statement))
        await fill(engine, rows)

    return refill


LOG = (
    "CREATE TABLE log (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, counter int,"
    " at timestamptz DEFAULT clock_timestamp())"
)


def logging(sessions: Sessions, *, elsewhere: bool = False) -> BatchJob:
    """Return a job that writes a line for each row: with its session, or on another."""
    job = BatchJob("logging", select=select(Counter))

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        lines = [{"counter": counter.id} for counter in counters]
        insert = text("INSERT INTO log (counter) VALUES (:counter)")
        if not elsewhere:
            await session.execute(insert, lines)
            return
        async with sessions.begin() as other:
            await other.execute(insert, lines)

    return job


async def test_what_is_done_once_passes_at_each_boundary(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """Numbers of sequences and times differ each time, and say nothing."""
    cuts = await assert_exactly_once(logging(sessions), sessions, fill=filling(engine, LOG))
    assert cuts == 4, "two chunks, before and behind the commit of each"
    assert {run.state for run in await list_runs(engine)} == {"done"}


async def test_what_is_committed_elsewhere_is_found_with_where_and_what(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    job = logging(sessions, elsewhere=True)
    found = (
        r"logging, cut off before commit of chunk 1 and run again: log has 3 new rows \(counter=1\)"
    )
    with pytest.raises(NotExactlyOnceError, match=f"{found}, and undisturbed 1"):
        await assert_exactly_once(job, sessions, fill=filling(engine, LOG))
    cuts = await assert_exactly_once(logging(sessions), sessions, fill=filling(engine, LOG))
    assert cuts == 4, "and what it has left behind is in nobody's way"


async def test_a_row_that_was_there_before_is_named(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    job = BatchJob("adding", select=select(Counter.id), key=(Counter.id,))

    @job.apply
    async def apply(session: AsyncSession, rows: Sequence[Any]) -> None:
        async with sessions.begin() as other:
            for row in rows:
                await other.execute(text(f"UPDATE counter SET n = n + 1 WHERE id = {row.id}"))

    with pytest.raises(NotExactlyOnceError, match="counter 1: n is 3, and undisturbed 1"):
        await assert_exactly_once(job, sessions, fill=filling(engine))
    await assert_exactly_once(job, sessions, fill=filling(engine), ignore=["counter.n"])


@pytest.mark.soak
async def test_jobs_of_each_kind_pass(
    engine: AsyncEngine, sessions: Sessions, tmp_path: Path
) -> None:
    await assert_exactly_once(counting(chunk=500), sessions, fill=filling(engine))
    emptying = counting(select=select(Counter).where(Counter.n == 0), until_empty=True)
    await assert_exactly_once(emptying, sessions, fill=filling(engine))
    prepared = BatchJob("prepared", select=select(Counter))

    @prepared.prepare
    async def prepare(counter: Counter) -> int:
        return counter.n + 1

    @prepared.apply
    async def apply(session: AsyncSession, rows: Sequence[Counter], values: Sequence[int]) -> None:
        for counter, n in zip(rows, values, strict=True):
            counter.n = n

    await assert_exactly_once(prepared, sessions, fill=filling(engine), arguments={"year": "1"})
    assert await tally(engine) == {1: ROWS}
    file = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'file.sqlite'}")
    assert await assert_exactly_once(counting(), async_sessionmaker(file), fill=filling(file)) == 4
    await file.dispose()


async def test_what_cannot_be_tried_is_refused(engine: AsyncEngine, sessions: Sessions) -> None:
    with pytest.raises(ConfigurationError, match="reads no rows of what fill has made"):
        await assert_exactly_once(counting(), sessions, fill=filling(engine, rows=0))
    with pytest.raises(ConfigurationError, match="let fill make fewer, for 100 chunks at most"):
        await assert_exactly_once(counting(), sessions, fill=filling(engine, rows=300), chunk=2)
    job = BatchJob("failing", select=select(Counter))

    @job.apply
    async def apply(_session: AsyncSession, counters: Sequence[Counter]) -> None:
        raise ValueError("of the job's own")

    with pytest.raises(JobError, match="of the job's own"):
        await assert_exactly_once(job, sessions, fill=filling(engine))
