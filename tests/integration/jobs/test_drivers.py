"""What an apply does with the driver's connection, and what a driver's error does not say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Any

import pytest
from sqlalchemy import create_engine, event, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.orm.attributes import flag_modified

from async_loader.errors import ConfigurationError, JobError
from async_loader.jobs import BatchJob, status

ROWS, CHUNK = 40, 10
Act = Callable[[AsyncSession, Any], Awaitable[Any]]


class Base(DeclarativeBase):
    pass


class Place(Base):
    __tablename__ = "place"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(unique=True)
    visits: Mapped[int] = mapped_column(default=0)


@pytest.fixture(params=["asyncpg", "psycopg"])
async def made(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine of either driver, and forty places."""
    url = make_url(database_url).set(drivername=f"postgresql+{request.param}")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        rows = [{"id": n, "number": n, "visits": 0} for n in range(1, ROWS + 1)]
        await connection.execute(insert(Place), rows)
    yield engine
    await engine.dispose()


def visiting(act: Act, *, times: int = 1, dirty_again: bool = False, **options: Any) -> BatchJob:
    """Return a job that counts a visit of each place, and does something at the 25th, so often."""
    job = BatchJob("visiting", select=select(Place), key=(Place.number,), chunk=CHUNK,
                   partitions=1, **options)  # fmt: skip
    met = 0

    @job.apply
    async def apply(session: AsyncSession, places: Sequence[Place]) -> None:
        nonlocal met
        for place in places:
            place.visits += 1
        if any(place.id == 25 for place in places) and met < times:
            met += 1
            await session.flush()
            raw = await (await session.connection()).get_raw_connection()
            await act(session, raw.driver_connection)
            if dirty_again:
                flag_modified(places[0], "visits")

    return job


async def visits(engine: AsyncEngine) -> list[int]:
    async with engine.connect() as connection:
        return list(await connection.scalars(select(Place.visits).order_by(Place.id)))


# --- statements that SQLAlchemy does not see ----------------------------------------------------


def several(statement: str) -> Act:
    """Return what gives the driver a statement of two parameters for several rows."""

    async def act(_session: AsyncSession, driver: Any) -> None:
        rows = [(100 + n, n) for n in (22, 25)]
        if hasattr(driver, "executemany"):  # asyncpg
            await driver.executemany(statement.format("$1", "$2"), rows)
            return
        async with driver.cursor() as cursor:
            await cursor.executemany(statement.format("%s", "%s"), rows)

    return act


def one(statement: str) -> Act:
    async def act(_session: AsyncSession, driver: Any) -> None:
        await driver.execute(statement)

    return act


MOVES = "UPDATE place SET number = {} WHERE id = {}"


@pytest.mark.parametrize("act", [several(MOVES), one(MOVES.format("125", "25"))])
async def test_a_key_that_the_driver_is_told_to_move(made: AsyncEngine, act: Act) -> None:
    with pytest.raises(ConfigurationError, match=r"apply sets number, .* rolled back behind"):
        await visiting(act).run(async_sessionmaker(made))
    assert await visits(made) == [1] * 20 + [0] * 20
    assert (await visiting(act, times=0).run(async_sessionmaker(made))).state == "done"
    assert await visits(made) == [1] * ROWS


@pytest.mark.parametrize(
    "act",
    [
        several("UPDATE place SET visits = visits + 0 * {} WHERE number = {}"),
        one("SELECT number FROM place"),
        one("UPDATE place SET visits = visits"),
    ],
)
async def test_a_driver_may_be_told_the_rest(made: AsyncEngine, act: Act) -> None:
    assert (await visiting(act).run(async_sessionmaker(made))).state == "done"
    assert await visits(made) == [1] * ROWS


async def closes_our_cursor(session: AsyncSession, driver: Any) -> None:
    """Roll a savepoint back that nobody has seen, and with it what was declared since."""
    await driver.execute("SAVEPOINT unseen")
    await session.execute(text("SELECT 1"))
    await driver.execute("ROLLBACK TO SAVEPOINT unseen")


@pytest.mark.parametrize("before", [0, 1])
async def test_a_cursor_that_was_lost_is_no_matter_for_the_next_run(
    made: AsyncEngine, before: int
) -> None:
    """A FETCH that was prepared without one yields nothing on that connection for ever."""
    engine = create_async_engine(made.url, pool_size=2, max_overflow=0)
    async with engine.connect(), engine.connect():
        pass  # two connections, which take turns: in one of two runs it is the same one's
    with pytest.raises(ConfigurationError, match="closes the cursor"):
        await visiting(closes_our_cursor).run(async_sessionmaker(engine))
    for _ in range(before):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    job = BatchJob("visiting", select=select(Place), key=(Place.number,), chunk=CHUNK,
                   partitions=1, patience=2)  # fmt: skip

    @job.apply
    async def apply(session: AsyncSession, places: Sequence[Place]) -> None:
        await session.execute(text("SELECT 1"))
        for place in places:
            place.visits += 1

    done = await job.run(async_sessionmaker(engine))
    await engine.dispose()
    assert (done.state, done.retried) == ("done", 0)
    assert await visits(made) == [1] * ROWS


# --- who closes the connection ------------------------------------------------------------------


async def closes(_session: AsyncSession, driver: Any) -> None:
    await driver.close()


async def closes_and_goes_on(session: AsyncSession, driver: Any) -> None:
    await driver.close()
    await session.execute(text("SELECT 1"))


async def closes_in_a_task(_session: AsyncSession, driver: Any) -> None:
    await asyncio.create_task(driver.close())


async def terminates(_session: AsyncSession, driver: Any) -> None:
    if hasattr(driver, "terminate"):
        driver.terminate()
    else:  # psycopg has no such method
        await driver.close()


async def terminates_and_goes_on(session: AsyncSession, driver: Any) -> None:
    await terminates(session, driver)
    await session.execute(text("SELECT 1"))


CLOSING = [closes, closes_and_goes_on, closes_in_a_task, terminates, terminates_and_goes_on]


@pytest.mark.parametrize("act", CLOSING)
async def test_an_apply_that_closes_its_connection_is_told_so(made: AsyncEngine, act: Act) -> None:
    """It was taken for a connection that was lost, and tried again for as long as patience was."""
    with pytest.raises(ConfigurationError, match=r"must not close its connection: .*; the rows"):
        await visiting(act, times=100).run(async_sessionmaker(made))
    failed = await status(made, "visiting")
    assert (failed.state, failed.rows_read, failed.retried) == ("failed", 20, 0)
    assert await visits(made) == [1] * 20 + [0] * 20
    await visiting(act, times=0).run(async_sessionmaker(made))
    assert await visits(made) == [1] * ROWS


async def is_ended_by_the_server(session: AsyncSession, _driver: Any) -> None:
    engine = session.bind
    assert isinstance(engine, AsyncEngine)
    pid = await session.scalar(text("SELECT pg_backend_pid()"))
    async with engine.connect() as other:
        await other.execute(text(f"SELECT pg_terminate_backend({pid})"))
    await asyncio.sleep(0.1)
    await session.execute(text("SELECT 1"))


async def is_cancelled_in_time(session: AsyncSession, _driver: Any) -> None:
    """SQLAlchemy closes a connection in which a statement was cancelled by its task."""
    async with asyncio.timeout(0.1):
        await session.execute(text("SELECT pg_sleep(60)"))


@pytest.mark.parametrize("act", [is_ended_by_the_server, is_cancelled_in_time])
async def test_a_connection_that_others_close_is_none_that_apply_closed(
    made: AsyncEngine, act: Act
) -> None:
    done = await visiting(act).run(async_sessionmaker(made))
    assert (done.state, done.rows_skipped) == ("done", 0)
    assert await visits(made) == [1] * ROWS


# --- a statement that was cancelled, in a language that nobody here speaks ----------------------


@contextmanager
def speaking_another_language(engine: AsyncEngine) -> Iterator[None]:
    """Have a server's errors say something else, as with another `lc_messages`."""

    def translate(context: Any) -> None:
        link: BaseException | None = context.sqlalchemy_exception
        while link is not None:
            link.args = ("storniere Anfrage",)
            link = getattr(link, "orig", None) or link.__cause__

    event.listen(engine.sync_engine, "handle_error", translate)
    try:
        yield
    finally:
        event.remove(engine.sync_engine, "handle_error", translate)


async def cancelled_by_another(session: AsyncSession, _driver: Any) -> None:
    await session.execute(text("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)"))


async def too_slow(session: AsyncSession, _driver: Any) -> None:
    await session.execute(text("SELECT pg_sleep(60)"))


async def too_slow_by_its_own_limit(session: AsyncSession, driver: Any) -> None:
    await session.execute(text("SET LOCAL statement_timeout = '50ms'"))
    await too_slow(session, driver)


async def limited(session: AsyncSession, _driver: Any) -> None:
    await session.execute(text("SELECT set_config('statement_timeout', '50s', true)"))
    await cancelled_by_another(session, _driver)


@pytest.mark.parametrize("limit", ["0", "1min"])
async def test_who_is_cancelled_by_request_is_tried_again(made: AsyncEngine, limit: str) -> None:
    async with made.begin() as connection:
        name = made.url.database
        await connection.execute(text(f"ALTER DATABASE {name} SET statement_timeout = '{limit}'"))
    await made.dispose()
    with speaking_another_language(made):
        done = await visiting(cancelled_by_another, times=3).run(async_sessionmaker(made))
    assert (done.state, done.retried, done.rows_skipped) == ("done", 3, 0)
    assert await visits(made) == [1] * ROWS


async def test_who_takes_longer_than_its_limit_is_to_blame(made: AsyncEngine) -> None:
    async with made.begin() as connection:
        name = made.url.database
        await connection.execute(text(f"ALTER DATABASE {name} SET statement_timeout = '900ms'"))
    await made.dispose()
    with speaking_another_language(made):
        done = await visiting(too_slow, times=99, skip_limit=1).run(async_sessionmaker(made))
    assert (done.state, done.retried, done.rows_skipped) == ("done", 0, 1)
    assert await visits(made) == [1] * 24 + [0] + [1] * 15


async def test_a_limit_of_apply_s_own_is_a_row_s_fault(made: AsyncEngine) -> None:
    act = too_slow_by_its_own_limit
    with speaking_another_language(made):
        done = await visiting(act, times=99, skip_limit=1).run(async_sessionmaker(made))
    assert (done.state, done.retried, done.rows_skipped) == ("done", 0, 1)


async def limited_in_a_savepoint(session: AsyncSession, _driver: Any) -> None:
    with suppress(DBAPIError):
        async with session.begin_nested():
            await session.execute(text("SET LOCAL statement_timeout = '50ms'"))
            await session.execute(text("SELECT pg_sleep(60)"))
    slowly = "SELECT pg_sleep(0.2), pg_cancel_backend(pg_backend_pid()), pg_sleep(5)"
    await session.execute(text(slowly))


@pytest.mark.parametrize("act", [limited, limited_in_a_savepoint])
async def test_a_limit_that_apply_has_set_is_asked_for(made: AsyncEngine, act: Act) -> None:
    with speaking_another_language(made):
        done = await visiting(act, times=2).run(async_sessionmaker(made))
    assert (done.state, done.retried, done.rows_skipped) == ("done", 2, 0)


async def test_a_read_of_the_job_s_own_that_somebody_cancels_is_tried_again(
    made: AsyncEngine,
) -> None:
    waiters = text(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with speaking_another_language(made):
        async with made.connect() as other:
            await other.execute(text("LOCK TABLE place"))
            running = asyncio.create_task(_nothing().run(async_sessionmaker(made)))
            async with asyncio.timeout(30):
                cancelled = 0
                while cancelled < 3 and not running.done():
                    async with made.connect() as admin:  # one transaction sees one state of all
                        cancelled += len((await admin.execute(waiters)).all())
                    await asyncio.sleep(0.02)
            assert cancelled == 3
        done = await running
    assert (done.state, done.rows_read) == ("done", ROWS)


async def test_a_read_of_the_job_s_own_that_takes_too_long_is_said(made: AsyncEngine) -> None:
    async with made.begin() as connection:
        name = made.url.database
        await connection.execute(text(f"ALTER DATABASE {name} SET statement_timeout = '500ms'"))
    await made.dispose()
    too_long = r"own was cancelled after [\d.]+ s, and its statement_timeout is 0.5 s: raise that"
    with speaking_another_language(made):
        async with made.connect() as other:
            await other.execute(text("LOCK TABLE place"))
            with pytest.raises(JobError, match=too_long):
                await asyncio.wait_for(_nothing().run(async_sessionmaker(made)), 30)
        done = await _nothing().run(async_sessionmaker(made))
    assert (done.state, done.rows_read) == ("done", ROWS)


def _nothing() -> BatchJob:
    job = BatchJob("nothing", select=select(Place), chunk=CHUNK, partitions=1)

    @job.apply
    async def apply(_session: AsyncSession, _places: Sequence[Place]) -> None:
        pass

    return job


# --- the turn in which a driver tells -----------------------------------------------------------


async def test_what_others_commit_behind_apply_is_not_its_own(
    made: AsyncEngine, database_url: str
) -> None:
    other = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    met: list[int] = []

    def commits() -> None:
        with other.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS theirs (id int)"))
        met.append(1)

    def fails_once(_session: Session, *_: object) -> None:
        if len(met) == 1:
            met.append(2)
            raise ConnectionResetError("once")

    async def act(_session: AsyncSession, _driver: Any) -> None:
        # In a context that knows nothing of the job, once apply has returned.
        asyncio.get_running_loop().call_soon(commits, context=Context())

    event.listen(Session, "before_flush", fails_once)
    try:
        done = await visiting(act, dirty_again=True).run(async_sessionmaker(made))
    finally:
        event.remove(Session, "before_flush", fails_once)
        other.dispose()
    assert (done.state, done.retried, met) == ("done", 1, [1, 2])
    assert await visits(made) == [1] * ROWS
