"""The built-in workload on a real server: what it writes is what we count."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader import Chunks, Semaphore, Throttle, run
from async_loader.database.postgresql import (
    Namespace,
    create_engine,
    create_sessions,
    session_factories,
)
from async_loader.database.run_schema import run_schema
from async_loader.database.urls import parse_url
from async_loader.load.run_database import connected
from async_loader.load.specs.load_test import DatabaseSpec
from async_loader.load.workloads import mixed
from async_loader.load.workloads.mixed import ReadFrom, ReadVia
from async_loader.reads import explain


async def rows(engine: AsyncEngine) -> tuple[int, int]:
    async with engine.connect() as connection:
        parents = await connection.scalar(text("SELECT count(*) FROM parent"))
        children = await connection.scalar(text("SELECT count(*) FROM child"))
    assert parents is not None
    assert children is not None
    return parents, children


@pytest.mark.parametrize("throttle", [Semaphore(8), Chunks(8)], ids=["semaphore", "chunks"])
async def test_created_rows_equal_our_count(database_url: str, throttle: Throttle) -> None:
    url = parse_url(database_url)
    async with run_schema(url) as schema:
        engine = create_engine(url, pool_size=5, namespace=Namespace(schema))
        sessions, read_sessions = session_factories(engine, reads_autocommit=True)
        result = await run(
            mixed.build(),
            sessions=sessions,
            read_sessions=read_sessions,
            ops=300,
            throttle=throttle,
            write_ratio=0.4,
        )
        assert result.errors == {}
        created = result.by_operation["create"].count
        assert result.completed == 300
        assert await rows(engine) == (3 * created, 5 * created)
        assert result.pool is not None
        assert (result.pool.size, result.pool.peak_in_use) == (5, 5)
        assert result.pool.peak_waiting > 0
        await engine.dispose()


@pytest.mark.parametrize("read_via", ["execute", "stream"])
@pytest.mark.parametrize("read_from", ["first", "uniform"])
async def test_every_way_of_reading_reads(
    engine: AsyncEngine, read_via: ReadVia, read_from: ReadFrom
) -> None:
    sessions = create_sessions(engine)
    await run(mixed.build(), sessions=sessions, ops=30, write_ratio=1)
    workload = mixed.build(read_via=read_via, read_from=read_from)
    result = await run(workload, sessions=sessions, ops=30, write_ratio=0)
    assert result.errors == {}
    assert result.count_of("read") == 30


async def test_reads_in_autocommit_begin_no_transaction(engine: AsyncEngine) -> None:
    _, sessions = session_factories(engine, reads_autocommit=True)
    async with sessions() as session:
        await session.execute(text("SELECT 1"))
        states = await session.scalars(
            text("SELECT state FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        )
        assert "idle in transaction" not in states.all()
        first, second = [
            await session.scalar(text("SELECT pg_current_xact_id()::text")) for _ in range(2)
        ]
        assert first != second


@pytest.mark.parametrize("asked", [True, False])
async def test_reads_take_the_fast_paths_if_they_shall(database_url: str, asked: bool) -> None:
    spec = DatabaseSpec(has_fast_paths=asked)
    async with connected(spec, parse_url(database_url), Namespace(), 2) as database:
        for factory in (database.sessions, database.read_sessions):
            assert factory is not None
            async with factory() as session:
                told = explain(mixed.declare().first_page, session)
                assert ("kept, = ANY" in told) == asked


async def test_cancelling_a_run_leaves_no_connection_checked_out(engine: AsyncEngine) -> None:
    sessions = create_sessions(engine)
    task = asyncio.create_task(run(mixed.build(), sessions=sessions, ops=10_000, concurrency=4))
    while True:
        await asyncio.sleep(0.05)
        async with engine.connect() as connection:
            if await connection.scalar(text("SELECT to_regclass('parent') IS NOT NULL")):
                break
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool
    assert "connect" not in vars(engine.pool), "the pool is as it was"
