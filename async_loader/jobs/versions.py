"""
Which version of a row it is, so that one which changed meanwhile is seen.

By `version_id_col` where one is mapped, else by a digest of the columns that the select reads;
by the system column xmin where that is asked for. The database makes it, of what it has itself.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Alias,
    ColumnElement,
    Table,
    Text,
    cast,
    column,
    func,
    inspect,
    literal_column,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from ..database.postgresql import first_line
from ..errors import ConfigurationError
from .keyset import Keyset
from .prepare_policy import Compare
from .transient import is_cancelled, is_transient


async def give_version(session: AsyncSession, keyset: Keyset, compare: Compare) -> None:
    """Have a keyset's rows read with their version, which is tried; `ConfigurationError`."""
    keyset.version = _version_of(keyset, compare)
    try:
        await session.execute(keyset.rows(None, None, keys=True)[0].limit(0))
    except SQLAlchemyError as error:
        if isinstance(error, DBAPIError) and (is_transient(error) or is_cancelled(error)):
            raise
        raise ConfigurationError(
            f"the version of a job's rows, for prepare, cannot be read: {first_line(error)}"
        ) from error


def _version_of(keyset: Keyset, compare: Compare) -> ColumnElement[Any]:
    if compare == "xmin":
        return _xmin(keyset)
    if compare == "version" and keyset.entities:
        entity = keyset.select.column_descriptions[0]["entity"]
        mapper = inspect(entity).mapper
        if mapper.version_id_col is not None:
            name = mapper.get_property_by_column(mapper.version_id_col).key
            return cast(getattr(entity, name), Text)
    return _digest(list(keyset.select.selected_columns), on_sqlite=keyset.ordering.on_sqlite)


def _xmin(keyset: Keyset) -> ColumnElement[Any]:
    read = keyset.only_keys.get_final_froms()
    if keyset.ordering.on_sqlite or len(read) != 1 or not isinstance(read[0], Table | Alias):
        raise ConfigurationError(
            "prepare_compare='xmin' is for a select of one table, on PostgreSQL: say 'columns'"
        )
    return cast(column("xmin", _selectable=read[0]), Text)


def _digest(columns: list[Any], *, on_sqlite: bool) -> ColumnElement[Any]:
    if on_sqlite:
        whole: Any = func.quote(columns[0])
        for part in columns[1:]:
            whole = whole.op("||")(literal_column("','")).op("||")(func.quote(part))
        return cast(whole, Text)
    whole = func.convert_to(cast(func.row(*columns), Text), literal_column("'UTF8'"))
    return func.encode(func.sha256(whole), literal_column("'hex'"))
