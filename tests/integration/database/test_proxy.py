"""The proxy carries everything, counts round trips and makes a network longer."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from async_loader.database.proxy import Proxy


async def test_counts_one_round_trip_for_a_warm_statement(database_url: str) -> None:
    async with Proxy(database_url) as proxy:
        engine = create_async_engine(proxy.url)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            before = proxy.round_trips
            for _ in range(10):
                await connection.execute(text("SELECT 1"))
            assert proxy.round_trips - before == 10
        await engine.dispose()


async def test_carries_megabytes_both_ways_unharmed(database_url: str) -> None:
    sent = "x" * 5_000_000 + "end"
    async with Proxy(database_url, delay=0.001) as proxy:
        engine = create_async_engine(proxy.url)
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT :sent ::text"), {"sent": sent}) == sent
        await engine.dispose()


async def test_delays_each_way(database_url: str) -> None:
    async with Proxy(database_url) as proxy:
        engine = create_async_engine(proxy.url)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            proxy.delay = 0.05
            asked = time.monotonic()
            await connection.execute(text("SELECT 1"))
            assert time.monotonic() - asked >= 0.1
            proxy.delay = 0.0
        await engine.dispose()


async def test_ends_links_and_tasks_when_the_client_goes_and_when_it_is_left(
    database_url: str,
) -> None:
    tasks = asyncio.all_tasks()
    async with Proxy(database_url) as proxy:
        engine = create_async_engine(proxy.url)
        async with engine.connect():
            assert len(proxy.links) == 1
        await engine.dispose()
        async with asyncio.timeout(10):
            while proxy.links:
                await asyncio.sleep(0.01)
        async with engine.connect():
            pass
    assert asyncio.all_tasks() == tasks
    assert not proxy.links
    with pytest.raises(OSError):  # noqa: PT011  refused, or reset, as the loop has it
        await asyncio.open_connection("127.0.0.1", proxy.url.port)
    await engine.dispose()
