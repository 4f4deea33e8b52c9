"""A new connection's first batch asks nothing about arrays, and means what it would have meant."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from async_loader.database.proxy import Proxy
from async_loader.inserts import enable_batch_inserting
from async_loader.inserts.array_types import ARRAYS
from async_loader.inserts.catalogue import facts_of
from async_loader.inserts.names import Names
from async_loader.inserts.plans import mapper_plan
from tests.integration.inserts.models import Base, Plain, Types
from tests.integration.inserts.test_round_trips import Make, big_family, plain, tree, uuid_keys


def _ask_the_catalogue(session: Session) -> None:
    connection = session.connection()
    for mapper in Base.registry.mappers:
        for plan in mapper_plan(mapper, connection.dialect).tables.values():
            facts_of(connection, plan, Names.of(connection))


async def test_what_is_told_is_what_the_server_says(engine: AsyncEngine) -> None:
    statement = text(
        "SELECT typname, oid::bigint, typelem::bigint FROM pg_type"
        " WHERE oid = ANY (:oids) AND typdelim = ',' AND typtype = 'b' ORDER BY oid"
    )
    async with engine.connect() as connection:
        rows = await connection.execute(statement, {"oids": [oid for _, oid, _ in ARRAYS]})
    assert [tuple(row) for row in rows] == list(ARRAYS)


@pytest.mark.parametrize(
    ("make", "statements"), [(plain, 1), (big_family, 2), (tree, 2), (uuid_keys, 4)],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
async def test_the_first_flush_of_a_connection(
    database_url: str, make: Make, statements: int
) -> None:
    async with Proxy(database_url) as proxy:
        engine = create_async_engine(proxy.url)
        sessions = async_sessionmaker(engine)
        enable_batch_inserting(sessions)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with sessions() as session:
            await session.execute(text("SELECT 1"))
            await session.run_sync(_ask_the_catalogue)  # once a connection
            session.add_all(make(12))
            before = proxy.round_trips
            await session.flush()
            used = proxy.round_trips - before
        await engine.dispose()
    assert used <= 2 * statements  # each is prepared, and executed


async def test_a_codec_set_for_an_element_is_used_in_its_array(engine: AsyncEngine) -> None:
    def doubled(value: Decimal) -> str:
        return str(2 * value)

    sessions = async_sessionmaker(engine)
    enable_batch_inserting(sessions)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with sessions() as session:
        session.add(Plain(name="numbers and text"))
        await session.flush()
        raw: Any = await (await session.connection()).get_raw_connection()
        await raw.driver_connection.set_type_codec(
            "numeric", schema="pg_catalog", encoder=doubled, decoder=Decimal, format="text"
        )
        session.add(Types(number=Decimal("1.5")))
        await session.flush()
        assert await session.scalar(select(Types.number)) == 3
