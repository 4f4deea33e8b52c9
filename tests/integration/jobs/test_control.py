"""Runs steered and seen from elsewhere, slowed down, and on a SQLite file."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from async_loader.database import sqlite
from async_loader.database.urls import parse_url
from async_loader.errors import ConfigurationError, JobError
from async_loader.jobs import (
    ActiveBackends,
    BatchJob,
    FlagFile,
    LockWaits,
    NiceRatio,
    Pace,
    TimeOfDay,
    Wait,
    WalRate,
    cancel,
    list_runs,
    pause,
    status,
)
from async_loader.load.workloads import music
from async_loader.testing import FakeClock, Interrupted, interrupt_after
from tests.counting import Counter, counting, fill, tally

Sessions = async_sessionmaker[AsyncSession]
WAITING = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND application_name = 'elsewhere'"
)


@pytest.fixture
def sessions(engine: AsyncEngine) -> Sessions:
    return async_sessionmaker(engine)


async def interrupted(sessions: Sessions, chunks: int = 2) -> None:
    """Leave a run in the middle, as a kill does."""
    with pytest.raises(Interrupted), interrupt_after(chunks):
        await counting().run(sessions)


async def test_nothing_is_made_by_looking(engine: AsyncEngine) -> None:
    assert await list_runs(engine) == []
    with pytest.raises(JobError, match="no run of 'counting' here"):
        await status(engine, "counting")
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT to_regnamespace('async_loader_jobs')")) is None


async def test_pausing_waits_for_the_chunk_under_way_and_admits_no_more(
    database_url: str, engine: AsyncEngine
) -> None:
    await fill(engine, 1_000)
    begun, go_on = asyncio.Event(), asyncio.Event()
    job = BatchJob("counting", select=select(Counter), chunk=100, partitions=1)

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        begun.set()
        await go_on.wait()
        for counter in counters:
            counter.n += 1

    running = asyncio.create_task(job.run(async_sessionmaker(engine)))
    await begun.wait()
    named = {"server_settings": {"application_name": "elsewhere"}}
    elsewhere = create_async_engine(database_url, connect_args=named)
    pausing = asyncio.create_task(pause(elsewhere, "counting"))
    async with elsewhere.connect() as connection:
        # In a transaction it would see one state of all, and wait for ever.
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        while not await connection.scalar(WAITING):
            assert not pausing.done(), "a chunk is under way"
            await asyncio.sleep(0.01)
    go_on.set()
    assert (await pausing).state == "paused"
    committed = await tally(elsewhere)
    assert (await running).state == "paused"
    assert await tally(elsewhere) == committed
    # The server may give the row to the next chunk first, who asked later; to all of them hardly.
    assert 100 <= committed[1] < 1_000
    await elsewhere.dispose()
    assert (await job.run(async_sessionmaker(engine))).state == "done"
    assert await tally(engine) == {1: 1_000}


async def test_a_run_knows_when_it_was(engine: AsyncEngine, tmp_path: Path) -> None:
    """In UTC, whatever the server's zone is, and by a file's clock that says no zone."""
    file = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'file.sqlite'}")
    for each in (engine, file):
        await fill(each, 300)
        before = datetime.now(UTC) - timedelta(seconds=2)  # SQLite knows whole seconds
        sessions = async_sessionmaker(each)
        await interrupted(sessions)
        going_on = await status(each, "counting")
        assert going_on.started_at is not None
        assert going_on.ended_at is None
        done = await counting().run(sessions)
        assert done.ended_at is not None
        assert done.started_at == going_on.started_at
        assert before <= done.started_at <= done.ended_at <= datetime.now(UTC)
        assert done.started_at.utcoffset() == timedelta(0)
    await file.dispose()


async def test_a_cancelled_run_is_over(engine: AsyncEngine, sessions: Sessions) -> None:
    await fill(engine, 1_000)
    await interrupted(sessions)
    first = await cancel(engine, "counting")
    assert (first.state, first.rows_read) == ("cancelled", 200)
    with pytest.raises(JobError, match="no active run"):
        await pause(engine, "counting")
    second = await counting().run(sessions)
    assert second.run != first.run
    assert [run.run for run in await list_runs(engine)] == [second.run, first.run]
    assert (await status(engine, str(first.run))).state == "cancelled"


async def test_one_active_run_for_a_name_and_arguments(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 1_000)
    job = BatchJob("counting", select=select(Counter), chunk=100, partitions=1)
    begun, all_there = asyncio.Event(), asyncio.Event()

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        begun.set()
        await all_there.wait()  # a start after the end would be another run
        for counter in counters:
            counter.n += 1

    running = [asyncio.create_task(job.run(sessions)) for _ in range(3)]
    async with asyncio.timeout(60):
        await begun.wait()
        while (await status(engine, "counting")).tasks < 3:
            await asyncio.sleep(0.01)
    all_there.set()
    runs = await asyncio.gather(*running)
    assert len({run.run for run in runs}) == 1
    assert await tally(engine) == {1: 1_000}
    other = await job.run(sessions, arguments={"a": "1"})
    assert other.arguments == {"a": "1"}
    assert (await status(engine, "counting", {"a": "1"})).run == other.run


async def test_several_active_runs_have_to_be_told_apart(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 1_000)
    for week in "12":
        with pytest.raises(Interrupted), interrupt_after(1):
            await counting().run(sessions, arguments={"week": week})
    with pytest.raises(JobError, match=r"2 active runs \(2, 1\): give one"):
        await pause(engine, "counting")
    assert (await pause(engine, "counting", {"week": "1"})).run == 1
    assert (await pause(engine, "2")).arguments == {"week": "2"}


async def test_another_key_cannot_go_on(engine: AsyncEngine, sessions: Sessions) -> None:
    await fill(engine, 1_000)
    await interrupted(sessions)
    with pytest.raises(
        JobError, match=r"pages by \(id integer\), the job now by \(n integer, id integer\)"
    ):
        await counting(key=[Counter.n, Counter.id]).run(sessions)


async def test_too_few_connections_are_refused(database_url: str) -> None:
    engine = create_async_engine(database_url, pool_size=2, max_overflow=0)
    with pytest.raises(ConfigurationError, match="4 workers need 5 connections, the pool has 2"):
        await counting().run(async_sessionmaker(engine), workers=4)
    await engine.dispose()


async def test_a_pool_of_two_is_enough_for_one_worker(
    database_url: str, engine: AsyncEngine
) -> None:
    await fill(engine, 1_000)
    small = create_async_engine(database_url, pool_size=2, max_overflow=0, pool_timeout=5)
    await counting().run(async_sessionmaker(small))
    await small.dispose()
    assert await tally(engine) == {1: 1_000}


# --- throttles -----------------------------------------------------------------------------


async def test_a_hook_is_asked_until_it_lets_the_chunk_go(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 300)
    clock = FakeClock()
    asked = 0

    async def twice(pace: Pace) -> Wait | None:
        nonlocal asked
        asked += 1
        return Wait(5.0, "later") if asked % 3 else None

    await counting(throttles=[twice]).run(sessions, clock=clock)
    assert clock.slept.count(5.0) == 2 * 3
    assert await tally(engine) == {1: 300}


async def test_nice_ratio_rests_in_proportion(engine: AsyncEngine) -> None:
    wait = await NiceRatio(0.5)(Pace(4.0, engine))
    assert wait == Wait(2.0, "nice ratio 0.5", again=False)
    assert await NiceRatio(0.5)(Pace(0.0, engine)) is None


async def test_active_backends(database_url: str, engine: AsyncEngine) -> None:
    async with engine.connect() as one, engine.connect() as lock:
        await lock.execution_options(isolation_level="AUTOCOMMIT")  # a transaction sees one state
        await lock.execute(text("SELECT pg_advisory_lock(5)"))
        busy = asyncio.create_task(one.execute(text("SELECT pg_advisory_lock(5)")))
        query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'")
        while not await lock.scalar(query):
            await asyncio.sleep(0.01)
        wait = await ActiveBackends(0)(Pace(0.0, engine))
        assert wait is not None
        assert wait.why == "1 active backends, more than 0"
        assert await ActiveBackends(1)(Pace(0.0, engine)) is None
        await lock.execute(text("SELECT pg_advisory_unlock(5)"))
        await busy


async def test_who_waits_for_locks_is_waited_for_by_a_role_of_no_privilege(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    pace = Pace(0.0, engine)
    assert await LockWaits()(pace) is None
    async with engine.connect() as lock, engine.connect() as waiting:
        await lock.execute(text("SELECT pg_advisory_lock(5)"))
        busy = asyncio.ensure_future(waiting.execute(text("SELECT pg_advisory_lock(5)")))
        while (wait := await LockWaits()(pace)) is None:
            await asyncio.sleep(0.01)
        assert wait.why == "1 wait for locks, more than 0"
        assert await LockWaits(1)(pace) is None
        await lock.execute(text("SELECT pg_advisory_unlock(5)"))
        await busy
    assert await LockWaits()(pace) is None


async def test_wal_is_waited_for_by_its_rate(engine: AsyncEngine) -> None:
    """A megabyte and more within a second, of which half of one is let in."""
    clock = FakeClock()
    rate = WalRate(500_000, clock=lambda: clock.now_ns() / 1e9)
    pace = Pace(0.0, engine)
    assert await rate(pace) is None
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE wide AS SELECT generate_series(1, 40000) AS n"))
    clock.advance(1)
    wait = await rate(pace)
    assert wait is not None
    assert wait.again
    assert re.fullmatch(r"[\d.]+ MB/s of WAL, more than 0\.5", wait.why)
    clock.advance(5)
    generous = WalRate(1e12, clock=lambda: clock.now_ns() / 1e9)
    assert await generous(pace) is None
    clock.advance(1)
    assert await generous(pace) is None
    clock.advance(100)
    assert await rate(pace) is None, "what was long ago is no rate"


@pytest.mark.parametrize(
    ("span", "zone", "now", "rest"),
    [
        ("22:00-06:00", "UTC", "2026-02-03T23:00", None),
        ("22:00-06:00", "UTC", "2026-02-03T05:59", None),
        ("22:00-06:00", "UTC", "2026-02-03T06:00", 60),
        ("22:00-06:00", "UTC", "2026-02-03T21:59:30", 30),
        ("09:00-17:00", "Europe/Berlin", "2026-07-03T07:00", None),
        ("09:00-17:00", "Europe/Berlin", "2026-07-03T06:59:50", 10),
        ("09:00-17:00", "Europe/Berlin", "2026-07-03T15:00", 60),
    ],
)
async def test_a_time_of_day(
    engine: AsyncEngine, span: str, zone: str, now: str, rest: int | None
) -> None:
    hook = TimeOfDay(span, zone, now=lambda: datetime.fromisoformat(f"{now}+00:00"))
    wait = await hook(Pace(0.0, engine))
    assert (wait and wait.seconds) == rest
    assert wait is None or wait.why == f"it is not {span} ({zone})"


async def test_a_throttle_that_is_none_is_refused(tmp_path: Path) -> None:
    for wrong in ("22-6", "25:00-01:00", "10:00-10:00", ""):
        with pytest.raises(ConfigurationError, match="say 22:00-06:00"):
            TimeOfDay(wrong)
    with pytest.raises(ConfigurationError, match="no time zone 'Mars/North'"):
        TimeOfDay("22:00-06:00", "Mars/North")
    with pytest.raises(ConfigurationError, match="above 0"):
        WalRate(0)
    file = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'file.sqlite'}")
    await fill(file, 10)
    with pytest.raises(ConfigurationError, match="LockWaits asks PostgreSQL"):
        await counting(throttles=[LockWaits()]).run(async_sessionmaker(file))
    assert await tally(file) == {0: 10}
    await file.dispose()


async def test_a_flag_file_holds_a_job_and_its_status_says_so(
    engine: AsyncEngine, sessions: Sessions, tmp_path: Path
) -> None:
    await fill(engine, 300)
    flag = tmp_path / "hold"
    flag.touch()
    job = counting(throttles=[FlagFile(flag)])
    running = asyncio.create_task(job.run(sessions))
    while not (await list_runs(engine) and (await status(engine, "counting")).throttled_why):
        await asyncio.sleep(0.02)
    held = await status(engine, "counting")
    assert (held.throttled_why, held.rows_read, held.tasks) == (f"{flag} exists", 0, 1)
    flag.unlink()
    done = await running
    assert (done.state, done.rows_read) == ("done", 300)


# --- keys ----------------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class Event(Base):
    """Ordered by what most keys are made of."""

    __tablename__ = "event"

    at: Mapped[datetime] = mapped_column(primary_key=True)
    source: Mapped[UUID] = mapped_column(primary_key=True)
    amount: Mapped[Decimal] = mapped_column(primary_key=True)
    seen: Mapped[int] = mapped_column(default=0)


async def test_composite_keys_of_many_types(engine: AsyncEngine, sessions: Sessions) -> None:
    """Many rows share the first column, and some the first two: no page may split them wrongly."""
    async with sessions.begin() as session:
        await (await session.connection()).run_sync(Base.metadata.create_all)
        start = datetime(2026, 1, 1, microsecond=1)
        for n in range(100):
            source = uuid4()
            session.add_all(
                Event(at=start + timedelta(microseconds=n // 40), source=source, amount=amount)
                for amount in (Decimal("0.10"), Decimal("0.1000001"), Decimal("-3"))
            )
    job = BatchJob("seeing", select=select(Event), chunk=7)

    @job.apply
    async def see(session: AsyncSession, events: Sequence[Event]) -> None:
        for event in events:
            event.seen += 1

    for chunks in (3, 5, 9):
        with pytest.raises(Interrupted), interrupt_after(chunks):
            await job.run(sessions)
    done = await job.run(sessions, workers=3)
    assert done.rows_read == 300
    async with engine.connect() as connection:
        seen = await connection.execute(text("SELECT seen, count(*) FROM event GROUP BY seen"))
        assert [tuple(row) for row in seen] == [(1, 300)]


# --- SQLite --------------------------------------------------------------------------------


@pytest.fixture(params=["our engine", "a plain engine"])
async def file_engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    url = parse_url(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}")
    ours = request.param == "our engine"
    engine = sqlite.create_engine(url, pool_size=5) if ours else create_async_engine(url)
    yield engine
    await engine.dispose()


@pytest.mark.parametrize("place", ["before commit", "after commit"])
async def test_sqlite_keeps_the_promise(file_engine: AsyncEngine, place: str) -> None:
    await fill(file_engine, 1_000)
    sessions = async_sessionmaker(file_engine)
    for chunks in (0, 3, 2):
        with pytest.raises(Interrupted), interrupt_after(chunks, place):  # type: ignore[arg-type]  # a parameter
            await counting().run(sessions)
    done = await counting().run(sessions)
    assert (done.state, done.rows_read) == ("done", 1_000)
    assert await tally(file_engine) == {1: 1_000}


async def test_sqlite_poison_and_until_empty(file_engine: AsyncEngine) -> None:
    await fill(file_engine, 250)
    job = BatchJob(
        "clearing", select=select(Counter).where(Counter.n == 0), until_empty=True, skip_limit=2
    )

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        for counter in counters:
            counter.n = 1_000 // (counter.id - 77)

    done = await job.run(async_sessionmaker(file_engine))
    assert (done.state, done.rows_skipped, done.rows_read) == ("done", 1, 249)


async def test_sqlite_takes_one_worker(file_engine: AsyncEngine) -> None:
    await fill(file_engine, 500)
    sessions = async_sessionmaker(file_engine)
    with pytest.raises(ConfigurationError, match="one writer: run the job with one worker"):
        await counting().run(sessions, workers=2)
    begun, go_on = asyncio.Event(), asyncio.Event()
    job = BatchJob("waiting", select=select(Counter))

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        begun.set()
        await go_on.wait()

    running = asyncio.create_task(job.run(sessions))
    await begun.wait()
    with pytest.raises(JobError, match="another worker has"):
        await counting().run(sessions)
    go_on.set()
    await running


# --- the jobs that ship --------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before commit", "after commit"])
async def test_top20_is_there_as_a_whole_or_not_at_all(
    engine: AsyncEngine, sessions: Sessions, place: str
) -> None:
    arguments = {"week": "2026-W07", "songs": "200"}
    with pytest.raises(Interrupted), interrupt_after(0, place):  # type: ignore[arg-type]  # a parameter
        await music.top20.run(sessions, arguments=arguments)
    expected = 20 if place == "after commit" else 0
    assert len(await entries(sessions)) == expected
    for _ in range(2):  # idempotent by week
        await music.top20.run(sessions, arguments=arguments)
        found = await entries(sessions)
        assert [entry.place for entry in found] == list(range(1, 21))
        plays = [entry.song.plays for entry in found]
        assert plays == sorted(plays, reverse=True)


async def entries(sessions: Sessions) -> list[music.Entry]:
    async with sessions() as session:
        query = select(music.Entry).join(music.Song).order_by(music.Entry.place)
        found = list(await session.scalars(query))
        for entry in found:
            await session.refresh(entry, ["song"])
        session.expunge_all()
        return found


async def test_derive_chords(engine: AsyncEngine, sessions: Sessions) -> None:
    done = await music.derive_chords.run(sessions, workers=2, arguments={"songs": "1200"})
    assert (done.rows_read, done.rows_written) == (1_200, 1_200)
    async with sessions() as session:
        for song in await session.scalars(select(music.Song)):
            assert song.chords == music.chords_of(song.score)
            assert song.tonic == music.tonic_of(song.score)
    assert (await music.derive_chords.run(sessions)).rows_read == 0
