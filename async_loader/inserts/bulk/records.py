"""Rows of any shapes as rows of one: defaults made, and values bound for COPY."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final

from sqlalchemy.engine import Dialect

from .._sqlalchemy import bind_processor, has_bind_expression
from .source import Shaped
from .target import Field

ABSENT: Final[Any] = object()  # stands where a row has no value for a column

Values = Sequence[Any]


def filled(
    fields: Sequence[Field],
    given: Shaped,
    is_elsewhere: Callable[[Field], bool],
    dialect: Dialect,
) -> tuple[Sequence[Values], set[Field]]:
    """
    Return the rows with a value or ABSENT for each field, and which fields may be ABSENT.

    Python defaults are called here, row by row, as SQLAlchemy calls them: before any value is
    bound. `is_elsewhere` tells the fields that the server or a SQL expression fills.
    """
    careful = takes_none_for_nothing(fields, is_elsewhere, dialect)
    shapes = [_Shape(fields, keys, careful) for keys in given.shapes]
    if len(shapes) == 1 and shapes[0].is_plain(given.rows):
        return shapes[0].in_order(given.rows), set()
    fills = [shape.fill for shape in shapes]
    rows = [fills[kind](row) for kind, row in zip(given.kinds, given.rows, strict=True)]
    return rows, {field for shape in shapes for field in shape.may_lack}


def takes_none_for_nothing(
    fields: Sequence[Field], is_elsewhere: Callable[[Field], bool], dialect: Dialect
) -> list[bool]:
    """Return of each field whether None in a row leaves the value to others than the row."""
    return [
        not field.keeps_none
        and (field.default is not None or is_elsewhere(field) or _is_processed(field, dialect))
        for field in fields
    ]


class _Shape:
    """What is done with rows of one shape."""

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
        self.may_lack = [
            field
            for (place, is_so, default), field in zip(self._makers, fields, strict=True)
            if default is None and (place is None or is_so)
        ]

    def is_plain(self, rows: Sequence[Values]) -> bool:
        """Tell whether rows have all the values, in whatever order."""
        return self._has_all and not any(
            row[place] is None for place in self._careful if place is not None for row in rows
        )

    def in_order(self, rows: Sequence[Values]) -> Sequence[Values]:
        places: list[Any] = self._places
        if places == list(range(len(rows[0]))):
            return rows
        if len(places) == 1:
            return [(row[places[0]],) for row in rows]
        return list(map(itemgetter(*places), rows)) if places else [()] * len(rows)

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
