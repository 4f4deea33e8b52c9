"""
The text of an insert: `INSERT ... SELECT ... FROM unnest(...)`.

One array a column, so one prepared statement serves any number of rows and no limit on the
number of parameters applies. Where the server numbers the rows, they are sorted first: since
PostgreSQL 9.6 defaults are evaluated after the sort, which is what SQLAlchemy relies upon too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.engine import Dialect

from async_loader.inserts.plans import ColumnPlan

Translation = dict[str | None, str | None]


def table_name(table: Table, dialect: Dialect, translation: Translation | None) -> str:
    """Return the quoted name, in the schema that `schema_translate_map` says."""
    preparer: Any = dialect.identifier_preparer
    schema = table.schema
    if translation and schema in translation:
        schema = translation[schema]
    name: str = preparer.quote(table.name)
    if schema is not None:
        name = f"{preparer.quote_schema(schema)}.{name}"
    return name


def insert_statement(
    table: str,
    columns: Sequence[ColumnPlan],
    dialect: Dialect,
    *,
    ordered: bool,
    returning: Sequence[str],
) -> str:
    """Return an insert of one array for each column."""
    asyncpg = dialect.driver == "asyncpg"
    if not asyncpg:
        table = table.replace("%", "%%")
    places = [f"${number}" if asyncpg else "%s" for number in range(1, len(columns) + 1)]
    arrays = ", ".join(
        f"{place}::{column.codec.element}[]"
        for place, column in zip(places, columns, strict=True)
    )
    names = [f"c{number}" for number in range(len(columns))]
    targets = ", ".join(column.sql for column in columns)
    selected = ", ".join(
        f"u.{name}{column.codec.cast}" for name, column in zip(names, columns, strict=True)
    )
    source = f"unnest({arrays})"
    if ordered:
        source += f" WITH ORDINALITY AS u({', '.join(names)}, n) ORDER BY u.n"
    else:
        source += f" AS u({', '.join(names)})"
    sql = f"INSERT INTO {table} ({targets}) SELECT {selected} FROM {source}"
    return f"{sql} RETURNING {', '.join(returning)}" if returning else sql
