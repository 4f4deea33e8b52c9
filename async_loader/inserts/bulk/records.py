"""Runs of rows as rows of one set of columns: defaults made, and values bound for COPY."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, Final

from sqlalchemy.engine import Dialect

from async_loader.inserts._sqlalchemy import bind_processor, has_bind_expression
from async_loader.inserts.bulk.source import Run
from async_loader.inserts.bulk.target import Field

ABSENT: Final[Any] = object()  # stands where a row has no value for a column

Values = Sequence[Any]


def filled(
    fields: Sequence[Field],
    runs: Iterable[Run],
    is_elsewhere: Callable[[Field], bool],
    dialect: Dialect,
) -> tuple[list[Values], bool]:
    """
    Return the rows with a value or ABSENT for each field, and whether none is ABSENT.

    Python defaults are called here, row by row, as SQLAlchemy calls them: before any value is
    bound. `is_elsewhere` tells the fields that the server or a SQL expression fills.
    """
    careful = [
        not field.keeps_none
        and (field.default is not None or is_elsewhere(field) or _is_processed(field, dialect))
        for field in fields
    ]
    rows: list[Values] = []
    complete = True
    shapes: dict[tuple[str, ...], _Shape] = {}
    for run in runs:
        shape = shapes.get(run.keys)
        if shape is None:
            shape = shapes[run.keys] = _Shape(fields, run.keys, careful)
        if shape.is_plain(run.rows):
            rows += shape.in_order(run.rows)
        else:
            complete = False
            rows += map(shape.fill, run.rows)
    return rows, complete


class _Shape:
    """What is done with rows of the same keys."""

    def __init__(
        self, fields: Sequence[Field], keys: tuple[str, ...], careful: Sequence[bool]
    ) -> None:
        index = {key: place for place, key in enumerate(keys)}
        self._places = [index.get(field.key) if field.key else None for field in fields]
        self._has_all = None not in self._places and not any(field.is_fixed for field in fields)
        self._careful = [place for place, is_so in zip(self._places, careful, strict=True) if is_so]
        self._makers = [
            (None if field.is_fixed else place, is_so, field.default)
            for place, is_so, field in zip(self._places, careful, fields, strict=True)
        ]

    def is_plain(self, rows: Sequence[Values]) -> bool:
        """Tell whether rows have all the values, in whatever order."""
        return self._has_all and not any(
            row[place] is None for place in self._careful if place is not None for row in rows
        )

    def in_order(self, rows: Sequence[Values]) -> Iterable[Values]:
        places: list[Any] = self._places
        if places == list(range(len(rows[0]))):
            return rows
        if len(places) == 1:
            return [(row[places[0]],) for row in rows]
        return map(itemgetter(*places), rows) if places else [()] * len(rows)

    def fill(self, row: Values) -> Values:
        values = []
        for place, is_careful, default in self._makers:
            value = ABSENT if place is None else row[place]
            if value is None and is_careful:
                value = ABSENT
            if value is ABSENT and default is not None:
                value = default()
            values.append(value)
        return values


def _is_processed(field: Field, dialect: Dialect) -> bool:
    type_ = field.column.type
    return bind_processor(type_, dialect) is not None or has_bind_expression(type_, dialect)


def bound(
    fields: Sequence[Field], rows: Sequence[Values], dialect: Dialect, *, complete: bool
) -> Sequence[Values]:
    """Return the records of a COPY; what is ABSENT is NULL."""
    binds = [bind_processor(field.column.type, dialect) for field in fields]
    if complete and not any(binds):
        return rows
    return [
        [
            None if value is ABSENT else value if bind is None else bind(value)
            for value, bind in zip(row, binds, strict=True)
        ]
        for row in rows
    ]
