"""Run one script with SQLAlchemy's own flushes and with ours, and compare what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import MetaData, event, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from async_loader.inserts import enable_batch_inserting, insert

Script = Callable[[Session], Any]
Enable = Callable[[Any], None]


@dataclass
class Observed:
    """What one run left behind."""

    result: Any = None
    error: Any = None
    is_active: bool = True
    rows: dict[str, list[Any]] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list, compare=False)
    batched: int = field(default=0, compare=False)  # how many of its inserts were ours


async def differential(
    url: str,
    metadata: MetaData,
    script: Script,
    *,
    enable: Enable = enable_batch_inserting,
    **options: Any,
) -> Observed:
    """Assert that all runs observe the same; return the batched one with its statements.

    Three runs: stock, batched while somebody listens to the cursor, batched while nobody does,
    which goes another way.
    """
    stock = await observe(url, metadata, script, enable=None, listening=True, **options)
    heard = await observe(url, metadata, script, enable=enable, listening=True, **options)
    alone = await observe(url, metadata, script, enable=enable, listening=False, **options)
    assert heard == stock
    assert alone == stock
    assert stock.batched == 0
    return heard


async def observe(
    url: str,
    metadata: MetaData,
    script: Script,
    *,
    enable: Enable | None,
    listening: bool,
    engine_options: dict[str, Any] | None = None,
    **session_options: Any,
) -> Observed:
    """Run a script in a fresh schema, and return what it left."""
    engine = create_async_engine(url, **(engine_options or {}))
    observed = Observed()
    try:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.drop_all)
            await connection.run_sync(metadata.create_all)
        if listening:
            _listen(engine, observed)
        session_options.setdefault("expire_on_commit", False)
        sessions = async_sessionmaker(engine, **session_options)
        if enable is not None:
            enable(sessions)
        with _counting(observed):
            async with sessions() as session:
                await session.run_sync(_run, script, observed)
        async with engine.connect() as connection:
            for table in metadata.sorted_tables:
                found = await connection.execute(select(table).order_by(*table.primary_key))
                observed.rows[table.name] = sorted(map(repr, found.all()))
    finally:
        await engine.dispose()
    return observed


@contextmanager
def _counting(observed: Observed) -> Iterator[None]:
    """Count the inserts that are ours; of one row they look like SQLAlchemy's."""
    ours: Any = insert
    execute = ours.execute

    def counted(*arguments: Any) -> Any:
        observed.batched += 1
        return execute(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "execute", counted)
        yield


def _listen(engine: AsyncEngine, observed: Observed) -> None:
    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def remember(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        observed.statements.append(statement)


def _run(session: Session, script: Script, observed: Observed) -> None:
    try:
        observed.result = script(session)
    except Exception as error:
        observed.is_active = session.is_active
        observed.error = described(error)
        session.rollback()


def described(error: BaseException) -> Any:
    """What a caller can tell an error by; statements and parameters differ."""
    if isinstance(error, DBAPIError):
        orig: Any = error.orig
        sqlstate = getattr(orig, "sqlstate", None)
        if sqlstate is not None or isinstance(orig, Exception):
            return type(error), type(orig), sqlstate
    return type(error), str(error).split(" (")[0].split("\n")[0]


def look(*objects: Any) -> list[Any]:
    """What can be seen of objects without a statement: attributes, state, history."""
    return [_look(one) for one in objects]


def _look(one: Any) -> Any:
    state: Any = inspect(one)
    columns = {prop.key for prop in state.mapper.column_attrs}
    status = next(
        name
        for name in ("transient", "pending", "persistent", "deleted", "detached")
        if getattr(state, name)
    )
    attributes = {key: repr(value) for key, value in state.dict.items() if key in columns}
    return (
        type(one).__name__,
        status,
        sorted(attributes.items()),
        sorted(state.expired_attributes),
        state.modified,
        sorted(state.committed_state),
        state.key and repr(state.key[1]),
        state.identity_token,
    )
