"""For whom the fast paths are on, and what is there when they are off."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, selectinload, sessionmaker

from async_loader import disable_fast_paths, enable_batching, enable_fast_paths
from async_loader.reads import _sqlalchemy as private
from async_loader.reads import selectin, supported
from tests.integration.reads.conftest import engine_of, statements_of
from tests.integration.reads.models import Base, Kid, Parent

ASKED = select(Parent).options(selectinload(Parent.kids))
STOCK = private.loading()


class OwnAsyncSession(AsyncSession):
    """An application's."""


class OwnSession(Session):
    """Another."""


@pytest.fixture(scope="module", autouse=True)
def filled(read_url: str) -> None:
    async def fill() -> None:
        engine = engine_of(read_url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add(Parent(id=1, n=1, kids=[Kid(x=1), Kid(x=2)]))
            await session.commit()
        await engine.dispose()

    asyncio.run(fill())


@pytest.fixture
async def engine(read_url: str) -> Any:
    engine = engine_of(read_url)
    yield engine
    await engine.dispose()


async def _is_fast(engine: AsyncEngine, session: AsyncSession) -> bool:
    statements = statements_of(engine)
    async with session:
        assert len((await session.scalars(ASKED)).one().kids) == 2
    return any("= ANY" in statement for statement in statements)


Make = Callable[[], AsyncSession]


def async_factory(engine: AsyncEngine) -> tuple[Any, Make]:
    factory = async_sessionmaker(engine, info={"of": "the application"})
    return factory, factory


def async_factory_with_class(engine: AsyncEngine) -> tuple[Any, Make]:
    factory = async_sessionmaker(engine, class_=OwnAsyncSession, sync_session_class=OwnSession)
    return factory, factory


def sync_factory_of_async_ones(engine: AsyncEngine) -> tuple[Any, Make]:
    factory: Any = sessionmaker(engine, class_=AsyncSession)  # type: ignore[call-overload]
    return factory, factory


def async_scoped(engine: AsyncEngine) -> tuple[Any, Make]:
    factory = async_sessionmaker(engine)
    return async_scoped_session(factory, scopefunc=lambda: 1), factory


def async_class(engine: AsyncEngine) -> tuple[Any, Make]:
    return OwnAsyncSession, lambda: OwnAsyncSession(engine)


def sync_class(engine: AsyncEngine) -> tuple[Any, Make]:
    return OwnSession, lambda: AsyncSession(engine, sync_session_class=OwnSession)


def one_session(engine: AsyncEngine) -> tuple[Any, Make]:
    session = AsyncSession(engine)
    return session, lambda: session


def an_engine(engine: AsyncEngine) -> tuple[Any, Make]:
    with_option = engine.execution_options(isolation_level="AUTOCOMMIT")
    return engine, lambda: AsyncSession(with_option)


TARGETS = [
    async_factory, async_factory_with_class, sync_factory_of_async_ones, async_scoped,
    async_class, sync_class, one_session, an_engine,
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("by_name", [True, False])
async def test_on_for_what_was_named_and_off_again(
    engine: AsyncEngine, read_url: str, target: Any, by_name: bool
) -> None:
    named, make = target(engine)
    before = dict(named.kw) if hasattr(named, "kw") else None
    enable_fast_paths(named)
    enable_fast_paths(named)
    made_before = make()
    other = engine_of(read_url)
    assert await _is_fast(engine, make())
    assert not await _is_fast(other, AsyncSession(other))
    disable_fast_paths(named if by_name else None)
    assert not await _is_fast(engine, make_or(make, made_before))
    assert not await _is_fast(engine, made_before)
    assert private.loading() is STOCK
    if before is not None:
        assert named.kw == before
    await other.dispose()


def make_or(make: Make, made: AsyncSession) -> AsyncSession:
    return make() if make() is not made else made


async def test_with_batching_on_both_work(engine: AsyncEngine) -> None:
    factory = async_sessionmaker(engine)
    enable_batching(factory)
    enable_fast_paths(factory)
    statements = statements_of(engine)
    async with factory() as session:
        session.add_all([Parent(id=8, n=1), Parent(id=9, n=1)])
        await session.flush()
        assert len((await session.scalars(ASKED)).all()) == 3
    assert "unnest(" in statements[0]
    assert "= ANY" in statements[-1]


async def test_a_part_that_is_off(engine: AsyncEngine) -> None:
    """The nearest word holds: a session's before its class's, that before its engine's."""
    enable_fast_paths(engine)
    enable_fast_paths(OwnSession, selectin=False)
    assert await _is_fast(engine, AsyncSession(engine))
    session = AsyncSession(engine, sync_session_class=OwnSession)
    assert not await _is_fast(engine, session)
    enable_fast_paths(session)
    assert await _is_fast(engine, session)


async def test_one_is_left_when_another_is_turned_off(engine: AsyncEngine) -> None:
    enable_fast_paths(engine)
    enable_fast_paths(OwnSession)
    disable_fast_paths(OwnSession)
    assert await _is_fast(engine, AsyncSession(engine, sync_session_class=OwnSession))


async def test_off_for_sessions_that_were_made_before(engine: AsyncEngine) -> None:
    factory, another = async_sessionmaker(engine), async_sessionmaker(engine)
    enable_fast_paths(factory)
    enable_fast_paths(another)
    made = factory()
    disable_fast_paths(factory)
    assert not await _is_fast(engine, made)


async def test_who_is_gone_is_no_reason_to_be_on(engine: AsyncEngine) -> None:
    enable_fast_paths(async_sessionmaker(engine))
    gc.collect()
    enable_fast_paths(OwnSession)
    disable_fast_paths(OwnSession)
    assert private.loading() is STOCK


async def test_somebody_else_on_top_is_left_there(engine: AsyncEngine) -> None:
    enable_fast_paths(engine)
    ours = private.loading()
    seen: list[Any] = []

    def theirs(self: Any, *arguments: Any) -> None:
        seen.append(self)
        ours(self, *arguments)

    private.replace_loading(theirs)
    disable_fast_paths()
    assert not await _is_fast(engine, AsyncSession(engine))
    enable_fast_paths(engine)
    assert await _is_fast(engine, AsyncSession(engine))
    assert len(seen) == 2
    private.replace_loading(ours)
    disable_fast_paths()
    assert private.loading() is STOCK


async def test_asyncpg_asks_for_no_types(engine: AsyncEngine) -> None:
    """An array's type is told to a connection, or asyncpg would ask for it: a trip for each."""
    factory = async_sessionmaker(engine)
    enable_fast_paths(factory)
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
    asked: list[str] = []
    driver.add_query_logger(lambda record: asked.append(record.query))
    assert await _is_fast(engine, factory())
    assert not [query for query in asked if "pg_type" in query]
    disable_fast_paths()
    assert not event.contains(engine.sync_engine, "connect", _connected())


def _connected() -> Any:
    from async_loader.reads import targets

    return targets._connected


async def test_the_switch(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from async_loader.reads import enable

    monkeypatch.setattr(enable, "_told", [])
    monkeypatch.setenv("ASYNC_LOADER_FAST_PATHS", "off")
    with caplog.at_level(logging.WARNING, "async_loader"):
        enable_fast_paths(engine)
        enable_fast_paths(engine)
    assert len(caplog.records) == 1
    assert "ASYNC_LOADER_FAST_PATHS=off" in caplog.text
    assert private.loading() is STOCK
    assert not await _is_fast(engine, AsyncSession(engine))


async def test_a_sqlalchemy_that_nobody_has_read(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = private.KNOWN_OF_LOADING - {"populate_existing"}
    monkeypatch.setattr(private, "KNOWN_OF_LOADING", known)
    supported._selectin.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="'selectin' stays off .* uses populate_ex") as told:
            enable_fast_paths(engine)
        enable_fast_paths(OwnSession)  # told once
        assert [one.filename for one in told] == [__file__]
    finally:
        supported._selectin.cache_clear()
        supported._warn.cache_clear()
    assert private.loading() is STOCK
    assert not await _is_fast(engine, AsyncSession(engine))


def test_what_it_is_not_for() -> None:
    for call in (enable_fast_paths, disable_fast_paths):
        with pytest.raises(TypeError, match="not for 7"):
            call(7)  # type: ignore[arg-type]  # on purpose


async def test_what_is_kept_goes_with_its_statement(read_url: str) -> None:
    engine = engine_of(read_url, query_cache_size=10)
    factory = async_sessionmaker(engine)
    enable_fast_paths(factory)

    async def read(numbers: range) -> None:
        for number in numbers:
            async with factory() as session:
                asked = ASKED.where(*[Parent.id > 0 for _ in range(number)])
                assert len((await session.scalars(asked)).one().kids) == 2

    def kept() -> int:
        gc.collect()
        return sum(isinstance(one, selectin.Kept) for one in gc.get_objects())

    await read(range(40))
    assert 1 <= kept() <= 30  # the cache lets half as many more be there
    await engine.dispose()
