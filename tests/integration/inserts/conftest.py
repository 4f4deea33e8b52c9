"""What the tests of batched inserts share."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

DRIVERS = ("asyncpg", "psycopg_async")


@asynccontextmanager
async def engine_with(base: Any, database_url: str, driver: str) -> AsyncIterator[AsyncEngine]:
    """An engine of a driver, on a database with the tables of a declarative base."""
    engine = create_async_engine(make_url(database_url).set(drivername=f"postgresql+{driver}"))
    async with engine.begin() as connection:
        await connection.run_sync(base.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
def light_heap() -> Iterator[None]:
    """Let collections pass by what all tests before have imported, which takes a second each."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
