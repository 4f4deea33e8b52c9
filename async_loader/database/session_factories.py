"""
What makes an application's sessions: every kind of factory that there is, and its engines.

An `async_sessionmaker`, bound or not (`binds=`, a `get_bind` of the application's own), a
`sessionmaker(class_=AsyncSession)`, an `async_scoped_session`, and a function that returns a
session or yields it, as web frameworks inject it.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

Sessions = Callable[[], AsyncSession]
Opener = Callable[[], AbstractAsyncContextManager[AsyncSession]]


def why_unusable(factory: object) -> str | None:
    """Return why sessions cannot be had from this, and what can be; None where they can."""
    what = type(factory).__name__
    if isinstance(factory, AsyncEngine | AsyncConnection | Engine):
        return f"must be a factory, as async_sessionmaker(engine), not {what}"
    if isinstance(factory, AsyncSession | Session):
        return f"must be a factory: one {what} cannot serve operations that run at once"
    if isinstance(factory, scoped_session):
        return "must be an async_scoped_session: a scoped_session is one for all tasks of a thread"
    made = factory.class_ if isinstance(factory, sessionmaker) else factory
    if isinstance(made, type) and issubclass(made, Session):
        return f"must make AsyncSession, not {made.__name__}"
    if not callable(factory):
        return f"must be an async_sessionmaker or another factory of AsyncSession, not {what}"
    return None


def opener_of(factory: Sessions) -> Opener:
    """Return what opens a session of the factory's for a block, in whatever way that is done."""
    if isinstance(factory, async_sessionmaker | sessionmaker):
        return factory
    if isinstance(factory, async_scoped_session):
        return partial(_scoped, factory)
    return partial(_made, factory)


@asynccontextmanager
async def _scoped(factory: async_scoped_session[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """Open the session of this task's scope, and leave nothing of it in the registry."""
    try:
        yield factory()
    finally:
        await factory.remove()


@asynccontextmanager
async def _made(factory: Callable[[], Any]) -> AsyncIterator[AsyncSession]:
    made = factory()
    if inspect.isawaitable(made):
        made = await made
    if inspect.isasyncgen(made):
        made = asynccontextmanager(lambda: made)()
    async with made as session:
        if not isinstance(session, AsyncSession):
            raise TypeError(f"the factory of sessions made a {type(session).__name__}")
        yield session


def engines_of(factory: object) -> tuple[AsyncEngine, ...]:
    """
    Return the engines that a factory says it uses, each once.

    Those that a `get_bind` chooses show themselves when they are used.
    """
    found: dict[int, AsyncEngine] = {}
    for bind in _binds_of(factory):
        engine = bind.engine if isinstance(bind, AsyncConnection) else bind
        if isinstance(engine, Engine) and engine.dialect.is_async:
            engine = AsyncEngine(engine)
        if isinstance(engine, AsyncEngine):
            found.setdefault(id(engine.sync_engine), engine)
    return tuple(found.values())


def engine_of(factory: object) -> AsyncEngine | None:
    """Return the first of the engines that a factory says it uses."""
    return next(iter(engines_of(factory)), None)


def sync_engine_of(factory: object) -> Engine | None:
    """Return the same as SQLAlchemy's core has it; of a factory of plain sessions, too."""
    engine = engine_of(factory)
    if engine is not None:
        return engine.sync_engine
    return next((bind for bind in _binds_of(factory) if isinstance(bind, Engine)), None)


def _binds_of(factory: object) -> Iterator[object]:
    while isinstance(factory, async_scoped_session):
        factory = factory.session_factory
    if isinstance(factory, async_sessionmaker | sessionmaker):
        known = factory.kw
        binds = [known.get("bind"), *(known.get("binds") or {}).values()]
        yield from binds
        if not any(binds):
            with suppress(Exception):  # a `get_bind` of the application's own may want to be asked
                yield factory().get_bind()
    elif isinstance(factory, partial):
        yield from (*factory.args, *factory.keywords.values())
    elif inspect.isfunction(factory) and not (
        inspect.iscoroutinefunction(factory) or inspect.isasyncgenfunction(factory)
    ):
        with suppress(Exception):
            made = factory()
            if isinstance(made, AsyncSession):
                # SQLAlchemy 2.0 has no `binds` where there are none.
                yield from (made.bind, *(getattr(made, "binds", None) or {}).values())
