"""
Rows in a temporary table, from which one statement changes the table that they are for.

The columns are the table's own, without its keys, checks and defaults. Rows lie as they came. A
column of ours says which columns a row gives, as a number: its kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Integer,
    Select,
    and_,
    column,
    delete,
    func,
    insert,
    literal_column,
    select,
    table,
    text,
)
from sqlalchemy.sql import ColumnElement

from ...errors import ConfigurationError
from . import catalogue
from .calling import Call
from .catalogue import quoted
from .copying import binary_codecs, copy
from .loading import all_or_nothing
from .method import are_as_typed, reason_of_column
from .pages import PAGE
from .records import ABSENT, Values, bound
from .target import Field

KIND = Field(Column("async_loader_kind", Integer), "async_loader_kind", keeps_none=True)

_SCHEMA = "pg_temp"
_DEPTH = "async_loader_stages"  # in a connection's info: what gives rows may have a stage, too

Kind = tuple[Field, ...]  # what rows give


def check_duplicates(said: str) -> None:
    """Raise ConfigurationError unless it is a word for what happens to two rows of one key."""
    if said not in {"refuse", "last"}:
        raise ConfigurationError(f'duplicates is "refuse" or "last", not {said!r}')


def differ(before: Iterable[Any], after: Iterable[Any]) -> ColumnElement[bool]:
    """Return whether values are not the same to the last bit, which every type can tell."""
    return func.record_image_ne(func.row(*before), func.row(*after), type_=Boolean)


class Stage:
    """The temporary table of one call; `table` has the database's columns, without types."""

    def __init__(self, call: Call, name: str, fields: Sequence[Field]) -> None:
        self._call = call
        self._sql_name = f"{_SCHEMA}.{quoted(name)}"
        self._fields = (*fields, KIND)
        names = [field.column.name for field in self._fields]
        self._typed = table(
            name, *(column(f.column.name, f.column.type) for f in self._fields), schema=_SCHEMA
        )
        self.table = table(name, *map(column, [*names, "ctid"]), schema=_SCHEMA)
        self._place = self.table.c.ctid  # of a table that only grew: in the order of the rows
        self._kinds: dict[Kind, int] = {}
        self.count = 0

    def create(self) -> None:
        """Make it, with the columns that the table has by now."""
        source = self._call.table_name
        names = ", ".join(quoted(field.column.name) for field in self._fields[:-1])
        connection = self._call.connection
        self._say(
            f"CREATE TEMPORARY TABLE {self._sql_name} ON COMMIT DROP AS SELECT {names}, "
            f"CAST(NULL AS integer) AS {KIND.key} FROM {source} WITH NO DATA"
        )
        facts = catalogue.facts_of(connection, self._sql_name)
        assert facts is not None
        self._facts, self._has_codec = facts, binary_codecs(connection)

    def drop(self) -> None:
        """Remove it, so that the next call of the transaction can have one."""
        self._say(f"DROP TABLE {self._sql_name}")

    def _say(self, sql: str) -> None:
        self._call.connection.execute(text(sql.replace(":", "\\:")))  # no parameters

    @property
    def kinds(self) -> list[tuple[Kind, ColumnElement[bool] | None]]:
        """What rows give, and the condition that finds those which give it; None for all."""
        if len(self._kinds) == 1:
            return [(kind, None) for kind in self._kinds]
        number = func.coalesce(self[KIND], 0)
        return [(kind, number == place) for kind, place in self._kinds.items()]

    def __getitem__(self, field: Field) -> ColumnElement[Any]:
        found: ColumnElement[Any] = self.table.c[field.column.name]
        return found

    def add(
        self,
        fields: Sequence[Field],
        rows: Sequence[Values],
        kinds: Sequence[Kind],
        kind_of: Sequence[int],
        *,
        complete: bool = True,
    ) -> None:
        """
        Add rows that have a value for each of the fields, or ABSENT unless they are complete.

        `kind_of` says which of the kinds each is of.
        """
        self.count += len(rows)
        numbers = [self._kinds.setdefault(kind, len(self._kinds)) for kind in kinds]
        if any(numbers):
            fields = [*fields, KIND]
            rows = [[*row, numbers[kind]] for row, kind in zip(rows, kind_of, strict=True)]
        connection, dialect = self._call.connection, self._call.dialect
        columns = self._facts.columns
        reasons = [
            reason_of_column(field, columns.get(field.column.name), dialect, self._has_codec)
            for field in fields
        ]
        if not any(reasons):
            with self._call.errors_of("COPY"):
                records = bound(fields, rows, dialect, complete=complete)
            if dialect.driver == "asyncpg" or are_as_typed(fields, self._facts, records):
                names = [field.column.name for field in fields]
                copy(connection, self._sql_name, names, records)
                return
        self._insert(fields, rows)

    def _insert(self, fields: Sequence[Field], rows: Sequence[Values]) -> None:
        names = [field.column.name for field in fields]
        statement = insert(self._typed).inline()
        for start in range(0, len(rows), PAGE):
            page = [
                {
                    name: None if value is ABSENT else value
                    for name, value in zip(names, row, strict=True)
                }
                for row in rows[start : start + PAGE]
            ]
            self._call.connection.execute(statement, page)

    def settle(self, key: Sequence[Field], duplicates: str) -> None:
        """
        Leave one row of those with one key: the last, or refuse them.

        Keys with NULL in them are nobody's. Raises ConfigurationError with the rows' numbers.
        """
        columns = [self[field] for field in key]
        whole = and_(*(each.is_not(None) for each in columns))
        several: Select[Any] = (
            select(literal_column("1")).select_from(self.table).where(whole).group_by(*columns)
        )
        execute = self._call.connection.execute
        if execute(several.having(func.count() > 1).limit(1)).first() is None:
            return
        if duplicates == "last":
            latest = func.row_number().over(partition_by=columns, order_by=self._place.desc())
            ranked = select(self._place.label("place"), latest.label("rank")).where(whole)
            found = ranked.select_from(self.table).subquery()
            later = delete(self.table).where(self._place == found.c.place, found.c.rank > 1)
            self.count -= execute(later).rowcount
            return
        raise ConfigurationError(self._said_of_pair(key))

    def _said_of_pair(self, key: Sequence[Field]) -> str:
        columns = [self[field] for field in key]
        number = func.row_number().over(order_by=self._place).label("number")
        whole = and_(*(each.is_not(None) for each in columns))
        numbered = select(number, *columns, whole.label("whole")).select_from(self.table)
        rows = numbered.subquery()
        same = [rows.c[field.column.name] for field in key]
        first = func.min(rows.c.number).over(partition_by=same).label("first")
        pairs = select(first, rows.c.number).where(rows.c.whole).subquery()
        found = select(pairs).where(pairs.c.number > pairs.c.first).order_by(*pairs.c).limit(1)
        one, other = self._call.connection.execute(found).one()
        names = ", ".join(str(field.key) for field in key)
        return (
            f"rows {one} and {other} have the same {names}: give each key once, or say "
            'duplicates="last"'
        )


@contextmanager
def staged(call: Call, fields: Sequence[Field]) -> Iterator[Stage]:
    """A stage for a block, of which all is done or nothing."""
    info = call.connection.info
    depth = info.get(_DEPTH, 0)
    stage = Stage(call, f"async_loader_stage_{depth}", fields)
    info[_DEPTH] = depth + 1
    try:
        with all_or_nothing(call.connection):
            stage.create()
            yield stage
            stage.drop()
    finally:
        if not call.connection.closed and not call.connection.invalidated:
            call.connection.info[_DEPTH] = depth
