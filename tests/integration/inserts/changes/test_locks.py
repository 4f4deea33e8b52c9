"""Rows are locked in the order of their keys, as every flush of SQLAlchemy's locks them.

Two writers change the same rows, one row by row. A batch that waits for a row must hold no later
one: else the other, who has that row and comes to the later ones next, waits for the batch in
turn. The tables are stored backwards and analysed, so that the plans that come to mind first
would lock in another order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session

from async_loader import enable_batching
from tests.integration.inserts.changes.models import Base, Counted, Row

Change = Callable[[Session, list[Any]], None]


def alternating(_session: Session, rows: list[Any]) -> None:
    for row in rows:
        setattr(row, "ab"[row.id % 2], row.id)


def one_column(_session: Session, rows: list[Any]) -> None:
    for row in rows:
        row.a = row.id


def deleted(session: Session, rows: list[Any]) -> None:
    for row in rows:
        session.delete(row)


SIZES = [(300, 300, "4MB"), (3000, 500, "64kB")]  # rows stored, rows changed, work_mem


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("cls", "change"),
    [
        (Row, alternating),
        (Counted, alternating),
        (Counted, one_column),
        (Counted, deleted),
        (Row, deleted),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_holds_no_later_row(
    database_url: str,
    driver: str,
    size: tuple[int, int, str],
    cls: type[Any],
    change: Change,
) -> None:
    stored, changed, memory = size
    other = create_async_engine(database_url)
    engine = create_async_engine(database_url.replace("+asyncpg", f"+{driver}"))
    await _fill(other, cls, stored)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    enable_batching(sessions)
    async with sessions() as session, other.connect() as writer, other.connect() as watcher:
        await session.execute(text(f"SET LOCAL work_mem = '{memory}'"))
        query = select(cls).where(cls.id <= changed).order_by(cls.id)
        rows = list(await session.scalars(query))
        backend = await session.scalar(select(func.pg_backend_pid()))
        await session.run_sync(change, rows)
        changes = "v = v, a = 9" if cls is Counted else "a = 9"
        await writer.execute(text(f"UPDATE {cls.__tablename__} SET {changes} WHERE id = 2"))
        flush = asyncio.create_task(session.flush())
        await _waits(watcher, backend)
        free = select(cls.id).where(cls.id > 2).with_for_update(skip_locked=True)
        held = changed - 2 - sum(1 for key in await watcher.scalars(free) if key <= changed)
        await watcher.rollback()
        # What the batch would hold if it had gone on, the other takes now: a deadlock if so.
        await writer.execute(text(f"UPDATE {cls.__tablename__} SET {changes} WHERE id > 2"))
        await writer.commit()
        await flush
        await session.commit()
    assert held == 0
    await engine.dispose()
    await other.dispose()


async def test_writers_meet_without_deadlock(database_url: str) -> None:
    """Writers of both kinds, over and over, each with the rows in an order of its own."""
    other = create_async_engine(database_url)
    await _fill(other, Row, 300)
    batching = async_sessionmaker(other, expire_on_commit=False)
    enable_batching(batching)
    stock = async_sessionmaker(other, expire_on_commit=False)

    async def write(sessions: async_sessionmaker[AsyncSession], turn: int) -> None:
        async with sessions() as session:
            order = Row.id.desc() if turn % 2 else Row.id
            rows = list(await session.scalars(select(Row).order_by(order)))
            for row in rows:
                setattr(row, "abd"[(row.id + turn) % 3], turn)
            await session.commit()

    async with asyncio.TaskGroup() as group:
        for turn in range(1, 13):
            group.create_task(write(batching if turn % 3 else stock, turn))
    await other.dispose()


async def _fill(engine: AsyncEngine, cls: type[Any], count: int) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        version = ", v" if cls is Counted else ""
        one = ", 1" if cls is Counted else ""
        table = cls.__tablename__
        await connection.execute(
            text(
                f"INSERT INTO {table} (id{version}) "
                f"SELECT g{one} FROM generate_series(1, {count}) g ORDER BY g DESC"
            )
        )
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(f"ANALYZE {table}"))


async def _waits(watcher: AsyncConnection, backend: Any) -> None:
    """Return once a backend waits for a lock."""
    waits = text("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = :pid AND NOT granted)")
    async with asyncio.timeout(10):
        while not await watcher.scalar(waits, {"pid": backend}):
            await asyncio.sleep(0.01)
