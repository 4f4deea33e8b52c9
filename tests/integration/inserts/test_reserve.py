"""Blocks of keys kept for small flushes: used, thrown away in time, and never used twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import URL, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from async_loader.database.proxy import Proxy
from async_loader.errors import ConfigurationError
from async_loader.inserts import enable_batch_inserting
from async_loader.inserts.reserve import _RESERVES
from tests.faults.server import new_server
from tests.integration.inserts.models import Base, ByDefault, Node

RESERVE = 100


def nth(number: int) -> int:
    """The value that the sequence has then: it counts by five."""
    return 1 + 5 * (number - 1)


def asking(count: int) -> list[ByDefault]:
    """Objects whose keys have to be asked for."""
    return [ByDefault(name=str(i), **({"state": "x"} if i % 2 else {})) for i in range(count)]


@asynccontextmanager
async def connected(
    url: str | URL, reserve: int = RESERVE
) -> AsyncIterator[tuple[AsyncEngine, Any]]:
    """An engine with a pool of four, its tables, and sessions that batch."""
    engine = create_async_engine(url, pool_size=4, max_overflow=0)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    enable_batch_inserting(sessions, reserve=reserve)
    yield engine, sessions
    await engine.dispose()


async def insert(sessions: Any, count: int = 4, *, commit: bool = True) -> list[int]:
    async with sessions() as session:
        objects = asking(count)
        session.add_all(objects)
        await session.flush()
        keys = [one.id for one in objects]
        await (session.commit() if commit else session.rollback())
    return keys


async def last_value(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        found = await connection.scalar(text("SELECT last_value FROM by_default_id_seq"))
    return int(found or 0)


async def trips(proxy: Proxy, sessions: Any, count: int = 4) -> int:
    """Round trips of a flush in an open transaction."""
    async with sessions() as session:
        await session.execute(text("SELECT 1"))
        session.add_all(asking(count))
        before = proxy.round_trips
        await session.flush()
        used = proxy.round_trips - before
        await session.commit()
    return used


async def test_a_block_saves_the_trip_and_moves_the_sequence_once(database_url: str) -> None:
    async with Proxy(database_url) as proxy, connected(proxy.url) as (engine, sessions):
        await trips(proxy, sessions)  # draws, and reserves
        await trips(proxy, sessions)  # warm
        before = await last_value(engine)
        assert [await trips(proxy, sessions) for _ in range(5)] == [2] * 5  # two inserts
        assert await last_value(engine) == before == nth(4 + RESERVE)
        assert await trips(proxy, sessions, RESERVE + 1) == 3  # too many for a block
        assert await last_value(engine) == before + 5 * (RESERVE + 1)


async def test_without_a_reserve_every_flush_asks(database_url: str) -> None:
    async with Proxy(database_url) as proxy, connected(proxy.url, 0) as (_, sessions):
        await trips(proxy, sessions)
        await trips(proxy, sessions)
        assert await trips(proxy, sessions) == 3


async def test_a_tree_takes_a_block_too(database_url: str) -> None:
    async with Proxy(database_url) as proxy, connected(proxy.url) as (_, sessions):
        used = []
        for _ in range(4):
            async with sessions() as session:
                root = Node(name="root")
                session.add_all([root, Node(name="leaf", parent=root)])
                before = proxy.round_trips
                await session.flush()
                used.append(proxy.round_trips - before)
                await session.commit()
                assert root.id is not None
        assert used[-1] == 1 + 1  # BEGIN, INSERT


async def test_sixteen_tasks_on_a_pool_of_four(database_url: str) -> None:
    async with connected(database_url) as (engine, sessions):

        async def many() -> list[list[int]]:
            return [await insert(sessions, 1 + n) for n in range(20)]

        async with asyncio.timeout(60):
            found = await asyncio.gather(*(many() for _ in range(16)))
        flushes = [keys for one in found for keys in one]
        assert all(keys == sorted(keys) for keys in flushes)
        keys = [key for flush in flushes for key in flush]
        assert len(set(keys)) == len(keys) == 16 * 210
        async with engine.connect() as connection:
            assert await connection.scalar(select(func.count(ByDefault.id))) == len(keys)


async def test_a_rollback_leaves_gaps_only(database_url: str) -> None:
    async with connected(database_url) as (_, sessions):
        first = await insert(sessions)
        undone = await insert(sessions, commit=False)
        second = await insert(sessions)
        assert first < undone < second
        assert not set(undone) & {*first, *second}


@pytest.mark.parametrize("how", ["invalidate", "dispose", "connect"])
async def test_thrown_away(database_url: str, how: str) -> None:
    async with connected(database_url) as (engine, sessions):
        await insert(sessions)
        first = await insert(sessions)
        assert first[0] == nth(5), "from the block that follows the first four"
        async with engine.connect() as connection:
            if how == "invalidate":
                await connection.invalidate()
            elif how == "connect":
                async with engine.connect():
                    pass
        if how == "dispose":
            await engine.dispose()
        # Two: the first on a new connection asks in any case.
        assert (await insert(sessions))[0] > nth(4 + RESERVE)
        assert (await insert(sessions))[0] > nth(4 + RESERVE)


async def test_a_sequence_that_the_session_itself_has_locked(database_url: str) -> None:
    """The reserving connection must not wait for a transaction that waits for it."""
    async with (
        connected(database_url) as (_, sessions),
        asyncio.timeout(30),
        sessions() as session,
    ):
        await session.execute(text("ALTER SEQUENCE by_default_id_seq RESTART 500"))
        objects = asking(4)
        session.add_all(objects)
        await session.commit()
        assert [one.id for one in objects] == [500, 505, 510, 515]


async def test_another_table_of_the_name_on_another_connection(database_url: str) -> None:
    """A connection that has not yet looked which table a name means takes no block."""
    async with connected(database_url) as (engine, sessions):
        async with engine.begin() as connection:
            await connection.execute(text("CREATE SCHEMA other"))
            await connection.execute(
                text(
                    "CREATE TABLE other.by_default (id serial PRIMARY KEY, name varchar NOT NULL, "
                    "state varchar DEFAULT 'x', size integer DEFAULT 1)"
                )
            )
        async with sessions() as one, sessions() as another:
            await one.execute(text("SELECT 1"))
            await another.execute(text("SET search_path = other"))
            for _ in range(2):
                one.add_all(asking(4))
                await one.flush()
            objects = asking(4)
            another.add_all(objects)
            await another.flush()
            assert [new.id for new in objects] == [1, 2, 3, 4]


async def test_the_server_crashes_while_a_block_is_held() -> None:
    """Blocks are durable before use, even where commits are not: nothing is handed out twice."""
    with new_server() as server:
        async with connected(server.url) as (engine, sessions):
            async with engine.begin() as connection:
                await connection.execute(
                    text("ALTER DATABASE postgres SET synchronous_commit = off")
                )
            await engine.dispose()
            await insert(sessions)
            used = await insert(sessions, commit=False)
            held = held_by(engine)
            assert held
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            with pytest.raises(Exception, match=r"connection|closed|terminat"):
                await insert(sessions)
            after = await insert(sessions)
            assert after[0] > max(held) > max(used)
            assert not held_by(engine) & held


def held_by(engine: AsyncEngine) -> set[int]:
    """The keys that a client holds."""
    (blocks,) = (kept._blocks for pool, kept in _RESERVES.items() if pool is engine.pool)
    return {key for block in blocks.values() for key in block}


def test_a_negative_reserve() -> None:
    with pytest.raises(ConfigurationError, match="reserve"):
        enable_batch_inserting(async_sessionmaker(), reserve=-1)
