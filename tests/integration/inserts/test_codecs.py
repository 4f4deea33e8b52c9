"""What an application registered on its connections or engine is used by flushes, too."""

from __future__ import annotations

import json
from array import array
from typing import Any

import pytest
from sqlalchemy import LargeBinary, String, event, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from async_loader.inserts import enable_batch_inserting
from tests.integration.inserts.differential import described, differential, look


class Base(DeclarativeBase):
    pass


class Paper(Base):
    __tablename__ = "codec_paper"
    id: Mapped[int] = mapped_column(primary_key=True)
    body = mapped_column(JSONB)
    name = mapped_column(String)


class Blob(Base):
    __tablename__ = "codec_blob"
    id: Mapped[int] = mapped_column(primary_key=True)
    data = mapped_column(LargeBinary)


def _sealing(engine: AsyncEngine, way: str) -> None:
    """Have jsonb and text sent by codecs of the application's own."""

    def seal(value: str) -> Any:
        sealed = json.dumps({"sealed": value})
        return sealed if way == "text" else b"\x01" + sealed.encode()

    @event.listens_for(engine.sync_engine, "connect")
    def registers(connection: Any, _record: Any) -> None:
        async def register(driver: Any) -> None:
            await driver.set_type_codec(
                "jsonb", encoder=seal, decoder=bytes, schema="pg_catalog", format=way
            )
            await driver.set_type_codec(
                "varchar", encoder=lambda it: f"<{it}>", decoder=str, schema="pg_catalog"
            )

        connection.run_async(register)


async def _written(engine: AsyncEngine, *, batching: bool) -> Any:
    sessions = async_sessionmaker(engine)
    if batching:
        enable_batch_inserting(sessions)
    async with sessions() as session:
        session.add_all([Paper(body={"a": 1}, name="x"), Paper(body=[2]), Paper(name="y")])
        await session.flush()
        found = await session.execute(
            text("SELECT body::text, name::text FROM codec_paper ORDER BY id")
        )
        return found.all()


@pytest.mark.parametrize("way", ["binary", "text"])
async def test_codecs_of_the_application(database_url: str, way: str) -> None:
    engine = create_async_engine(database_url)
    _sealing(engine, way)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    seen = [await _written(engine, batching=batching) for batching in (False, True)]
    await engine.dispose()
    assert seen[1] == seen[0]
    assert seen[0][0][0] == '{"sealed": "{\\"a\\": 1}"}'


def papers(session: Session) -> Any:
    made = [Paper(body={"a": 1}), Paper(body=[2]), Paper(name="x")]
    session.add_all(made)
    session.commit()
    return look(*made)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_serializer_of_the_application(database_url: str, driver: str) -> None:
    def serialize(value: Any) -> str:
        return json.dumps({"kept": value})

    seen = await differential(
        database_url.replace("+asyncpg", f"+{driver}"),
        Base.metadata,
        papers,
        engine_options={"json_serializer": serialize},
    )
    assert "kept" in str(seen.rows["codec_paper"])


async def test_a_serializer_that_returns_bytes(database_url: str) -> None:
    await differential(
        database_url,
        Base.metadata,
        papers,
        engine_options={"json_serializer": lambda value: json.dumps(value).encode()},
    )


def blobs(session: Session) -> Any:
    made = [
        Blob(data=data)
        for data in (b"a", bytearray(b"b"), memoryview(b"cd"), array("b", [1, 2]), b"", None)
    ]
    session.add_all(made)
    session.commit()
    return [bytes(one.data) if one.data is not None else None for one in made]


def blobs_of_arrays(session: Session) -> Any:
    made = [Blob(data=array("b", [number])) for number in range(3)]
    session.add_all(made)
    session.commit()
    return [bytes(one.data) for one in made]


def blobs_of_text(session: Session) -> Any:
    """What is refused is refused by the same error."""
    session.add_all([Blob(data=b"a"), Blob(data="text")])
    try:
        session.flush()
    except StatementError as error:
        return described(error)
    return None


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("script", [blobs, blobs_of_arrays, blobs_of_text])
async def test_what_has_bytes(database_url: str, driver: str, script: Any) -> None:
    url = database_url.replace("+asyncpg", f"+{driver}")
    await differential(url, Base.metadata, script)
