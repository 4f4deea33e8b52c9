"""The server's own condition, whichever row meets it: waited for, then told; nothing is skipped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress

import pytest
from sqlalchemy import select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from async_loader.errors import DatabaseError
from async_loader.jobs import BatchJob, Pace, status
from tests.counting import Counter, counting, fill, tally

ROWS = 60
# The others at full count: each takes a patience.
FEW = ("53100", "25006", "57P03")
MORE = ("53000", "53200", "53300", "58000", "58030", "57P01", "57P02")
CONDITIONS = [*FEW, *(pytest.param(state, marks=pytest.mark.soak) for state in MORE)]

Act = Callable[[AsyncSession], Awaitable[None]]


@pytest.fixture(params=["asyncpg", "psycopg"])
async def through(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[AsyncEngine]:
    url = make_url(database_url).set(drivername=f"postgresql+{request.param}")
    engine = create_async_engine(url)
    await fill(engine, ROWS)
    yield engine
    await engine.dispose()


def raising(state: str) -> Act:
    """Return what the server says under a condition, raised by a function of it."""

    async def act(session: AsyncSession) -> None:
        await session.execute(
            text(f"DO $$BEGIN RAISE 'its condition' USING ERRCODE = '{state}'; END$$")
        )

    return act


def adding(act: Act, times: int, **options: object) -> BatchJob:
    """Return a job that adds one to each counter, and meets something at row 25, so many times."""
    job = BatchJob("adding", select=select(Counter), chunk=10, partitions=1, skip_limit=9,
                   patience=0.5, **options)  # type: ignore[arg-type]  # fmt: skip
    met = 0

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        nonlocal met
        for counter in counters:
            counter.n += 1
            if counter.id == 25 and met < times:
                met += 1
                await session.flush()
                await act(session)

    return job


@pytest.mark.parametrize("state", CONDITIONS)
async def test_a_condition_is_waited_for_and_no_row_is_to_blame(
    through: AsyncEngine, state: str
) -> None:
    sessions = async_sessionmaker(through)
    passing = await adding(raising(state), 2).run(sessions)
    assert (passing.state, passing.rows_read, passing.rows_skipped) == ("done", ROWS, 0)
    assert passing.retried == 2
    with pytest.raises(DatabaseError, match=r"gave up after \d+ s: its condition; the job goes on"):
        await adding(raising(state), 10_000).run(sessions)
    stopped = await status(through, "adding")
    assert (stopped.state, stopped.rows_read, stopped.rows_skipped) == ("running", 20, 0)
    assert (await adding(raising(state), 0).run(sessions)).state == "done"
    assert await tally(through) == {2: ROWS}


async def ended_by_another(session: AsyncSession) -> None:
    await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


async def read_only(session: AsyncSession) -> None:
    await session.execute(text("SET LOCAL transaction_read_only = on"))
    await session.execute(text("UPDATE counter SET n = n WHERE id = 1"))


@pytest.mark.parametrize("act", [ended_by_another, read_only])
async def test_what_a_server_really_says(through: AsyncEngine, act: Act) -> None:
    done = await adding(act, 2).run(async_sessionmaker(through))
    assert (done.state, done.rows_skipped, done.retried) == ("done", 0, 2)
    assert await tally(through) == {1: ROWS}


async def test_a_table_that_is_altered_meanwhile_blames_no_row(
    through: AsyncEngine, engine: AsyncEngine
) -> None:
    """What a connection has prepared is no longer right, once; a pooled one finds that late."""
    chunks = 0

    async def alter(_pace: Pace) -> None:
        nonlocal chunks
        chunks += 1
        if chunks in (20, 30):  # prepared long since, by both drivers
            new = "bigint" if chunks == 20 else "integer"
            async with engine.begin() as connection:
                await connection.execute(text(f"ALTER TABLE counter ALTER COLUMN n TYPE {new}"))

    job = counting(chunk=1, partitions=1, skip_limit=9, throttles=[alter])
    done = await job.run(async_sessionmaker(through))
    assert (done.state, done.rows_read, done.rows_skipped) == ("done", ROWS, 0)
    assert done.retried == 2
    assert await tally(through) == {1: ROWS}


async def test_a_database_that_only_reads_is_waited_for(
    through: AsyncEngine, admin: AsyncEngine
) -> None:
    """As a server whose disk is nearly full is set: new connections cannot write."""
    name = through.url.database
    met = asyncio.Event()

    async def becomes_read_only(session: AsyncSession) -> None:
        async with admin.connect() as connection:
            await connection.execute(
                text(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            )
        met.set()
        await ended_by_another(session)

    async def writes_again() -> None:
        await met.wait()
        await asyncio.sleep(0.3)
        async with admin.connect() as connection:
            await connection.execute(
                text(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            )
            await connection.execute(
                text(
                    f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname='{name}'"
                )
            )

    job = adding(becomes_read_only, 1)
    mending = asyncio.create_task(writes_again())
    with suppress(DatabaseError):  # on a slow machine patience is over before it writes again
        await job.run(async_sessionmaker(through))
    await mending
    done = await status(through, "adding")
    if done.state != "done":
        done = await job.run(async_sessionmaker(through))
    assert (done.state, done.rows_read, done.rows_skipped) == ("done", ROWS, 0)
    assert await tally(through) == {1: ROWS}


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("number", [6, pytest.param(20, marks=pytest.mark.soak)])
async def test_all_begin_one_job_at_once_and_take_part(
    engine: AsyncEngine, database_url: str, level: str, number: int
) -> None:
    """Each with an engine of its own, as a process has it, in a database without tables of jobs."""
    await fill(engine, 40 * number)
    engines = [create_async_engine(database_url, isolation_level=level) for _ in range(number)]
    there: set[int] = set()
    all_there = asyncio.Event()

    def waiting_for_all(me: int) -> BatchJob:
        job = BatchJob("together", select=select(Counter), chunk=4, partitions=2 * number)

        @job.apply
        async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
            there.add(me)
            if len(there) == number:
                all_there.set()
            await all_there.wait()
            for counter in counters:
                counter.n += 1

        return job

    runs = [waiting_for_all(me).run(async_sessionmaker(one)) for me, one in enumerate(engines)]
    ended = await asyncio.gather(*runs)
    for one in engines:
        await one.dispose()
    assert {(one.run, one.state) for one in ended} == {(1, "done")}
    assert await tally(engine) == {1: 40 * number}


async def test_counting_is_the_same_at_each_level(engine: AsyncEngine, database_url: str) -> None:
    await fill(engine, 2_000)
    strict = create_async_engine(database_url, isolation_level="SERIALIZABLE")
    done = await counting().run(async_sessionmaker(strict), workers=4)
    await strict.dispose()
    assert (done.state, done.rows_read) == ("done", 2_000)
    assert await tally(engine) == {1: 2_000}
