"""How many trips a flush of changed or deleted objects takes; stock takes one a row for these."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, insert, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from async_loader import enable_batching
from async_loader.inserts import explain
from tests.integration.inserts.changes.models import (
    Article,
    Base,
    Clock,
    Counted,
    Eager,
    Item,
    Owner,
    Row,
    Stamped,
    System,
    Token,
    Touched,
)
from tests.integration.inserts.changes.syncs import Syncs

COUNT = 300
Change = Callable[[Session, list[Any]], None]


def alternating(_session: Session, rows: list[Any]) -> None:
    for row in rows:
        setattr(row, "ab"[row.id % 2], row.id)


def subsets(_session: Session, rows: list[Any]) -> None:
    rng = random.Random(1)
    for row in rows:
        for key in "abde":
            if rng.random() < 0.5:
                setattr(row, key, row.id)


def one_column(_session: Session, rows: list[Any]) -> None:
    for row in rows:
        row.a = row.id


def expressions(_session: Session, rows: list[Any]) -> None:
    for row in rows:
        row.a = Clock.a + row.id


def expressions_on_every_other(_session: Session, rows: list[Any]) -> None:
    for row in rows:
        row.a = Clock.a + 1 if row.id % 2 else 7


def both_tables(_session: Session, rows: list[Any]) -> None:
    for row in rows:
        row.name = row.words = row.id


def favourites(_session: Session, rows: list[Any]) -> None:
    for row in rows:
        row.a = row.id
        row.favourite = row.items[0]


def deleted(session: Session, rows: list[Any]) -> None:
    for row in rows:
        session.delete(row)


def mixed(session: Session, rows: list[Any]) -> None:
    alternating(session, rows[:100])
    deleted(session, rows[100:200])
    session.add_all(type(rows[0])(id=1000 + n) for n in range(100))


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize(
    ("cls", "change", "bar"),
    [
        (Row, alternating, 2),
        (Row, subsets, 16),
        (Counted, one_column, 1),
        (Counted, alternating, 2),
        (Token, one_column, 1),
        (Stamped, one_column, 1),
        (System, one_column, 1),
        (Eager, one_column, 1),
        (Touched, one_column, 1),
        (Clock, expressions, 1),
        (Clock, expressions_on_every_other, 2),
        (Article, both_tables, 2),
        (Owner, favourites, 2),
        (Counted, deleted, 1),
        (Article, deleted, 2),
        (Row, mixed, 4),
        (Counted, mixed, 4),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_trips(
    database_url: str, driver: str, cls: type[Any], change: Change, bar: int
) -> None:
    async with Syncs(database_url) as proxy:
        engine = create_async_engine(proxy.url.set(drivername=f"postgresql+{driver}"))
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with sessions() as session:
            session.add_all(made(cls))
            await session.commit()
        enable_batching(sessions)
        used = 0
        for _ in range(2):  # statements and the catalogue are warm the second time
            async with sessions() as session:
                rows = list(await session.scalars(select(cls).order_by(cls.id)))
                if cls is Owner:
                    for row in rows:
                        await session.refresh(row, ["items", "favourite"])
                await session.run_sync(change, rows)
                before = proxy.syncs
                await session.flush()
                used = proxy.syncs - before
                await session.rollback()
        await engine.dispose()
    assert 1 <= used <= bar


def made(cls: type[Any]) -> list[Any]:
    if cls is Owner:
        return [Owner(id=n, items=[Item(id=n)]) for n in range(1, COUNT + 1)]
    return [cls(id=n) for n in range(1, COUNT + 1)]


@pytest.mark.parametrize("count", [1, 2])
async def test_few_rows_are_left_alone(database_url: str, count: int) -> None:
    async with Syncs(database_url) as proxy:
        engine = create_async_engine(proxy.url)
        sessions = async_sessionmaker(engine)
        enable_batching(sessions)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(insert(Counted), [{"id": n, "v": 1} for n in range(count)])
        async with sessions() as session:
            rows = list(await session.scalars(select(Counted).order_by(Counted.id)))
            await session.run_sync(one_column, rows)
            before = proxy.syncs
            await session.flush()
            assert (
                proxy.syncs - before == count  # no catalogue
            )  # the new statement takes one more, and no catalogue
        await engine.dispose()


async def test_sessions_of_a_sync_engine(database_url: str) -> None:
    engine = create_engine(database_url.replace("+asyncpg", "+psycopg"))
    Base.metadata.create_all(engine)
    sessions = sessionmaker(engine, expire_on_commit=False)
    enable_batching(sessions)
    with sessions() as session:
        session.add_all(made(Stamped))
        session.commit()
        rows = list(session.scalars(select(Stamped).order_by(Stamped.id)))
        one_column(session, rows)
        sent = _listen(engine)
        session.flush()
        assert len(sent) == 1
        assert {row.v for row in rows} == {2}
        assert explain(Stamped, session).splitlines()[1].startswith("updates: pipeline")
    engine.dispose()


def _listen(engine: Engine) -> list[str]:
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    return sent
