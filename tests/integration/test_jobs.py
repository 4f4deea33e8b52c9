"""Jobs against a real PostgreSQL: exactly once, whatever happens to a chunk."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from async_loader.jobs import status
from async_loader.testing import Interrupted, interrupt_after
from tests.counting import counting, fill, tally

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def sessions(engine: AsyncEngine) -> Sessions:
    return async_sessionmaker(engine)


@pytest.mark.parametrize("rows", [0, 1, 99, 100, 101, 2_345])
@pytest.mark.parametrize("workers", [1, 4])
async def test_every_row_once(
    engine: AsyncEngine, sessions: Sessions, rows: int, workers: int
) -> None:
    await fill(engine, rows)
    done = await counting().run(sessions, workers=workers)
    assert (done.state, done.total, done.rows_read) == ("done", rows, rows)
    assert done.rows_written == rows
    assert await tally(engine) == ({1: rows} if rows else {})


async def test_a_second_run_is_a_new_one(engine: AsyncEngine, sessions: Sessions) -> None:
    await fill(engine, 300)
    first = await counting().run(sessions)
    second = await counting().run(sessions)
    assert first.run != second.run
    assert await tally(engine) == {2: 300}


@pytest.mark.parametrize("place", ["before commit", "after commit"])
@pytest.mark.parametrize("chunks", [0, 1, 7])
async def test_interrupted_and_resumed(
    engine: AsyncEngine, sessions: Sessions, chunks: int, place: str
) -> None:
    await fill(engine, 1_000)
    with pytest.raises(Interrupted), interrupt_after(chunks, place):  # type: ignore[arg-type]  # a parameter
        await counting().run(sessions)
    assert (await status(engine, "counting")).state == "running"
    committed = 100 * (chunks + (place == "after commit"))
    assert (await tally(engine)).get(1, 0) == committed
    done = await counting().run(sessions)
    assert done.rows_read == 1_000
    assert await tally(engine) == {1: 1_000}
