"""Say how the rows of a model are updated and deleted, and why not faster."""

from __future__ import annotations

from typing import Any

from .._sqlalchemy import fills, makes_version_there, tables_of
from ..column_types import codec
from ..expressions import is_of_row
from ..plans import DRIVERS, FastPathUnsupportedError
from .statements import Target, refuse_onupdates


def of_updates(mapper: Any, dialect: Any) -> str:
    """Return the way of a mapper's updates and the reason, such as 'stock: has batch=False'.

    Ways are pipeline, arrays and stock. What the server's catalogue says is not known here: rows
    whose order somebody sees keep SQLAlchemy's.
    """
    return _of_tables(mapper, dialect, _of_update)


def of_deletes(mapper: Any, dialect: Any, *, strict: bool) -> str:
    """Return the way of a mapper's deletes and the reason."""

    def way(target: Target, dialect: Any) -> str:
        if target.version is None or dialect.supports_sane_multi_rowcount:
            return "stock: SQLAlchemy sends them at once"
        if strict:
            return "pipeline: rows have a version, and none may be missing"
        return "at once: SQLAlchemy does not look at the count of several"

    return _of_tables(mapper, dialect, way)


def _of_tables(mapper: Any, dialect: Any, way: Any) -> str:
    if dialect.name != "postgresql" or dialect.driver not in DRIVERS:
        return f"stock: {dialect.name}+{dialect.driver} is not supported"
    base = mapper.base_mapper
    if not base.batch:
        return "stock: is mapped with batch=False"
    ways = {
        table.name: way(Target.of(base, owner, table), dialect)
        for table, owner in tables_of(base)
        if fills(mapper, table)
    }
    if len(set(ways.values())) == 1:
        return str(next(iter(ways.values())))
    return "; ".join(f"{name}: {found}" for name, found in ways.items())


def _of_update(target: Target, dialect: Any) -> str:
    try:
        refuse_onupdates(target)
    except FastPathUnsupportedError as reason:
        return f"stock: {reason}"
    if makes_version_there(target.mapper):
        return "pipeline: the server makes the version"
    if target.version is not None:
        return "pipeline: rows have a version"
    if target.base_mapper.eager_defaults is True and _made_there(target):
        return "pipeline: what the server makes is read back"
    unknown = _unknown(target, dialect)
    if unknown:
        return f"pipeline: {unknown}"
    return "arrays: one statement for each set of columns"


def _made_there(target: Target) -> bool:
    clauses = any(column.onupdate.is_clause_element for column in target.onupdates)
    return clauses or any(column.server_onupdate is not None for column in target.table.c)


def _unknown(target: Target, dialect: Any) -> str | None:
    """Return what would keep rows out of arrays, if it were set."""
    for column in target.onupdates:
        if column.onupdate.is_clause_element and not is_of_row(column.onupdate.arg, target.table):
            return f"the onupdate of column {column.name} may say something else of many rows"
    for column in target.table.c:
        way = codec(column.type, dialect)
        if way is None or way.foreign:
            return f"column {column.name} has the type {column.type!r}"
    return None
