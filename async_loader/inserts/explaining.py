"""Say how the objects of a model are inserted, updated and deleted, and why not faster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Table, inspect
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from .bulk.method import explained
from .bulk.target import target_of
from .changes.reasons import of_deletes, of_updates
from .plans import KeySource, Level, MapperPlan, listens, mapper_plan
from .sessions import setting_of

_DIALECT: Any = PGDialect_asyncpg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so

_KEYS = {
    KeySource.COUNTER: "keys come back with the insert",
    KeySource.SERVER: "keys are asked for before the insert",
    KeySource.NOTHING: "objects bring their keys",
}


def explain(model: type[Any] | Table, session: AsyncSession | Session | None = None) -> str:
    """Return the level and the reason, such as 'stock: has a before_insert listener'.

    Levels of inserts are direct, prefetch and stock. With a session whose updates or deletes are
    batched (`enable_batching`), a line each follows that says which way they go and why: pipeline
    (one-row statements in SQLAlchemy's order, in one trip), arrays (one statement for each set of
    columns, where neighbours set different ones) or stock. Where `insert_rows` does not use COPY,
    a last line says so and why; of a Table that is the only line.

    Without a session, PostgreSQL through asyncpg is meant; with one, the database it is bound to,
    and of `insert_rows` also what was seen of the table when rows last went into it through that
    engine. Values may still send single flushes another way: a SELECT as a value, an object with
    the identity of another, or a tree beside other tables, of which SQLAlchemy would insert one
    between two levels.
    Raises sqlalchemy.exc.NoInspectionAvailable for a class that is not mapped.
    """
    if isinstance(model, Table):
        return _of_rows(model, _dialect(session, clause=model)) or "insert_rows: COPY"
    mapper: Any = inspect(model)
    dialect = _dialect(session, mapper=mapper)
    rows = _of_rows(model, dialect)
    lines = [_of_flushes(mapper, dialect), *_of_changes(mapper, dialect, session), rows]
    return "\n".join(filter(None, lines))


def _of_changes(mapper: Any, dialect: Any, session: AsyncSession | Session | None) -> Iterator[str]:
    setting = None if session is None else setting_of(session)
    if setting is not None and setting.updates:
        yield f"updates: {of_updates(mapper, dialect)}"
    if setting is not None and setting.deletes:
        yield f"deletes: {of_deletes(mapper, dialect, strict=setting.strict_deletes)}"


def _of_flushes(mapper: Any, dialect: Any) -> str:
    plan = mapper_plan(mapper, dialect)
    listener = listens(mapper)
    if listener:
        return f"{Level.STOCK}: {listener}"
    if plan.reason:
        return f"{plan.level}: {plan.reason}"
    return f"{Level.DIRECT}: {_keys(plan)}"


def _of_rows(model: Any, dialect: Any) -> str | None:
    if dialect.name != "postgresql":
        return None
    reason = explained(target_of(model), dialect)
    return f"insert_rows: INSERT in pages: {reason}" if reason else None


def _dialect(session: AsyncSession | Session | None, **bind_arguments: Any) -> Any:
    if session is None:
        return _DIALECT
    sync_session = session.sync_session if isinstance(session, AsyncSession) else session
    return sync_session.get_bind(**bind_arguments).dialect


def _keys(plan: MapperPlan) -> str:
    first = next(iter(plan.tables.values()))
    return _KEYS[first.key_source]
