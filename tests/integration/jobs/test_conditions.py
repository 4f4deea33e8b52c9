"""The server's own condition, whichever row meets it: waited for, then told; nothing is skipped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress

import asyncpg
import pytest
from sqlalchemy import select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from async_loader.errors import DatabaseError, JobError
from async_loader.jobs import BatchJob, Pace, status
from tests.counting import Counter, counting, fill, tally

ROWS = 60
# The others at full count: each takes a patience.
FEW = ("53100", "25006", "57P03", "53400")
MORE = (
    "57P04",
    "58P01",
    "55006",
    "72000",
    "53000",
    "53200",
    "53300",
    "58000",
    "58030",
    "57P01",
    "57P02",
)
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
    given = {"skip_limit": 9, "patience": 0.5, **options}
    job = BatchJob("adding", select=select(Counter), chunk=10, partitions=1, **given)  # type: ignore[arg-type]
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


async def cancelled_by_another(session: AsyncSession) -> None:
    await session.execute(text("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)"))


@pytest.mark.parametrize("act", [ended_by_another, read_only, cancelled_by_another])
async def test_what_a_server_really_says(through: AsyncEngine, act: Act) -> None:
    done = await adding(act, 2, patience=60).run(async_sessionmaker(through))
    assert (done.state, done.rows_skipped, done.retried) == ("done", 0, 2)
    assert await tally(through) == {1: ROWS}


def saying(*statements: str) -> Act:
    async def act(session: AsyncSession) -> None:
        for statement in statements:
            await session.execute(text(statement))

    return act


OF_NO_ROW = {
    "42501": saying("SET LOCAL ROLE pg_monitor", "UPDATE counter SET n = 0 WHERE id = 0"),
    "42883": saying("SELECT no_such_function(1)"),
    "42P01": saying("SELECT * FROM no_such_table"),
    "2D000": saying("DO $$BEGIN COMMIT; END$$"),
    "XX002": raising("XX002"),
}


@pytest.mark.parametrize("state", OF_NO_ROW)
async def test_what_no_row_can_cause_stops_the_run(through: AsyncEngine, state: str) -> None:
    """However many rows may be skipped: none is, and mended, the job goes on where it was."""
    sessions = async_sessionmaker(through)
    with pytest.raises(JobError, match=rf"\({state}\): no row is to blame.*: rolled back; mend"):
        await adding(OF_NO_ROW[state], 10_000).run(sessions)
    stopped = await status(through, "adding")
    assert (stopped.state, stopped.rows_read, stopped.rows_skipped) == ("failed", 20, 0)
    assert stopped.message is not None
    assert f"({state})" in stopped.message
    assert (await adding(OF_NO_ROW[state], 0).run(sessions)).state == "done"
    assert await tally(through) == {1: ROWS}


OF_A_ROW = {
    "raised": raising("42501"),
    "row security": saying(
        "CREATE TABLE IF NOT EXISTS secured (n int)",
        "ALTER TABLE secured ENABLE ROW LEVEL SECURITY",
        "GRANT INSERT ON secured TO pg_monitor",
        "SET LOCAL ROLE pg_monitor",
        "INSERT INTO secured VALUES (1)",
    ),
    "a time limit": saying("SET LOCAL statement_timeout = 50", "SELECT pg_sleep(5)"),
}


@pytest.mark.parametrize("act", OF_A_ROW.values(), ids=OF_A_ROW.keys())
async def test_what_is_said_of_a_row_skips_it(through: AsyncEngine, act: Act) -> None:
    done = await adding(act, 10_000).run(async_sessionmaker(through))
    assert (done.state, done.rows_read, done.rows_skipped) == ("done", ROWS - 1, 1)
    assert await tally(through) == {0: 1, 1: ROWS - 1}


async def test_what_apply_catches_within_a_savepoint_is_its_own(through: AsyncEngine) -> None:
    async def act(session: AsyncSession) -> None:
        with suppress(DBAPIError):
            async with session.begin_nested():
                await session.execute(text("SELECT * FROM no_such_table"))

    done = await adding(act, 10_000).run(async_sessionmaker(through))
    assert (done.state, done.rows_read, done.rows_skipped) == ("done", ROWS, 0)


async def test_who_may_not_log_in_for_a_while_goes_on(through: AsyncEngine) -> None:
    """The server ends the connection, and refuses the next for a little."""
    name = f"worker_{through.url.database}"
    url = through.url.set(drivername="postgresql").render_as_string(hide_password=False)
    owner = await asyncpg.connect(url)
    await owner.execute(f'CREATE ROLE "{name}" LOGIN SUPERUSER')
    mine = create_async_engine(through.url.set(username=name, password=None))

    async def act(_session: AsyncSession) -> None:
        await owner.execute(f'ALTER ROLE "{name}" NOLOGIN')
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", name
        )
        back.append(asyncio.create_task(allow()))

    async def allow() -> None:
        await asyncio.sleep(0.3)
        await owner.execute(f'ALTER ROLE "{name}" LOGIN')

    back = list[asyncio.Task[None]]()
    try:
        done = await adding(act, 1).run(async_sessionmaker(mine))
    finally:
        await asyncio.gather(*back)
        await mine.dispose()
        await owner.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')
        await owner.close()
    assert (done.state, done.rows_read, done.rows_skipped) == ("done", ROWS, 0)
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
    met.set()  # or even before the job has met anything
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
