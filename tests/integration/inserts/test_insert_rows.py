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
from async_loader.inserts import insert_rows
from async_loader.inserts.bulk import copying, loading, source
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
    monkeypatch.setattr(source, "CHUNK", 7)

    async def rows() -> AsyncIterator[dict[str, Any]]:
        for i in range(30):
            yield {"name": f"n{i}", **({"value": i} if i % 2 else {})}

    assert await insert_rows(session, Plain, rows()) == 30
    assert await session.scalar(select(func.count(Plain.value))) == 15


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int]]:
    """Columns and number of rows of each COPY."""
    seen: list[tuple[list[str], int]] = []

    def watched(connection: Any, table: str, columns: list[str], records: Any) -> None:
        copying.copy(connection, table, columns, records)
        seen.append((columns, len(records)))

    monkeypatch.setattr(loading, "copy", watched)
    return seen


@pytest.mark.parametrize("alike", [True, False])
async def test_rows_held_are_bounded_by_number(
    session: AsyncSession,
    monkeypatch: pytest.MonkeyPatch,
    copied: list[tuple[list[str], int]],
    alike: bool,
) -> None:
    monkeypatch.setattr(source, "CHUNK", 10)
    ahead: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        for i in range(100):
            ahead.append(i - sum(count for _, count in copied))
            yield {"name": f"n{i}", **({"value": 1} if alike or i % 2 else {})}

    assert await insert_rows(session, Plain, rows()) == 100
    assert [count for _, count in copied] == [10] * 10
    assert max(ahead) <= 10


@pytest.mark.parametrize("kind", ["dicts", "tuples", "mixed", "documents", "lists"])
async def test_rows_held_are_bounded_by_bytes(
    session: AsyncSession,
    monkeypatch: pytest.MonkeyPatch,
    copied: list[tuple[list[str], int]],
    kind: str,
) -> None:
    """Many small rows, then large ones, of which twenty are as much as may be held."""
    monkeypatch.setattr(source, "CHUNK_BYTES", 1_000_000)

    def row(i: int) -> Any:
        words = "x" * (50_000 if i >= 2_000 else 3)
        if kind == "documents":
            return {"document": {"words": [words]}}
        if kind in {"tuples", "lists"}:
            return (tuple if kind == "tuples" else list)([*(None,) * 5, words, *(None,) * 13])
        return {"words": words, "short": "a"} if i % 2 and kind == "mixed" else {"words": words}

    assert await insert_rows(session, Types, (row(i) for i in range(2_300))) == 2_300
    # A step that was taken for small rows may bring large ones.
    counts = [count for _, count in copied]
    assert counts[0] <= 2_000 + 2 * source.HEAVY_STEP
    assert max(counts[1:]) <= 20 + source.HEAVY_STEP
    assert sum(counts) == 2_300


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


async def test_refuses_what_it_does_not_know(session: AsyncSession) -> None:
    with pytest.raises(ConfigurationError, match="no column attribute colour"):
        await insert_rows(session, Plain, [{"colour": 1}])
    with pytest.raises(ConfigurationError, match="Car lie in several tables: give dicts"):
        await insert_rows(session, Car, [("a", 2)])


async def test_what_only_sqlalchemy_can_make(session: AsyncSession) -> None:
    assert await insert_rows(session, ByContext, [{"name": "a"}, {"name": "b"}]) == 2
    uppers = (await session.scalars(select(ByContext.upper).order_by(ByContext.name))).all()
    assert uppers == ["A", "B"]
    assert await insert_rows(session, Car, [{"name": "a", "doors": 2}]) == 1
    assert (await session.scalars(select(Car))).one().doors == 2


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


async def test_rows_that_stop_being_alike(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch, copied: list[tuple[list[str], int]]
) -> None:
    monkeypatch.setattr(source, "CHUNK", 40)

    def rows() -> Iterator[Any]:
        yield from ({"name": f"a{i}", "value": i} for i in range(200))
        yield from (
            {"name": f"b{i}"} if i % 2 else {"value": 1, "name": f"b{i}"} for i in range(30)
        )
        yield from ((f"c{i}", i) for i in range(200))
        yield {"name": "d", "value": 4}

    assert await insert_rows(session, Plain, rows()) == 431
    found = await session.execute(select(Plain.name, Plain.value).order_by(Plain.id))
    expected: list[Any] = [(f"a{i}", i) for i in range(200)]
    expected += [(f"b{i}", None if i % 2 else 1) for i in range(30)]
    expected += [(f"c{i}", i) for i in range(200)] + [("d", 4)]
    assert found.all() == expected
    assert len(copied) == 11


@pytest.mark.parametrize("good", [5, 25])
@pytest.mark.parametrize("wrong", [ZeroDivisionError, ConfigurationError])
async def test_rows_that_fail_far_down(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch, good: int, wrong: type[Exception]
) -> None:
    """Its own error is raised, nothing of it remains, and the transaction can go on."""
    monkeypatch.setattr(source, "CHUNK", 10)

    def rows() -> Iterator[Any]:
        yield from ({"name": str(i), "value": i} for i in range(good))
        if wrong is ZeroDivisionError:
            raise ZeroDivisionError
        yield {"colour": 1}

    session.add(Plain(name="before"))
    with pytest.raises(wrong):
        await insert_rows(session, Plain, rows())
    assert await names(session) == ["before"]


@pytest.mark.parametrize("late", [{"name": "x", "colour": 1}, {"name": "x", "value": 1, "n": 2}])
async def test_an_unknown_key_far_down(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch, late: Any
) -> None:
    monkeypatch.setattr(source, "CHUNK", 10)
    alike = [{"name": str(i), "value": i} for i in range(55)]
    with pytest.raises(ConfigurationError, match="no column attribute"):
        await insert_rows(session, Plain, [*alike, late])
