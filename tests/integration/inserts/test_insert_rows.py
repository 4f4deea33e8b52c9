"""Rows without objects."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from async_loader.errors import ConfigurationError
from async_loader.inserts import copying, insert_rows
from tests.integration.inserts import models
from tests.integration.inserts.models import (
    Base,
    ByContext,
    Car,
    Cat,
    Child,
    Colour,
    Defaults,
    Parent,
    Plain,
    Quoted,
    Types,
    Versioned,
)


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[AsyncSession]:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()


async def names(session: AsyncSession, model: Any = Plain) -> list[Any]:
    return list(await session.scalars(select(model.name).order_by(model.id)))


async def test_dicts_by_attribute_name(session: AsyncSession) -> None:
    assert await insert_rows(session, Quoted, ({"value": f"% {i}"} for i in range(5))) == 5
    found = await session.execute(select(Quoted.id, Quoted.value, Quoted.other))
    assert found.all() == [(i + 1, f"% {i}", "x") for i in range(5)]


async def test_tuples_with_and_without_the_key(session: AsyncSession) -> None:
    assert await insert_rows(session, Plain, [("a", 1), ("b", None)]) == 2
    assert await insert_rows(session, Plain, [(50, "c", 1)]) == 1
    assert (await session.execute(select(Plain.id, Plain.name))).all() == [
        (1, "a"),
        (2, "b"),
        (50, "c"),
    ]
    with pytest.raises(ConfigurationError, match="has 3 values, or 2 without"):
        await insert_rows(session, Plain, [("a",)])


async def test_async_iterable_in_chunks(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "CHUNK", 7)

    async def rows() -> AsyncIterator[dict[str, Any]]:
        for i in range(30):
            yield {"name": f"n{i}", **({"value": i} if i % 2 else {})}

    assert await insert_rows(session, Plain, rows()) == 30
    assert await session.scalar(select(func.count(Plain.value))) == 15


async def test_memory_is_bounded(session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "CHUNK", 10)
    copied: list[int] = []
    ahead: list[int] = []
    copy = copying._copy

    async def counting(connection: Any, target: Any, columns: Any, records: Any) -> None:
        records = list(records)
        copied.append(len(records))
        await copy(connection, target, columns, records)

    def rows() -> Iterator[dict[str, Any]]:
        for i in range(100):
            ahead.append(i - sum(copied))
            yield {"name": f"n{i}"}

    monkeypatch.setattr(copying, "_copy", counting)
    assert await insert_rows(session, Plain, rows()) == 100
    assert max(ahead) <= 10


async def test_defaults_and_types(session: AsyncSession) -> None:
    models.counter = itertools.count(1)
    await insert_rows(session, Defaults, [{"name": "a"}, {"name": "b", "server": "given"}])
    found = await session.execute(
        select(Defaults.scalar, Defaults.called, Defaults.server, Defaults.doubled).order_by(
            Defaults.id
        )
    )
    assert found.all() == [(7, 1, "made", 14), (7, 3, "given", 14)]
    await insert_rows(
        session,
        Types,
        [{"colour": Colour.RED, "shouted": "x", "document": {"a": 1}, "binary_document": [1]}],
    )
    one = (await session.scalars(select(Types))).one()
    assert (one.colour, one.shouted, one.document, one.binary_document) == (
        Colour.RED,
        "x",
        {"a": 1},
        [1],
    )
    await insert_rows(session, Versioned, [{"name": "v"}])
    assert (await session.scalars(select(Versioned.version))).all() == [1]
    await insert_rows(session, Cat, [{"name": "tom"}])
    assert (await session.scalars(select(Cat))).one().lives == 9


async def test_refuses_what_copy_cannot(session: AsyncSession) -> None:
    with pytest.raises(ConfigurationError, match="several tables"):
        await insert_rows(session, Car, [{"name": "a", "doors": 2}])
    with pytest.raises(ConfigurationError, match="no attribute colour"):
        await insert_rows(session, Plain, [{"colour": 1}])
    with pytest.raises(ConfigurationError, match="default of upper"):
        await insert_rows(session, ByContext, [{"name": "a"}])


async def test_rollback_leaves_nothing(session: AsyncSession) -> None:
    await insert_rows(session, Plain, [{"name": "a"}])
    await session.rollback()
    assert await names(session) == []


async def test_rolls_back_with_its_savepoint(session: AsyncSession) -> None:
    session.add(Plain(name="kept"))
    await session.flush()
    with pytest.raises(IntegrityError) as caught:
        async with session.begin_nested():
            await insert_rows(session, Plain, [{"name": "a"}, {"name": "a"}])
    assert caught.value.orig is not None
    assert caught.value.orig.sqlstate == "23505"  # type: ignore[attr-defined]  # of the driver
    await session.commit()
    assert await names(session) == ["kept"]


async def test_pending_objects_go_first(session: AsyncSession) -> None:
    session.add(Parent(id=7, name="p"))
    await insert_rows(session, Child, [{"parent_id": 7, "name": "c"}])
    await session.commit()
    assert await names(session, Child) == ["c"]


async def test_an_iterable_that_raises(session: AsyncSession) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"name": "a"}
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        await insert_rows(session, Plain, rows())
    await session.rollback()
    assert await names(session) == []
