"""What the tests of jobs share: an engine of a role that may do little."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


async def execute(engine: AsyncEngine, *statements: str) -> None:
    """Execute statements in one transaction."""
    async with engine.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


@pytest.fixture(params=["asyncpg", "psycopg"])
async def theirs(
    request: pytest.FixtureRequest, database_url: str, role: str
) -> AsyncIterator[AsyncEngine]:
    """An engine of the role that the module makes."""
    url = make_url(database_url).set(drivername=f"postgresql+{request.param}", username=role)
    engine = create_async_engine(url)
    yield engine
    await engine.dispose()
