"""How many statements a flush of 1,000 objects takes; stock takes 1,000 for half of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from async_loader.database.proxy import Proxy
from async_loader.inserts import enable_batch_inserting
from tests.integration.inserts.models import (
    Base,
    Boat,
    ByDefault,
    Car,
    Child,
    Defaults,
    Node,
    Parent,
    Plain,
    WithUuid,
)

Make = Callable[[int], list[Any]]


def plain(count: int) -> list[Any]:
    return [Plain(name=f"{count}-{i}") for i in range(count)]


def family(count: int) -> list[Any]:
    return [Parent(name=str(i), children=[Child(name="c")]) for i in range(count // 2)]


def big_family(count: int) -> list[Any]:
    return [
        Parent(name=str(i), children=[Child(name=str(n)) for n in range(6)]) for i in range(count)
    ]


def joined(count: int) -> list[Any]:
    return [
        Car(name=str(i), doors=i) if i % 2 else Boat(name=str(i), length=i) for i in range(count)
    ]


def tree(count: int) -> list[Any]:
    nodes = [Node(name="0")]
    for i in range(1, count):
        nodes.append(Node(name=str(i), parent=nodes[(i - 1) // 2]))
    return nodes


def uuid_keys(count: int) -> list[Any]:
    return [WithUuid(name=str(i)) for i in range(count)]


def server_defaults(count: int) -> list[Any]:
    return [ByDefault(name=str(i), **({"state": "given"} if i % 2 else {})) for i in range(count)]


def expressions(count: int) -> list[Any]:
    return [
        Plain(name=func.lower(f"X{count}-{i}") if i % 2 else f"{count}-{i}") for i in range(count)
    ]


def mixed_in_one_flush(count: int) -> list[Any]:
    return [*server_defaults(count), *(Defaults(name=str(i)) for i in range(count))]


@pytest.mark.parametrize(
    ("make", "bar"),
    [
        (plain, 1),
        (family, 3),
        (big_family, 3),
        (joined, 4),
        (tree, 2),
        (uuid_keys, 4),
        (server_defaults, 4),
        (expressions, 4),
        (mixed_in_one_flush, 5),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_round_trips(database_url: str, make: Make, bar: int) -> None:
    async with Proxy(database_url) as proxy:
        engine = create_async_engine(proxy.url)
        sessions = async_sessionmaker(engine)
        enable_batch_inserting(sessions)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with sessions() as session:
            # Statements and the catalogue warm on this connection, the transaction open.
            session.add_all(make(10))
            await session.flush()
            session.add_all(make(1000))
            before = proxy.round_trips
            await session.flush()
            used = proxy.round_trips - before
        await engine.dispose()
    assert 1 <= used <= bar
