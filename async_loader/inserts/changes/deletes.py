"""
The deletes of one table: `_emit_delete_statements` of SQLAlchemy, in fewer trips.

It deletes rows one by one only where they have a version and the driver does not count, and then
does not look at the count of several. So they go as one `executemany`, which is the same; where
the count shall be looked at, through the driver's pipeline. A statement that took many rows would
have to lock them in their order first, which a role that may only delete is not allowed to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Table, and_, bindparam
from sqlalchemy.orm import exc as orm_exc

from .._sqlalchemy import compiled_cache, emit_delete_statements, key_columns, memo, version_column
from ..plans import FastPathUnsupportedError
from . import pipeline
from ._sqlalchemy import bound_context, compile_cached
from .seen import may_be_numbered
from .statements import SMALLEST

Command = tuple[dict[str, Any], Any]


def emit_deletes(
    uow: Any,
    base_mapper: Any,
    mapper: Any,
    table: Table,
    commands: Iterable[Command],
    *,
    strict: bool,
) -> None:
    """Delete the rows that SQLAlchemy has collected; with `strict` none may be missing."""
    version = version_column(mapper, table)
    for connection, same in groupby(commands, lambda one: one[1]):
        run = list(same)
        rows = [params for params, _ in run]
        counts = connection.dialect.supports_sane_multi_rowcount
        if version is None or counts or len(run) < SMALLEST or _lacks(version.key, rows):
            emit_delete_statements(base_mapper, uow, mapper, table, iter(run))
            continue
        statement = _delete_of(base_mapper, mapper, table, version)
        if not (strict and base_mapper.confirm_deleted_rows):
            options = {"compiled_cache": compiled_cache(base_mapper)}
            connection.execute(statement, rows, execution_options=options)
            continue
        try:
            may_be_numbered(connection, table)
        except FastPathUnsupportedError:
            emit_delete_statements(base_mapper, uow, mapper, table, iter(run))
            continue
        _delete_all_of(connection, base_mapper, statement, table, rows)


def _lacks(key: str, rows: Sequence[dict[str, Any]]) -> bool:
    """Tell whether a row has no version, which SQLAlchemy refuses."""
    return any(key not in row for row in rows)


def _delete_all_of(
    connection: Any, base_mapper: Any, statement: Any, table: Table, rows: Sequence[dict[str, Any]]
) -> None:
    one = compile_cached(connection, statement, list(rows[0]), base_mapper)
    sent = pipeline.send(connection, bound_context(connection, one, rows), returning=False)
    matched = sum(sent.matched)
    if matched != len(rows):
        raise orm_exc.StaleDataError(
            f"DELETE statement on table '{table.description}' expected to delete {len(rows)} "
            f"row(s); {matched} were matched.  Please set confirm_deleted_rows=False within the "
            "mapper configuration to prevent this warning."
        )


def _delete_of(base_mapper: Any, mapper: Any, table: Table, version: Any) -> Any:
    """Return SQLAlchemy's delete of a row by its key and version."""

    def make() -> Any:
        found_by = [*key_columns(mapper, table), version]
        clauses = [column == bindparam(column.key, type_=column.type) for column in found_by]
        return table.delete().where(and_(*clauses))

    return memo(base_mapper, ("async_loader.delete", table), make)
