"""A connection that the server ends: its word and the end itself arrive apart."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from async_loader.failures.classification import classify
from async_loader.jobs.transient import is_transient

NAMES = {
    "connection closed",
    "connection reset",
    "08003 connection_does_not_exist",
    "57P01 admin_shutdown",
}


async def terminate_others(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


async def test_whatever_has_arrived_it_has_a_name_and_passes(
    database_url: str, engine: AsyncEngine
) -> None:
    victim = create_async_engine(database_url)
    for turns in range(100):
        async with victim.connect() as connection:
            await connection.execute(text("SELECT 1"))
            await terminate_others(engine)
            for _ in range(turns % 4):
                await asyncio.sleep(0)
            # SQLAlchemy 2.0 passes some of the driver's errors on as they are.
            with pytest.raises(Exception) as caught:  # noqa: PT011
                await connection.execute(text(f"SELECT {turns}"))
            assert classify(caught.value).name in NAMES
            assert is_transient(caught.value)
            await connection.invalidate()
    await victim.dispose()
