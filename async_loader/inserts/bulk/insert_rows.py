"""Rows without objects, in the transaction of a session or connection."""

from __future__ import annotations

from collections.abc import AsyncIterable, Coroutine, Generator, Iterable
from typing import Any, overload

from sqlalchemy import Table, insert
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.util import greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from ...errors import ConfigurationError
from .._sqlalchemy import autoflush
from .loading import OrmSender, TableSender, load
from .method import DRIVERS
from .source import Row, chunks
from .target import Target, a_kind, target_of

Rows = Iterable[Row] | AsyncIterable[Row]


class RowCount(int):
    """How many rows went in; `await` gives it, too, so that one call serves either session."""

    def __await__(self) -> Generator[Any, None, int]:
        yield from ()
        return int(self)


@overload
def insert_rows(
    session: AsyncSession | AsyncConnection | async_scoped_session[Any],
    model: type[Any] | Table,
    rows: Rows,
) -> Coroutine[Any, Any, int]: ...


@overload
def insert_rows(
    session: Session | Connection | scoped_session[Any], model: type[Any] | Table, rows: Rows
) -> RowCount: ...


def insert_rows(session: Any, model: type[Any] | Table, rows: Rows) -> Any:
    """Insert rows of a mapped class or a Table and return how many; await it if async.

    `session` is a session or connection, of asyncio or not, or a scoped session. `rows` is an
    iterable, or with asyncio an async iterable, of dicts by attribute name (of a Table: by
    column key), of tuples in the order of the table's columns, with or without the key that the
    server makes, or of objects that are in no session and have no related ones.

    What is stored is what `session.execute(insert(model), rows)` stores, in the order of the
    rows: Python defaults, types and server defaults are applied, and None is the same as
    nothing for a mapped class, NULL for a Table. No object is made or changed, no event fires,
    nothing is read back. Rows go in by COPY where that comes to the same, else by SQLAlchemy's
    INSERT in pages; `explain` says which. Memory is bounded whatever the number of rows.

    Pending objects are flushed first when the session autoflushes. After an error nothing of
    the call remains, be it the database's, of a row or of the iterable; the transaction may have
    to be rolled back, as after any statement that failed. In AUTOCOMMIT all rows are committed
    or none. Raises ConfigurationError for what it does not take, and SQLAlchemy's errors for
    those of types, defaults and the database.
    """
    if isinstance(session, async_scoped_session | scoped_session):
        session = session()
    if isinstance(session, AsyncSession | AsyncConnection):
        return _in_greenlet(session, model, rows)
    if not isinstance(session, Session | Connection):
        raise ConfigurationError(
            f"insert_rows takes a session or a connection, not {a_kind(session)}"
        )
    if not in_greenlet() and _dialect(session, model).is_async:
        return greenlet_spawn(_insert, session, model, rows)
    return _insert(session, model, rows)


async def _in_greenlet(session: Any, model: Any, rows: Any) -> int:
    return int(await session.run_sync(_insert, model, rows))


def _dialect(session: Session | Connection, model: Any) -> Any:
    if isinstance(session, Connection):
        return session.dialect
    return session.get_bind(**_bind_arguments(target_of(model))).dialect


def _bind_arguments(target: Target) -> dict[str, Any]:
    """What `execute` would tell a session that chooses its engine."""
    arguments = {"clause": insert(target.model)}
    return arguments if target.mapper is None else {"mapper": target.mapper, **arguments}


def _insert(session: Session | Connection, model: Any, rows: Any) -> RowCount:
    target = target_of(model)
    dialect = _dialect(session, model)
    if dialect.name != "postgresql" or dialect.driver not in DRIVERS:
        raise ConfigurationError(
            "insert_rows needs PostgreSQL through asyncpg or psycopg, not "
            f"{dialect.name}+{dialect.driver}"
        )
    given = chunks(target, rows)
    known = len(rows) if isinstance(rows, list | tuple) else -1
    options: dict[str, Any] = {}
    if isinstance(session, Session):
        autoflush(session)
        connection = session.connection(bind_arguments=_bind_arguments(target))
        translation = getattr(session, "execution_options", {}).get("schema_translate_map")
        if translation is not None:
            options = {"schema_translate_map": translation}
    else:
        connection = session
    if target.is_one_table:
        sender = TableSender(connection, target, options, known)
        return RowCount(load(connection, given, sender, known))
    orm_session = session if isinstance(session, Session) else None
    return RowCount(load(connection, given, OrmSender(orm_session, target), known))
