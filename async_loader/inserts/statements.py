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

from async_loader.inserts.column_types import Codec
from async_loader.inserts.expressions import Template
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
    targets: Sequence[str],
    arrays: Sequence[Codec],
    selected: Sequence[str],
    dialect: Dialect,
    *,
    ordered: bool,
    returning: Sequence[str],
) -> str:
    """Return an insert; `selected` speaks of the arrays as u.c0, u.c1 and so on."""
    asyncpg = dialect.driver == "asyncpg"
    parameters = ", ".join(
        f"${number}::{way.element}[]" if asyncpg else f"%s::{way.element}[]"
        for number, way in enumerate(arrays, start=1)
    )
    names = ", ".join(f"c{number}" for number in range(len(arrays)))
    source = f"unnest({parameters})"
    source += f" WITH ORDINALITY AS u({names}, n) ORDER BY u.n" if ordered else f" AS u({names})"
    sql = f"INSERT INTO {table} ({', '.join(targets)}) SELECT {', '.join(selected)} FROM {source}"
    return f"{sql} RETURNING {', '.join(returning)}" if returning else sql


def select_list(
    columns: Sequence[ColumnPlan], templates: Sequence[Template]
) -> tuple[list[Codec], list[str]]:
    """Return the arrays that a statement takes and what it selects of them."""
    arrays = [column.codec for column in columns]
    selected = [f"u.c{number}{way.cast}" for number, way in enumerate(arrays)]
    for template in templates:
        first = len(arrays)
        arrays += template.codecs
        values = [f"u.c{first + n}{way.cast}" for n, way in enumerate(template.codecs)]
        selected.append(template.sql.format(*values))
    return arrays, selected
