"""The bars of jobs: what the promise costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import psutil
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from async_loader.jobs import JobStatus, Pace
from async_loader.load.workloads.music import Song, chords_of, derive_chords, make_songs, tonic_of
from tests.counting import Counter, counting, fill

from .conftest import ROUNDS, in_turns, quote

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

CHUNK = 500
Sessions = async_sessionmaker[AsyncSession]
Work = Callable[[Sessions], Coroutine[Any, Any, Any]]


def timed(url: str, work: Work) -> float:
    """Return the seconds that work takes, without the pool's first connections."""

    async def measure() -> float:
        engine = create_async_engine(url)
        async with engine.connect() as one, engine.connect() as two:
            await one.execute(text("SELECT 1"))
            await two.execute(text("SELECT 1"))
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        started = time.perf_counter()
        await work(sessions)
        seconds = time.perf_counter() - started
        await engine.dispose()
        return seconds

    return asyncio.run(measure())


def once(url: str, work: Callable[[AsyncEngine], Coroutine[Any, Any, Any]]) -> None:
    """Run what prepares a measurement."""

    async def run() -> None:
        engine = create_async_engine(url)
        await work(engine)
        await engine.dispose()

    asyncio.run(run())


async def plain_loop(sessions: Sessions) -> None:
    """The loop that a job replaces: keyset pages, a transaction each, no position kept."""
    last = 0
    while True:
        async with sessions() as session:
            query = select(Counter).where(Counter.id > last).order_by(Counter.id).limit(CHUNK)
            counters = (await session.scalars(query)).all()
            if not counters:
                return
            for counter in counters:
                counter.n += 1
            last = counters[-1].id
            await session.commit()


def test_against_a_hand_written_loop(database_url: str) -> None:
    """Bar: at most 1.10 x its time, one worker, the same chunks."""
    once(database_url, lambda engine: fill(engine, 100_000))

    async def job(sessions: Sessions) -> None:
        await counting(chunk=CHUNK).run(sessions)

    ours, theirs, ratio = in_turns(
        lambda: timed(database_url, job), lambda: timed(database_url, plain_loop), rounds=7
    )
    quote("100,000 rows", [f"job {ours:.2f} s", f"loop {theirs:.2f} s", f"{ratio:.3f} x"])
    assert ratio <= 1.10


def test_derive_chords_against_a_commit_for_each_row(database_url: str) -> None:
    """Bar: 10 x faster a row."""
    songs, few = 20_000, 1_000

    async def prepare(engine: AsyncEngine) -> None:
        await make_songs(async_sessionmaker(engine), {"songs": str(songs)})

    async def forget(sessions: Sessions) -> None:
        async with sessions.begin() as session:
            await session.execute(update(Song).values(chords=None, tonic=None))

    async def row_by_row(sessions: Sessions) -> None:
        async with sessions() as session:
            numbers = (await session.scalars(select(Song.id).order_by(Song.id).limit(few))).all()
        for number in numbers:
            async with sessions() as session:
                song = await session.get_one(Song, number)
                song.chords, song.tonic = chords_of(song.score), tonic_of(song.score)
                await session.commit()

    def job() -> float:
        timed(database_url, forget)
        return timed(database_url, derive_chords.run) / songs

    def loop() -> float:
        timed(database_url, forget)
        return timed(database_url, row_by_row) / few

    once(database_url, prepare)
    theirs, ours, ratio = in_turns(loop, job, rounds=ROUNDS)
    quote(
        "derive-chords", [f"job {ours * 1e6:.0f}", f"row by row {theirs * 1e6:.0f} us a row",
                          f"{ratio:.1f} x"],
    )  # fmt: skip
    assert ratio >= 10


async def test_a_million_rows(database_url: str) -> None:
    """Bars: memory flat within 5 MB, the oldest transaction under two chunks (the slowest)."""
    engine = create_async_engine(database_url)
    await fill(engine, 1_000_000)
    process = psutil.Process()
    memory: list[tuple[int, float]] = []

    def on_progress(status: JobStatus) -> None:
        memory.append((status.rows_read, process.memory_info().rss / 1e6))

    slowest = 0.0

    async def look(pace: Pace) -> None:
        nonlocal slowest
        slowest = max(slowest, pace.busy_seconds)

    watching = asyncio.create_task(oldest_transaction(database_url))
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    done = await counting(chunk=CHUNK, throttles=[look]).run(sessions, on_progress=on_progress)
    watching.cancel()
    oldest = await watching
    await engine.dispose()
    chunk = done.busy_seconds / done.chunks
    warm = [megabytes for rows, megabytes in memory if rows >= 100_000]
    growth = max(warm) - warm[0]
    quote(
        "a million rows",
        [
            f"{done.rows_read / done.busy_seconds:,.0f} rows/s",
            f"memory +{growth:.1f} MB after the first tenth",
            f"oldest transaction {oldest * 1e3:.0f} ms, "
            f"a chunk {chunk * 1e3:.0f} ms, the slowest {slowest * 1e3:.0f} ms",
        ],
    )
    assert growth <= 5
    assert oldest <= 2 * slowest


async def oldest_transaction(url: str) -> float:
    """Return the greatest age of a transaction that was seen, in seconds, when cancelled."""
    query = text(
        "SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::float8"
        " FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND backend_type = 'client backend' AND datname = current_database()"
    )
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    seen = [0.0]
    try:
        async with engine.connect() as connection:
            while True:
                seen.append(float(await connection.scalar(query) or 0.0))
                await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        return max(seen)
    finally:
        await engine.dispose()
