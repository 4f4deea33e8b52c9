"""
Run one statement with array parameters on a session's connection.

`Connection.exec_driver_sql` sets up an execution context and result metadata that nobody here
looks at, which for a few objects costs as much as the statement. When nobody listens to the
cursor either, the statement goes to the cursor directly, errors to the same handler.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import DBAPIError

from ._sqlalchemy import statement_context
from .array_types import tell_array_types


class Rows(NamedTuple):
    """What a statement returned, raw, and the type codes of its columns."""

    rows: Sequence[Sequence[Any]]
    types: Sequence[Any]


class NotSentError(Exception):
    """A driver would not take the values: nothing was sent, and the transaction goes on."""


def execute(connection: Connection, sql: str, parameters: tuple[Any, ...]) -> Rows:
    """Execute in the connection's transaction; errors are SQLAlchemy's.

    Raises NotSentError for what the driver itself refuses: its message shows all rows.
    """
    raw: Any = connection
    if connection.dialect.driver == "asyncpg":
        tell_array_types(connection)
    if _is_plain(raw):
        return _directly(raw, sql, parameters)
    try:
        result = connection.exec_driver_sql(sql, parameters)
    except DBAPIError as error:
        if error.connection_invalidated or not _is_of_client(error.orig, connection.dialect):
            raise
        raise NotSentError from None
    if not result.returns_rows:
        return Rows((), ())
    types = [column[1] for column in result.cursor.description]
    rows = result.cursor.fetchall()
    result.close()
    return Rows(rows, types)


def _is_plain(connection: Any) -> bool:
    """Tell whether nothing hangs on the execution context: no listener, log or option."""
    transaction = connection._transaction
    return (
        not connection._has_events
        and not connection.engine._has_events
        and not connection.dialect._has_events
        and not connection._echo
        and not connection._execution_options
        and connection._dbapi_connection is not None
        and connection._nested_transaction is None
        and transaction is not None
        and transaction.is_active
        and connection._trans_context_manager is None
    )


def _directly(connection: Any, sql: str, parameters: tuple[Any, ...]) -> Rows:
    dialect = connection.dialect
    cursor = None
    try:
        cursor = connection._dbapi_connection.cursor()
        if dialect.driver == "asyncpg":
            # What PGExecutionContext_asyncpg.pre_exec does: DDL makes prepared statements stale.
            cursor._invalidate_schema_cache_asof = dialect._invalidate_schema_cache_asof
        dialect.do_execute(cursor, sql, parameters, None)
        description = cursor.description
        if description is None:
            rows = Rows((), ())
        else:
            rows = Rows(cursor.fetchall(), [column[1] for column in description])
        cursor.close()
    except BaseException as error:
        if _was_not_sent(connection, error, cursor):
            raise NotSentError from None
        # With a context, as a listener to `handle_error` and the dialect's own caches expect.
        context = None
        with suppress(Exception):
            context = statement_context(connection, sql, parameters)
        connection._handle_dbapi_exception(error, sql, parameters, cursor, context)
        raise
    return rows


def _was_not_sent(connection: Any, error: BaseException, cursor: Any) -> bool:
    dialect = connection.dialect
    if not isinstance(error, dialect.loaded_dbapi.Error) or not _is_of_client(error, dialect):
        return False
    return not dialect.is_disconnect(error, connection._dbapi_connection, cursor)


def _is_of_client(error: BaseException | None, dialect: Dialect) -> bool:
    """Tell whether the driver made an error itself, of the values and not of an answer."""
    if dialect.driver == "asyncpg":  # whose own errors are of the server's classes, but for this
        cause: Any = None if error is None else error.__cause__
        is_of_values = isinstance(cause, asyncpg.DataError | asyncpg.InterfaceError)
        return is_of_values and getattr(cause, "severity", None) is None
    return getattr(error, "sqlstate", None) is None
