"""Where batching is on, and where it stays off."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from async_loader.inserts import enable_batch_inserting
from tests.integration.inserts.models import Base, Plain, Quoted, WithUuid


def inserts_heard(engine: Any) -> list[str]:
    """Return a list that fills with the inserts of an engine."""
    heard: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def remember(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT"):
            heard.append(statement)

    return heard


@pytest.fixture
async def engine(database_url: str) -> Any:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


async def _batched(engine: AsyncEngine, make: Callable[[], AsyncSession]) -> bool:
    heard = inserts_heard(engine.sync_engine)
    async with make() as session:
        session.add_all([Plain(name="a"), Plain(name="b")])
        await session.flush()
    assert heard
    return all("unnest(" in statement for statement in heard)


class OwnAsyncSession(AsyncSession):
    """A class of the application's."""


class OwnSession(Session):
    """Another."""


def async_factory(engine: AsyncEngine) -> Callable[[], AsyncSession]:
    factory = async_sessionmaker(engine)
    enable_batch_inserting(factory)
    enable_batch_inserting(factory)
    return factory


def async_factory_with_class(engine: AsyncEngine) -> Callable[[], AsyncSession]:
    factory = async_sessionmaker(engine, class_=OwnAsyncSession, sync_session_class=OwnSession)
    enable_batch_inserting(factory)
    assert issubclass(factory().sync_session_class, OwnSession)
    return factory


def async_scoped(engine: AsyncEngine) -> Callable[[], AsyncSession]:
    factory = async_sessionmaker(engine)
    enable_batch_inserting(async_scoped_session(factory, scopefunc=lambda: 1))
    return factory


def async_class(engine: AsyncEngine) -> Callable[[], AsyncSession]:
    class Batching(AsyncSession):
        pass

    enable_batch_inserting(Batching)
    return lambda: Batching(engine)


def async_session(engine: AsyncEngine) -> Callable[[], AsyncSession]:
    session = AsyncSession(engine)
    enable_batch_inserting(session)
    return lambda: session


def sync_class(engine: AsyncEngine) -> Callable[[], AsyncSession]:
    class Batching(Session):
        pass

    enable_batch_inserting(Batching)
    return lambda: AsyncSession(engine, sync_session_class=Batching)


@pytest.mark.parametrize(
    "target",
    [
        async_factory,
        async_factory_with_class,
        async_scoped,
        async_class,
        async_session,
        sync_class,
    ],
)
async def test_on(engine: AsyncEngine, target: Callable[..., Callable[[], AsyncSession]]) -> None:
    assert await _batched(engine, target(engine))


async def test_only_there(engine: AsyncEngine) -> None:
    one, other = AsyncSession(engine), AsyncSession(engine)
    enable_batch_inserting(one)
    assert not await _batched(engine, lambda: other)
    factory = async_sessionmaker(engine)
    enable_batch_inserting(factory)
    assert not await _batched(engine, async_sessionmaker(engine))
    assert not await _batched(engine, lambda: AsyncSession(engine))


@pytest.mark.usefixtures("light_heap")
async def test_a_session_at_the_address_of_a_dead_one(engine: AsyncEngine) -> None:
    for _ in range(50):
        session = AsyncSession(engine)
        enable_batch_inserting(session)
        assert session.sync_session.dispatch.before_flush
        await session.close()
        del session
        gc.collect()


def test_refuses_anything_else() -> None:
    with pytest.raises(TypeError, match="takes a session"):
        enable_batch_inserting(object())  # type: ignore[arg-type]  # what is refused


@pytest.fixture
def sync_url(database_url: str) -> str:
    return database_url.replace("+asyncpg", "+psycopg")


@pytest.fixture
def psycopg_engine(sync_url: str) -> Iterator[Any]:
    engine = create_engine(sync_url, poolclass=NullPool)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("scoped", [False, True])
def test_psycopg(psycopg_engine: Any, scoped: bool) -> None:
    factory = sessionmaker(psycopg_engine)
    enable_batch_inserting(scoped_session(factory) if scoped else factory)
    heard = inserts_heard(psycopg_engine)
    with factory() as session:
        objects = [Plain(name=f"n{i}", value=i) for i in range(10)]
        session.add_all(objects)
        session.commit()
        assert [one.id for one in objects] == list(range(1, 11))
    assert len(heard) == 1
    assert "unnest(" in heard[0]


def test_psycopg_and_odd_names(psycopg_engine: Any) -> None:
    with Session(psycopg_engine) as session:
        enable_batch_inserting(session)
        odd = [Quoted(value=f"%s {i}", **({"other": "o"} if i % 2 else {})) for i in range(6)]
        session.add_all([*odd, *(WithUuid(name=str(i)) for i in range(3))])
        session.commit()
        assert [(one.id, one.value) for one in odd] == [(i + 1, f"%s {i}") for i in range(6)]


def test_sqlite_is_left_to_sqlalchemy() -> None:
    engine = create_engine("sqlite://")
    Plain.metadata.tables["plain"].create(engine)
    heard = inserts_heard(engine)
    with Session(engine) as session:
        enable_batch_inserting(session)
        objects = [Plain(name="a"), Plain(name="b")]
        session.add_all(objects)
        session.commit()
        assert [one.id for one in objects] == [1, 2]
    assert heard
    assert not any("unnest(" in statement for statement in heard)
    engine.dispose()
