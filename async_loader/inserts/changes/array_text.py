"""
The text of an update of many rows, made from SQLAlchemy's own of one.

    WITH async_loader_locks AS MATERIALIZED
      (SELECT 1 FROM unnest((SELECT $3::INTEGER[])) WITH ORDINALITY AS async_loader_keys(c0, n)
       JOIN t AS async_loader_locked ON async_loader_locked.id = async_loader_keys.c0
       ORDER BY async_loader_keys.n FOR NO KEY UPDATE OF async_loader_locked)
    UPDATE t SET a=async_loader_rows.c0::INTEGER
    FROM unnest((SELECT $1::INTEGER[]), (SELECT $2::INTEGER[]))
      WITH ORDINALITY AS async_loader_rows(c0, c1, n)
    WHERE t.id = async_loader_rows.c1::INTEGER
      AND (SELECT count(*) FROM async_loader_locks) IS NOT NULL
    RETURNING async_loader_rows.n

LockRows is above the sort by ordinality, and what the condition counts is there before any row is
updated: so a flush never waits for a row while it holds a later one, whatever the plan. Ordering
the arrays alone does not do it, nor does any other form that was tried.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .._sqlalchemy import label
from ..calls import refuse_guesses
from ..column_types import Codec, codec
from ..names import Names
from ..plans import FastPathUnsupportedError
from ..statement_bytes import STATEMENT_BYTES
from ._sqlalchemy import rendered_binds
from .statements import Target

_ROWS, _KEYS = "async_loader_rows", "async_loader_keys"
_LOCKS, _LOCKED = "async_loader_locks", "async_loader_locked"
_MARKS = {"asyncpg": re.compile(r"\$(\d+)"), "psycopg": re.compile(r"(?<!%)%\(([^()]*)\)s")}


class ArrayText:
    """The update of many rows that set the same columns."""

    def __init__(self, target: Target, names: Names, context: Any) -> None:
        self.target = target
        self.names = names
        by_number = names.dialect.driver == "asyncpg"
        found = _MARKS["asyncpg" if by_number else "psycopg"].findall(context.statement)
        binds = rendered_binds(context.compiled)
        if not by_number:  # there may be some that the statement does not have
            binds = [bind for bind in binds if bind[1] in found]
        marks = (
            [str(n) for n in range(1, len(binds) + 1)] if by_number else [b for _, b, _ in binds]
        )
        if sorted(found) != sorted(marks):
            raise FastPathUnsupportedError("a name looks like a parameter")
        self._labels = [name for name, _, _ in binds]
        self._rendered: list[Any] = list(range(len(binds))) if by_number else marks
        self._codecs = [_codec(name, type_, names) for name, _, type_ in binds]
        self.keys = [self._labels.index(label(column)) for column in target.keys]
        casts = [way.cast_sql(names) for way in self._codecs]
        self._update, self._where, self._returning = _parts(
            context.statement, by_number, dict(zip(marks, casts, strict=True))
        )

    def arrays(self, rows: Sequence[Any]) -> list[list[Any]]:
        """Return the bound parameters of rows, column by column."""
        arrays = [[row[place] for row in rows] for place in self._rendered]
        self.refuse(arrays)
        return arrays

    def put(self, arrays: list[list[Any]], row: int, key: str, value: Any) -> None:
        """Bind the value of one row and column."""
        place = self._labels.index(key)
        bind = self._codecs[place].bind
        arrays[place][row] = value if bind is None else bind(value)

    def refuse(self, arrays: list[list[Any]]) -> None:
        """Refuse values that no array carries as one value travels."""
        size = 0
        for name, values, way in zip(self._labels, arrays, self._codecs, strict=True):
            refuse_guesses(name, way, values, range(len(values)), self.names.dialect)
            if way.sized:
                size += sum(len(value) for value in values if value is not None)
        if size > STATEMENT_BYTES:
            raise FastPathUnsupportedError(f"{size} bytes are too many for one statement")

    def sql(
        self, arrays: list[list[Any]], locks: list[list[Any]] | None
    ) -> tuple[str, list[list[Any]]]:
        """Return the statement with its parameters; it takes the locks that are given first."""
        before = gate = ""
        parameters = arrays
        if locks is not None:
            by_number = self.names.dialect.driver == "asyncpg"
            before = self._lock(len(arrays))
            gate = f" AND (SELECT count(*) FROM {_LOCKS}) IS NOT NULL"
            parameters = [*arrays, *locks] if by_number else [*locks, *arrays]
        columns = "".join(f"c{n}, " for n in range(len(arrays)))
        sql = (
            f"{before}{self._update} FROM unnest({self._unnested(self._codecs, 0)}) "
            f"WITH ORDINALITY AS {_ROWS}({columns}n) WHERE {self._where}{gate} "
            f"RETURNING {_ROWS}.n{self._returning}"
        )
        return sql, parameters

    def _lock(self, first: int) -> str:
        """Return what locks rows in the order of their keys as they are given."""
        names, target = self.names, self.target
        codecs = [self._codecs[place] for place in self.keys]
        quote: Any = names.dialect.identifier_preparer
        found = " AND ".join(
            f"{_LOCKED}.{quote.format_column(column)} = {_KEYS}.c{n}{way.cast_sql(names)}"
            for n, (column, way) in enumerate(zip(target.keys, codecs, strict=True))
        )
        columns = "".join(f"c{n}, " for n in range(len(codecs)))
        return (
            f"WITH {_LOCKS} AS MATERIALIZED (SELECT 1 FROM unnest("
            f"{self._unnested(codecs, first)}) WITH ORDINALITY AS {_KEYS}({columns}n) "
            f"JOIN {names.table(target.table)} AS {_LOCKED} ON {found} "
            f"ORDER BY {_KEYS}.n FOR NO KEY UPDATE OF {_LOCKED}) "
        )

    def _unnested(self, codecs: Sequence[Codec], first: int) -> str:
        by_number = self.names.dialect.driver == "asyncpg"
        # Hidden from the planner, which else makes much of how many there are.
        return ", ".join(
            f"(SELECT {f'${number}' if by_number else '%s'}::{way.element_sql(self.names)}[])"
            for number, way in enumerate(codecs, first + 1)
        )


def refuse_types(compiled: Any, names: Names) -> None:
    """Refuse types that no array carries, or of the application's own: those are asked once."""
    for name, _, type_ in rendered_binds(compiled):
        _codec(name, type_, names)


def _codec(name: str, type_: Any, names: Names) -> Codec:
    way = codec(type_, names.dialect)
    if way is None or way.foreign:
        raise FastPathUnsupportedError(f"{name} has the type {type_!r}")
    return way


def _parts(statement: str, by_number: bool, marks: dict[str, str]) -> tuple[str, str, str]:
    """Take SQLAlchemy's statement apart, with columns in the place of its parameters.

    `marks` are the parameters, and what casts the column of each to a type of the application's.
    Refuses one in which the parts cannot be told apart, as where a name looks like a parameter.
    """
    mark = _MARKS["asyncpg" if by_number else "psycopg"]
    columns = {name: f"{_ROWS}.c{n}{cast}" for n, (name, cast) in enumerate(marks.items())}
    statement = mark.sub(lambda found: columns[found[1]], statement)
    update, *wheres = statement.split(" WHERE ")
    where, *returning = "".join(wheres[:1]).split(" RETURNING ")
    if len(wheres) != 1 or len(returning) > 1:
        raise FastPathUnsupportedError("a name looks like a part of the statement")
    return update, where, "".join(f", {names}" for names in returning)
