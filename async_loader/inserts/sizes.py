"""
How much one statement carries: PostgreSQL takes an array of at most 1 GB, and a driver holds all
of a statement's values at once, where SQLAlchemy sends a row at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from .plans import FastPathUnsupportedError
from .rows import Group, RowBatch, Values

STATEMENT_ROWS = 50_000

# Bytes a row from which a driver makes an array of them slower than SQLAlchemy sends the rows.
_LONG = {"asyncpg": 64 * 1024, "psycopg": 400, "psycopg_async": 400}


def cut(group: Group, statement_bytes: int) -> Iterator[Group]:
    """Cut a group into statements of bounded size."""
    count = len(group.rows)
    sized = [values for column, values in group.columns if column.codec.sized]
    total = sum(map(_total, sized))
    if total <= statement_bytes and count <= STATEMENT_ROWS:
        yield group
        return
    places, size = [0], 0
    for row in range(count):
        row_size = sum(_size(values[row]) for values in sized)
        started = row > places[-1]
        if started and (size + row_size > statement_bytes or row - places[-1] >= STATEMENT_ROWS):
            places.append(row)
            size = 0
        size += row_size
    for first, last in pairwise([*places, count]):
        yield replace(
            group,
            rows=group.rows[first:last],
            columns=[(column, values[first:last]) for column, values in group.columns],
            computed=[
                (column, template, [values[first:last] for values in given])
                for column, template, given in group.computed
            ],
        )


def refuse_long(batch: RowBatch, driver: str) -> None:
    """Refuse values so long that SQLAlchemy's rows are faster; before they are bound."""
    if batch.count == 1:
        return
    total = sum(
        _total(values)
        for column, values, _ in batch.value_columns()
        if column.codec.sized and column not in batch.bound
    )
    if total > _LONG[driver] * batch.count:
        raise FastPathUnsupportedError(f"{total // batch.count} bytes a row: an array is slower")


def _total(values: Values) -> int:
    try:
        return sum(map(len, filter(None, values)))
    except TypeError:
        return sum(map(_size, values))


def _size(value: object) -> int:
    return len(value) if isinstance(value, str | bytes | bytearray | memoryview) else 0
