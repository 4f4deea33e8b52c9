"""A job whose every mistake shows: it adds one to each row, and logs each row it adds to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from async_loader.jobs import BatchJob, Pace, PrepareContext


class Base(DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counter"

    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int] = mapped_column(default=0)


async def fill(engine: AsyncEngine, rows: int) -> None:
    """Make counters 1 to `rows`, all at nought."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        for start in range(0, rows, 10_000):
            numbers = range(start + 1, min(start + 10_000, rows) + 1)
            await connection.execute(insert(Counter), [{"id": i, "n": 0} for i in numbers])
        # As autovacuum does a minute later: without it a page is read by a sort of all rows.
        await connection.execute(text("ANALYZE counter"))


async def tally(engine: AsyncEngine) -> dict[int, int]:
    """Return how many counters stand at which number."""
    query = select(Counter.n, func.count()).group_by(Counter.n)
    async with engine.connect() as connection:
        return {row[0]: row[1] for row in await connection.execute(query)}


def counting(**options: Any) -> BatchJob:
    """Return the job, with other options."""
    job = BatchJob(**{"name": "counting", "select": select(Counter), "chunk": 100, **options})

    @job.apply
    async def add_one(session: AsyncSession, counters: Sequence[Counter]) -> None:
        for counter in counters:
            counter.n += 1

    return job


async def _pause(pace: Pace) -> None:
    """Make a run last, without work for the machine."""
    await asyncio.sleep(_PAUSE)


_PAUSE = float(os.environ.get("COUNTING_PAUSE", "0"))
job = counting(
    chunk=int(os.environ.get("COUNTING_CHUNK", "100")),
    lease=float(os.environ.get("COUNTING_LEASE", "30")),
    patience=float(os.environ.get("COUNTING_PATIENCE", "300")),
    throttles=[_pause] if _PAUSE else [],
)


prepared = BatchJob(
    "prepared",
    select=select(Counter),
    chunk=50,
    prepare_concurrency=25,
    prepare_retries={OSError: 3},
)


@prepared.prepare
async def _next(counter: Counter, context: PrepareContext) -> int:
    """Prepare what apply would add by itself; the first attempt at some of them fails."""
    await asyncio.sleep(0.001)
    if counter.id % 500 == 0 and context.attempt == 1:
        raise OSError("no answer")
    return counter.n + 1


@prepared.apply
async def _set(session: AsyncSession, counters: Sequence[Counter], values: Sequence[int]) -> None:
    for counter, value in zip(counters, values, strict=True):
        assert value == counter.n + 1, "it is what was prepared"
        counter.n = value
