"""Say how the objects of a model are inserted, and why not faster."""

from __future__ import annotations

from typing import Any

from sqlalchemy import inspect
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from async_loader.inserts.plans import KeySource, Level, MapperPlan, listens, mapper_plan

_DIALECT: Any = PGDialect_asyncpg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so

_KEYS = {
    KeySource.COUNTER: "keys come back with the insert",
    KeySource.SERVER: "keys are asked for before the insert",
    KeySource.NOTHING: "objects bring their keys",
}


def explain(model: type[Any], session: AsyncSession | Session | None = None) -> str:
    """Return the level and the reason, such as 'stock: has a before_insert listener'.

    Levels are direct, prefetch and stock. Without a session, PostgreSQL through asyncpg is
    meant; with one, the database it is bound to. Values may still send single flushes another
    way: a SELECT as a value, or an object with the identity of another. Raises
    sqlalchemy.exc.NoInspectionAvailable for a class that is not mapped.
    """
    mapper: Any = inspect(model)
    plan = mapper_plan(mapper, _dialect(mapper, session))
    listener = listens(mapper)
    if listener:
        return f"{Level.STOCK}: {listener}"
    if plan.reason:
        return f"{plan.level}: {plan.reason}"
    return f"{Level.DIRECT}: {_keys(plan)}"


def _dialect(mapper: Any, session: AsyncSession | Session | None) -> Any:
    if session is None:
        return _DIALECT
    sync_session = session.sync_session if isinstance(session, AsyncSession) else session
    return sync_session.get_bind(mapper).dialect


def _keys(plan: MapperPlan) -> str:
    first = next(iter(plan.tables.values()))
    return _KEYS[first.key_source]
