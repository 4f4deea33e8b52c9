"""
The updates of SQLAlchemy: what it sends together, and the statements that it sends.

A record is what `_collect_update_commands` yields. Neighbours that name the same columns make a
run, which SQLAlchemy sends as one `executemany`, or row by row where it has to know what came of
each: a version, a value read back, a SQL expression.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Table, and_, bindparam

from .._sqlalchemy import (
    ignores_context,
    key_columns,
    label,
    makes_version_there,
    memo,
    server_made_on_update,
    version_column,
)
from ..plans import FastPathUnsupportedError

SMALLEST = 3  # rows; below that SQLAlchemy's own is as good


class Record(NamedTuple):
    """One row to be updated, as SQLAlchemy collects it."""

    state: Any
    values: Any
    params: dict[str, Any]
    mapper: Any
    connection: Any
    expressions: dict[Any, Any]  # by column, of values that are SQL
    has_all_defaults: bool
    has_all_keys: bool


@dataclass(slots=True)
class Target:
    """The rows of one table, of objects of one hierarchy."""

    base_mapper: Any
    mapper: Any
    table: Table
    keys: tuple[Any, ...]
    version: Any | None
    onupdates: tuple[Any, ...]  # columns with a value of their own when a row is updated

    @classmethod
    def of(cls, base_mapper: Any, mapper: Any, table: Table) -> Target:
        """Return what is known of a table."""
        return cls(
            base_mapper,
            mapper,
            table,
            tuple(key_columns(mapper, table)),
            version_column(mapper, table),
            tuple(column for column in table.c if column.onupdate is not None),
        )


@dataclass(slots=True)
class Run:
    """Neighbours that SQLAlchemy sends alike."""

    records: Sequence[Record]
    returned: tuple[Any, ...]  # columns that come back
    at_once: bool  # SQLAlchemy sends them as one executemany

    @property
    def first(self) -> Record:
        """The first of them."""
        return self.records[0]

    @property
    def is_checked(self) -> bool:
        """Tell whether SQLAlchemy looks at how many rows were matched."""
        dialect = self.first.connection.dialect
        alone = not self.at_once or len(self.records) == 1
        return alone or dialect.supports_sane_multi_rowcount

    @property
    def trips(self) -> int:
        """How many times SQLAlchemy waits for the server."""
        return 1 if self.at_once else len(self.records)


def runs_of(target: Target, records: Iterable[Record]) -> list[Run]:
    """Return the rows as SQLAlchemy groups them, with how it sends each group."""
    found = []
    for key, group in groupby(records, _key):
        *_, has_expressions, has_all_defaults, has_all_keys = key
        returned = _returned(target, has_all_defaults=has_all_defaults, has_all_keys=has_all_keys)
        at_once = not (returned or target.version is not None or has_expressions)
        found.append(Run(list(group), returned, at_once))
    return found


def _key(record: Record) -> tuple[Any, ...]:
    """What SQLAlchemy groups neighbours by."""
    return record[4], set(record[2]), bool(record[5]), record[6], record[7]


def _returned(target: Target, *, has_all_defaults: bool, has_all_keys: bool) -> tuple[Any, ...]:
    mapper, table = target.mapper, target.table
    returned: tuple[Any, ...] = () if has_all_keys else target.keys
    eager = mapper.base_mapper.eager_defaults is True
    if not has_all_defaults and eager and table.implicit_returning:
        returned += tuple(server_made_on_update(mapper, table))
    if makes_version_there(mapper):
        returned += (mapper.version_id_col,)
    return returned


def update_of(target: Target, returned: tuple[Any, ...]) -> Any:
    """Return SQLAlchemy's update of a row by its key and version."""

    def make() -> Any:
        found_by = [*target.keys, *([] if target.version is None else [target.version])]
        clauses = [column == bindparam(label(column), type_=column.type) for column in found_by]
        statement = target.table.update().where(and_(*clauses))
        return statement.return_defaults(*returned) if returned else statement

    return memo(target.base_mapper, ("async_loader.update", target.table, returned), make)


def refuse_rows(target: Target, records: Iterable[Record]) -> None:
    """Refuse rows of which only SQLAlchemy knows what they are, or says that they are wrong."""
    version = None if target.version is None else label(target.version)
    for record in records:
        if not record.has_all_keys:
            raise FastPathUnsupportedError("a key is given a SQL expression")
        if version is not None and version not in record.params:
            raise FastPathUnsupportedError("a row has no version")


def made_by_python(target: Target, record: Record) -> list[Any]:
    """Return the columns whose onupdate is called, or constant, for a row."""
    return [
        column
        for column in target.onupdates
        if column.key not in record.params
        and column not in record.expressions
        and not column.onupdate.is_clause_element
    ]


def refuse_onupdates(target: Target) -> None:
    """Refuse functions that may look at the rows before: here they are called beforehand."""
    for column in target.onupdates:
        onupdate = column.onupdate
        if onupdate.is_sequence or (onupdate.is_callable and not ignores_context(onupdate)):
            raise FastPathUnsupportedError(
                f"the onupdate of column {column.name} asks for its context"
            )
