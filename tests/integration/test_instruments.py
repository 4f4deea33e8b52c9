from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from async_loader import ConfigurationError
from async_loader.instruments import (
    DialectTimer,
    OperationTimes,
    PoolWatch,
    current_times,
)


async def hold(engine: AsyncEngine, gate: asyncio.Event) -> None:
    async with engine.connect():
        await gate.wait()


async def reach(watch: PoolWatch, in_use: int, waiting: int) -> None:
    async with asyncio.timeout(10):
        while (watch.in_use, watch.waiting) != (in_use, waiting):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("dispose_first", [False, True])
async def test_it_counts_who_has_and_who_waits(database_url: str, dispose_first: bool) -> None:
    engine = create_async_engine(database_url, pool_size=2, max_overflow=1)
    with PoolWatch(engine.sync_engine) as watch:
        if dispose_first:
            await engine.dispose()
        assert watch.size == 3
        gate = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(hold(engine, gate))
            await reach(watch, in_use=3, waiting=2)
            gate.set()
        assert (watch.in_use, watch.waiting) == (0, 0)
        assert (watch.peak_in_use, watch.peak_waiting) == (3, 5)
    await engine.dispose()


async def test_any_pool_can_be_watched(database_url: str) -> None:
    engine = create_async_engine(database_url, poolclass=NullPool)
    with PoolWatch(engine.sync_engine) as watch:
        async with engine.connect(), engine.connect():
            assert watch.in_use == 2
        assert (watch.in_use, watch.size) == (0, 0)


async def test_a_connection_that_cannot_be_opened_is_not_in_use(database_url: str) -> None:
    url = make_url(database_url).set(database="absent")
    engine = create_async_engine(url)
    with PoolWatch(engine.sync_engine) as watch:
        for _ in range(3):
            # SQLAlchemy 2.0 passes the driver's own error through, 2.1 wraps it.
            with pytest.raises(Exception, match="does not exist"):
                await engine.connect()
        assert (watch.in_use, watch.waiting, watch.peak_in_use) == (0, 0, 0)
    await engine.dispose()


async def test_an_invalidated_connection_is_given_back(engine: AsyncEngine) -> None:
    with PoolWatch(engine.sync_engine) as watch:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            await connection.invalidate()
        assert watch.in_use == 0


async def test_nothing_stays_behind(engine: AsyncEngine) -> None:
    watch = PoolWatch(engine.sync_engine)
    with watch:
        assert event.contains(engine.sync_engine, "engine_disposed", watch._attach)
    assert "connect" not in vars(engine.pool)
    assert not event.contains(engine.sync_engine, "engine_disposed", watch._attach)
    async with engine.connect():
        assert watch.in_use == 0


async def timed(engine: AsyncEngine, *statements: str) -> OperationTimes:
    times = OperationTimes()
    current_times.set(times)
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    current_times.set(None)
    return times


@pytest.fixture
async def watched(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    with PoolWatch(engine.sync_engine), DialectTimer(engine.sync_engine):
        yield engine


async def test_time_in_the_database_is_the_databases(watched: AsyncEngine) -> None:
    times = await timed(watched, "SELECT pg_sleep(0.05)", "SELECT 1")
    assert times.statements == 2, "what a new connection asks is not the operation's"
    assert times.database_ns > 50e6
    assert times.pool_ns > 0


async def test_time_in_the_pool_is_not_the_databases(database_url: str) -> None:
    engine = create_async_engine(database_url, pool_size=1, max_overflow=0)
    with PoolWatch(engine.sync_engine) as watch, DialectTimer(engine.sync_engine):
        async with engine.connect() as connection:
            waiting = asyncio.create_task(timed(engine, "SELECT 1"))
            await reach(watch, in_use=1, waiting=0)
            await connection.execute(text("SELECT pg_sleep(0.05)"))
        times = await waiting
    assert times.pool_ns > 50e6
    assert times.database_ns < times.pool_ns
    await engine.dispose()


async def test_commit_and_rollback_are_timed(watched: AsyncEngine) -> None:
    """A deferred trigger makes the COMMIT itself slow, which no event after it would tell."""
    async with watched.begin() as connection:
        for statement in (
            "CREATE TABLE t (id int)",
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END$$",
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION slow()",
        ):
            await connection.execute(text(statement))
    times = await timed(watched, "INSERT INTO t VALUES (1)")
    assert times.database_ns > 50e6


async def test_the_rows_of_a_server_side_cursor_are_the_databases(engine: AsyncEngine) -> None:
    times = OperationTimes()
    current_times.set(times)
    with DialectTimer(engine.sync_engine):
        async with engine.connect() as connection:
            result = await connection.stream(
                text("SELECT pg_sleep(0.002) FROM generate_series(1, 40)")
            )
            assert len(await result.fetchall()) == 40
    current_times.set(None)
    assert times.database_ns > 80e6


async def test_two_runs_do_not_measure_one_engine(watched: AsyncEngine) -> None:
    with (
        pytest.raises(ConfigurationError, match="give each run an engine of its own"),
        PoolWatch(watched.sync_engine),
    ):
        pass
    async with watched.connect():
        pass


async def test_the_timer_leaves_the_dialect_as_it_was(engine: AsyncEngine) -> None:
    dialect = engine.sync_engine.dialect
    before = dict(vars(dialect))
    with DialectTimer(engine.sync_engine):
        assert "do_commit" in vars(dialect)
    assert vars(dialect).keys() == before.keys()
