"""The state tables of jobs, whoever makes them, when, and with which privileges."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from async_loader.jobs.tables import _MAKING, LOCK_CLASS
from tests.counting import counting, fill, tally

AT_ONCE = 4


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_several_make_them_at_once_at_whichever_isolation(
    database_url: str, engine: AsyncEngine, driver: str, level: str
) -> None:
    """A listener's level holds: who has waited for the first one sees what was there before."""
    await fill(engine, 200)
    url = make_url(database_url).set(drivername=f"postgresql+{driver}")
    engines = [create_async_engine(url) for _ in range(AT_ONCE)]

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"SET TRANSACTION ISOLATION LEVEL {level}")

    for its in engines:
        event.listen(its.sync_engine, "begin", begin)
    async with engine.begin() as connection:
        lock = {"ours": LOCK_CLASS, "making": _MAKING}
        await connection.execute(text("SELECT pg_advisory_xact_lock(:ours, :making)"), lock)
        runs = [asyncio.create_task(counting().run(async_sessionmaker(its))) for its in engines]
        waiting = text(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        while await connection.scalar(waiting) != AT_ONCE:
            await asyncio.sleep(0.01)
    done = await asyncio.gather(*runs)
    assert {status.state for status in done} == {"done"}
    for its in engines:
        await its.dispose()
    assert sum((await tally(engine)).values()) == 200
