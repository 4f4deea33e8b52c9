from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from async_loader.instruments import PoolWatch


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
            with pytest.raises(DBAPIError):
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
