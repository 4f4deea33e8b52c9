"""Whatever makes an application's sessions: it is used, its engines are watched, nothing stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)

from async_loader import ConfigurationError, OperationContext, Workload, run
from async_loader.database.session_factories import engines_of


class Base(DeclarativeBase): ...


class Shop(Base):
    __tablename__ = "shop"
    id: Mapped[int] = mapped_column(primary_key=True)


def routed(engine: AsyncEngine) -> Any:
    class Routing(Session):
        def get_bind(self, mapper: Any = None, **others: Any) -> Any:
            return engine.sync_engine

    return async_sessionmaker(sync_session_class=Routing)


def routed_by_mapper_alone(engine: AsyncEngine) -> Any:
    class Routing(Session):
        def get_bind(self, mapper: Any, **others: Any) -> Any:  # type: ignore[override]  # as they are
            assert mapper is not None
            return engine.sync_engine

    return async_sessionmaker(sync_session_class=Routing)


def scoped(engine: AsyncEngine) -> Any:
    return async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)


def injected(engine: AsyncEngine) -> Any:
    async def session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session

    return session


def of_a_coroutine(engine: AsyncEngine) -> Any:
    async def session() -> AsyncSession:
        return AsyncSession(engine)

    return session


KINDS: dict[str, Callable[[AsyncEngine], Any]] = {
    "bound": async_sessionmaker,
    "get_bind": routed,
    "get_bind by mapper": routed_by_mapper_alone,
    "binds": lambda engine: async_sessionmaker(binds={Base: engine}),
    "class_": lambda engine: sessionmaker(engine, class_=AsyncSession),  # type: ignore[call-overload]
    "scoped": scoped,
    "injected": injected,
    "context manager": lambda engine: asynccontextmanager(injected(engine)),
    "coroutine": of_a_coroutine,
    "function": lambda engine: lambda: AsyncSession(engine),
    "partial": lambda engine: partial(AsyncSession, engine),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_factory_is_taken(kind: str, engine: AsyncEngine) -> None:
    sessions = KINDS[kind](engine)
    workload = Workload("look")
    seen: set[int] = set()
    three = asyncio.Barrier(3)

    @workload.operation("look", kind="read")
    async def look(session: AsyncSession, op: OperationContext) -> None:
        seen.add(id(session))
        assert isinstance(session, AsyncSession)
        await session.execute(text("SELECT 1"), bind_arguments={"mapper": Shop})
        if op.index < 3:
            await three.wait()  # each with its connection

    result = await run(workload, sessions=sessions, ops=30, concurrency=3)
    assert (result.completed, result.errors) == (30, {})
    assert result.pool is not None
    assert result.pool.peak_in_use == 3
    split = result.by_operation["look"].split
    assert split is not None
    assert split.statements_per_operation == 1
    assert not result.leaks
    if isinstance(sessions, async_scoped_session):
        assert not sessions.registry.registry, "what a scope held is given back"


@pytest.mark.parametrize(
    ("kind", "known"), [("bound", 1), ("get_bind", 1), ("binds", 1), ("scoped", 1), ("partial", 1),
                        ("function", 1), ("injected", 0), ("get_bind by mapper", 0)]
)  # fmt: skip
async def test_engines_are_known_where_a_factory_says_them(
    kind: str, known: int, engine: AsyncEngine
) -> None:
    found = engines_of(KINDS[kind](engine))
    assert [one.sync_engine for one in found] == [engine.sync_engine] * known


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda engine: engine, r"must be a factory, as async_sessionmaker\(engine\)"),
        (AsyncSession, "one AsyncSession cannot serve operations that run at once"),
        (lambda engine: sessionmaker(engine.sync_engine), "must make AsyncSession, not Session"),
        (lambda engine: Session, "must make AsyncSession, not Session"),
        (lambda engine: scoped_session(sessionmaker()), "must be an async_scoped_session"),
        (lambda engine: "postgresql://", "another factory of AsyncSession, not str"),
    ],
)
async def test_what_makes_no_sessions_is_refused(
    make: Callable[[AsyncEngine], Any], told: str, engine: AsyncEngine
) -> None:
    workload = Workload("look")

    @workload.operation("look")
    async def look(session: AsyncSession) -> None: ...

    with pytest.raises(ConfigurationError, match=f"^`sessions` .*{told}"):
        await run(workload, sessions=make(engine), ops=3)
