"""What Alembic executes for each of its commands, with an engine of asyncio."""

from __future__ import annotations

import asyncio
import os

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

URL = os.environ["PRICES_DATABASE_URL"]


def migrate(connection: Connection) -> None:
    """Execute the migrations, all in one transaction."""
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()


async def connected() -> None:
    """Migrate over a connection of the engine's."""
    engine = create_async_engine(URL)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


if context.is_offline_mode():
    context.configure(url=URL, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(connected())
