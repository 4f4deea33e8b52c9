"""What lies around a flush: schemas, binds, triggers, other tables of the name, other tasks."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, String, Table, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from async_loader.inserts import enable_batch_inserting, explain
from tests.integration.inserts.models import (
    Arrays,
    Base,
    ByContext,
    ByDefault,
    Car,
    Composite,
    Parent,
    Plain,
    WithUuid,
)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url, pool_size=4, max_overflow=0)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
def sessions(engine: AsyncEngine) -> async_sessionmaker[Any]:
    factory = async_sessionmaker(engine, expire_on_commit=False)
    enable_batch_inserting(factory)
    return factory


def mixed(count: int) -> list[ByDefault]:
    """Objects whose keys have to be asked for."""
    return [ByDefault(name=str(i), **({"state": "x"} if i % 2 else {})) for i in range(count)]


async def test_sixteen_tasks_on_a_pool_of_four(sessions: async_sessionmaker[Any]) -> None:
    async def insert() -> list[int]:
        async with sessions() as session:
            objects = mixed(20)
            session.add_all(objects)
            await session.commit()
            return [one.id for one in objects]

    async with asyncio.timeout(60):
        found = await asyncio.gather(*(insert() for _ in range(16)))
    keys = [key for block in found for key in block]
    assert len(set(keys)) == 16 * 20
    assert all(block == sorted(block) for block in found)


async def test_a_trigger_that_makes_keys(engine: AsyncEngine, sessions: Any) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION own_key() RETURNS trigger LANGUAGE plpgsql AS "
                "$$BEGIN NEW.id := 1000 + NEW.id; RETURN NEW; END$$"
            )
        )
        await connection.execute(
            text(
                "CREATE TRIGGER own_key BEFORE INSERT ON by_default "
                "FOR EACH ROW EXECUTE FUNCTION own_key()"
            )
        )
    async with sessions() as session:
        objects = mixed(4)
        session.add_all(objects)
        await session.commit()
        found = (await session.execute(select(ByDefault.id, ByDefault.name))).all()
        assert {(one.id, one.name) for one in objects} == set(found)
        assert min(one.id for one in objects) > 1000


async def test_an_altered_sequence(engine: AsyncEngine, sessions: Any) -> None:
    for statement, keys in (
        ("ALTER SEQUENCE by_default_id_seq INCREMENT BY 3 RESTART 100", [100, 103, 106, 109]),
        ("ALTER SEQUENCE by_default_id_seq RENAME TO other_name", [112, 115, 118, 121]),
        ("ALTER SEQUENCE other_name MINVALUE -99 INCREMENT BY -1 RESTART 50", [50, 49, 48, 47]),
    ):
        async with engine.begin() as connection:
            await connection.execute(text(statement))
        await engine.dispose()
        async with sessions() as session:
            # A fresh engine asks the catalogue again; a running one would after a restart.
            objects = mixed(4)
            session.add_all(objects)
            await session.commit()
            assert [one.id for one in objects] == keys


async def test_another_table_of_the_name(engine: AsyncEngine, sessions: Any) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA tenant"))
        await connection.execute(
            text("CREATE TABLE tenant.by_default (LIKE by_default INCLUDING ALL)")
        )
        await connection.execute(
            text("ALTER SEQUENCE tenant.by_default_id_seq RESTART 500 INCREMENT BY 1")
        )
    for path, first in (("public", 1), ("tenant", 500), ("public", None)):
        async with sessions() as session:
            await session.execute(text(f"SET LOCAL search_path = {path}"))
            objects = mixed(2)
            session.add_all(objects)
            await session.flush()
            if first is not None:
                assert objects[0].id == first
            count = await session.scalar(select(func.count(ByDefault.id)))
            assert count == 2
            await session.rollback()


async def test_a_table_made_anew(engine: AsyncEngine, sessions: Any) -> None:
    for _ in range(3):
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        async with sessions() as session:
            objects = mixed(3)
            session.add_all(objects)
            await session.commit()
            assert [one.id for one in objects] == [1, 6, 11]


async def test_schema_translate_map(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA other"))
    translated = engine.execution_options(schema_translate_map={None: "other"})
    async with translated.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    factory = async_sessionmaker(translated)
    enable_batch_inserting(factory)
    async with factory() as session:
        session.add_all([*mixed(4), Parent(name="p"), *(WithUuid(name="u") for _ in range(2))])
        await session.commit()
    async with engine.connect() as connection:
        for table, count in (("by_default", 4), ("parent", 1), ("with_uuid", 2)):
            there = await connection.scalar(text(f"SELECT count(*) FROM other.{table}"))
            here = await connection.scalar(text(f"SELECT count(*) FROM public.{table}"))
            assert (there, here) == (count, 0)


async def test_a_bind_for_each_mapper(engine: AsyncEngine, database_url: str) -> None:
    second = create_async_engine(database_url)
    factory = async_sessionmaker(binds={Plain: engine, WithUuid: second})
    enable_batch_inserting(factory)
    async with factory() as session:
        session.add_all([Plain(name="a"), Plain(name="b"), WithUuid(name="c"), WithUuid(name="d")])
        await session.commit()
        assert await session.scalar(select(func.count(Plain.id))) == 2
        assert await session.scalar(select(func.count()).select_from(WithUuid)) == 2
    await second.dispose()


async def test_a_sequence_that_may_not_be_used(engine: AsyncEngine, database_url: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE ROLE inserts_only NOLOGIN"))
        await connection.execute(text("GRANT INSERT, SELECT ON by_default TO inserts_only"))
    try:
        factory = async_sessionmaker(engine, expire_on_commit=False)
        enable_batch_inserting(factory)
        async with factory() as session:
            await session.execute(text("SET LOCAL ROLE inserts_only"))
            objects = mixed(4)
            session.add_all(objects)
            await session.commit()
            assert [one.id for one in objects] == [1, 6, 11, 16]
    finally:
        async with engine.begin() as connection:
            await connection.execute(text("DROP OWNED BY inserts_only"))
            await connection.execute(text("DROP ROLE inserts_only"))


def test_explain() -> None:
    assert explain(Plain) == "direct: keys come back with the insert"
    assert explain(WithUuid) == "direct: keys are asked for before the insert"
    assert explain(Composite) == "direct: objects bring their keys"
    assert explain(Car).startswith("direct")
    assert explain(Arrays).startswith("prefetch: column numbers has the type ARRAY")
    asks = "the default of column upper asks for its context"
    assert explain(ByContext) == f"prefetch: {asks}\ninsert_rows: INSERT in pages: {asks}"


def test_explain_with_a_session_that_is_not_postgresql() -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    with Session(create_engine("sqlite://")) as session:
        assert explain(Plain, session).startswith("stock: sqlite+")


async def test_the_prefetch_level_regroups(engine: AsyncEngine, sessions: Any) -> None:
    from tests.integration.inserts.test_enable import inserts_heard

    heard = inserts_heard(engine.sync_engine)
    async with sessions() as session:
        objects = [Arrays(numbers=[i], **({"state": "given"} if i % 2 else {})) for i in range(20)]
        session.add_all(objects)
        session.add_all(ByContext(name=str(i)) for i in range(20))
        await session.commit()
    assert [one.id for one in objects] == list(range(1, 21))
    assert len(heard) == 3


CLIENT = """
import asyncio, sys
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from async_loader.inserts import enable_batch_inserting
from tests.integration.inserts.models import Child, Parent

async def main():
    engine = create_async_engine(sys.argv[1])
    sessions = async_sessionmaker(engine)
    enable_batch_inserting(sessions)
    while True:
        async with sessions.begin() as session:
            session.add_all(
                Parent(name="p", children=[Child(name="c") for _ in range(3)]) for _ in range(200)
            )
        print("committed", flush=True)

asyncio.run(main())
"""


async def _kill_in_batches(engine: AsyncEngine, url: str, times: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    for turn in range(times):
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, url, stdout=asyncio.subprocess.PIPE, env=environment
        )
        assert client.stdout is not None
        for _ in range(1 + turn % 3):
            assert await client.stdout.readline() == b"committed\n"
        client.send_signal(signal.SIGKILL)
        await client.wait()
    async with engine.connect() as connection:
        parents = await connection.scalar(text("SELECT count(*) FROM parent"))
        whole = await connection.scalar(
            text(
                "SELECT count(*) FROM parent p WHERE 3 = "
                "(SELECT count(*) FROM child c WHERE c.parent_id = p.id)"
            )
        )
    assert parents is not None
    assert parents >= 200 * times
    assert parents % 200 == 0
    assert whole == parents


async def test_a_killed_client_leaves_nothing_half_written(
    engine: AsyncEngine, database_url: str
) -> None:
    await _kill_in_batches(engine, database_url, 3)


@pytest.mark.soak
async def test_fifty_killed_clients(engine: AsyncEngine, database_url: str) -> None:
    await _kill_in_batches(engine, database_url, 50)


class Names(DeclarativeBase):
    metadata = MetaData(schema="odd schema")


class InSchema(Names):
    __tablename__ = "Odd Table"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String)
    state: Mapped[str | None] = mapped_column(server_default="s")


async def test_a_quoted_schema(engine: AsyncEngine, sessions: Any) -> None:
    async with engine.begin() as connection:
        await connection.execute(text('CREATE SCHEMA "odd schema"'))
        await connection.run_sync(Names.metadata.create_all)
    async with sessions() as session:
        objects = [InSchema(name=str(i), **({"state": "x"} if i % 2 else {})) for i in range(4)]
        session.add_all(objects)
        await session.commit()
        assert [one.id for one in objects] == [1, 2, 3, 4]
    table: Any = InSchema.__table__
    assert isinstance(table, Table)
