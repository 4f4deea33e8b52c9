"""What the tests of the fast paths share: a database for a module; SQLAlchemy as it was, after."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from async_loader import disable_fast_paths
from async_loader.database.embedded import EmbeddedServer
from tests.integration.reads.models import Base, objects

DRIVERS = ("asyncpg", "psycopg_async")
_numbers = count(1)


def engine_of(url: str, driver: str = "asyncpg", **options: Any) -> AsyncEngine:
    """An engine of a driver on a database."""
    return create_async_engine(make_url(url).set(drivername=f"postgresql+{driver}"), **options)


def statements_of(engine: AsyncEngine) -> list[str]:
    """The statements that an engine executes from now on."""
    seen: list[str] = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def see(_c: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    return seen


async def _execute(url: str, statement: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


@pytest.fixture(scope="module")
def read_url(server: EmbeddedServer) -> Iterator[str]:
    """The URL of a database that a module's tests share; they only read it, or keep apart."""
    name = f"reads_{os.getpid()}_{next(_numbers)}"
    asyncio.run(_execute(server.url, f"CREATE DATABASE {name} TEMPLATE template0"))
    yield make_url(server.url).set(database=name).render_as_string(hide_password=False)
    asyncio.run(_execute(server.url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="module")
def filled(read_url: str) -> None:
    """Have the objects of the models in the module's database."""

    async def fill() -> None:
        engine = engine_of(read_url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add_all(objects())
            await session.commit()
        await engine.dispose()

    asyncio.run(fill())


@pytest.fixture(autouse=True)
def off_afterwards() -> Iterator[None]:
    """Leave SQLAlchemy as it was."""
    yield
    disable_fast_paths()
