"""
Rows without objects, in the transaction of a session or connection.

What inserts them is imported at the first call: the name alone costs an application nothing.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, overload

from sqlalchemy import Table
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.util import greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from ...errors import ConfigurationError
from .given import Rows, a_kind


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

    from .inserting import dialect_of, insert  # noqa: PLC0415  who imports the name may not call it

    if not in_greenlet() and dialect_of(session, model).is_async:
        return greenlet_spawn(insert, session, model, rows)
    return RowCount(insert(session, model, rows))


async def _in_greenlet(session: Any, model: Any, rows: Any) -> int:
    from .inserting import insert  # noqa: PLC0415  as above

    return int(await session.run_sync(insert, model, rows))
