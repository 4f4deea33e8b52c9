"""
The application's own Python in an insert: column defaults and bind processors.

Either may have a memory, such as a counter or a nonce, so each is called once, row by row in the
order of the objects and column by column within a row, as SQLAlchemy calls them. Drivers guess
the type of an array from its elements; what they would guess wrong is left to SQLAlchemy, and
found out before code of the application's own is called wherever that can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy.engine import Dialect

from .column_types import Codec
from .plans import ColumnPlan, FastPathUnsupportedError
from .rows import Pending, RowBatch, Values

Rows = Sequence[tuple[Pending, RowBatch]]


def refuse_turns(tables: Rows, *, in_turns: bool) -> None:
    """Refuse rows of several kinds whose defaults and bind processors would have to take turns.

    SQLAlchemy calls the defaults of one statement, binds its values, and comes to the next; rows
    of one kind `in_turns`, too.
    """
    batches = [batch for _, batch in tables]
    binds = any(column.codec.foreign for batch in batches for column, _, _ in batch.value_columns())
    defaults = [one for batch in batches for one in batch.defaults if one.column.is_callable]
    several = (
        in_turns
        or len(batches) > 1
        or any(
            batch.patterns() > 1 or any(len(one.rows) < batch.count for one in batch.defaults)
            for batch in batches
        )
    )
    if binds and defaults and several:
        raise FastPathUnsupportedError("its defaults and its types are called in turns")


def call_defaults(tables: Rows) -> None:
    """Fill in Python defaults; rows of several mappers take turns as they were added."""
    called = []
    for number, (pending, batch) in enumerate(tables):
        for default in batch.defaults:
            if default.column.is_callable:
                called.append((number, pending, default))
            else:
                for row in default.rows:
                    default.values[row] = _call(default.column)
    if len(called) == 1:
        (_, _, default) = called[0]
        for row in default.rows:
            default.values[row] = _call(default.column)
        return
    turns: list[Any] = []
    several = len(tables) > 1
    for turn, (number, pending, default) in enumerate(called):
        for row in default.rows:
            order = pending.states[row].insert_order if several else row
            turns.append((order, number, turn, row, default))
    turns.sort(key=lambda one: one[:4])
    for *_, row, default in turns:
        default.values[row] = _call(default.column)


def _call(column: ColumnPlan) -> Any:
    return column.default() if column.default is not None else None


def bind_given(batch: RowBatch, generated: ColumnPlan | None, dialect: Dialect) -> None:
    """Make what the driver takes of given values, where no code but SQLAlchemy's has a hand in it.

    Whatever they say against a batch is known before a key is drawn or a default called: then
    SQLAlchemy sends the rows as if nothing had been tried.
    """
    others = {default.column for default in batch.defaults}.union(batch.bound)
    for column, values, rows in batch.value_columns():
        if column.codec.foreign or column in others or column is generated:
            continue
        try:
            bound = _bound(column, values, rows, batch.count)
        except Exception as error:
            raise FastPathUnsupportedError("a type does not take a value") from error
        _refuse_guesses(column, bound, rows, dialect)
        batch.bound[column] = bound


def bind_once(tables: Rows, dialect: Dialect) -> None:
    """Make the other values that the driver takes; of one that cannot be made its row is told.

    The rows before it may have gone by then, so SQLAlchemy comes to it once more, unless a type
    of the application's own would be asked twice.
    """
    try:
        bind(tables, dialect)
    except FastPathUnsupportedError:
        raise
    except Exception as error:
        if any(column.codec.foreign for _, batch in tables for column, *_ in batch.value_columns()):
            raise
        raise FastPathUnsupportedError("a type does not take a value") from error


def bind(tables: Rows, dialect: Dialect) -> None:
    """Make the values that the driver takes; raise `FastPathUnsupportedError` for others."""
    foreign = []
    for pending, batch in tables:
        for column, values, rows in batch.value_columns():
            if column in batch.bound:
                continue
            drawn = batch.drawn.get(column)
            if column.codec.foreign and batch.count:
                given = [row for row in rows if row not in drawn] if drawn else rows
                batch.bound[column] = list(values)
                foreign.append((pending, batch, column, given))
            else:
                batch.bound[column] = _bound(column, values, rows, batch.count)
            if drawn:
                bound = batch.bound[column] = list(batch.bound[column])
                for row, raw in drawn.items():
                    bound[row] = raw
            if not column.codec.foreign:
                _refuse_guesses(column, batch.bound[column], rows, dialect)
    _bind_foreign(foreign, several=len(tables) > 1)
    for _, batch, column, rows in foreign:
        _refuse_guesses(column, batch.bound[column], rows, dialect)


def _refuse_guesses(
    column: ColumnPlan, values: Values, rows: Sequence[int], dialect: Dialect
) -> None:
    refuse_guesses(column.column.name, column.codec, values, rows, dialect)


def _bound(column: ColumnPlan, values: Values, rows: Sequence[int], count: int) -> Values:
    process = column.codec.bind
    if process is None:
        return values
    if len(rows) == count:
        return list(map(process, values))
    bound = list(values)
    for row in rows:
        bound[row] = process(values[row])
    return bound


def _bind_foreign(foreign: list[Any], *, several: bool) -> None:
    if len(foreign) == 1:
        _, batch, column, rows = foreign[0]
        bound, process = batch.bound[column], column.codec.bind
        for row in rows:
            bound[row] = process(bound[row])
        return
    turns = sorted(
        (pending.states[row].insert_order if several else row, turn, row)
        for turn, (pending, _, _, rows) in enumerate(foreign)
        for row in rows
    )
    for _, turn, row in turns:
        _, batch, column, _ = foreign[turn]
        bound = batch.bound[column]
        bound[row] = column.codec.bind(bound[row])


# What asyncpg takes for one value; all else that has a length and can be walked is a dimension.
_VALUES = (str, bytes, bytearray, memoryview, Mapping)
_SCALARS: frozenset[type] = frozenset(
    {
        *(type(None), bool, int, float, str, bytes, object),
        *(date, datetime, time, timedelta, Decimal, UUID),
    }
)
# What psycopg's array of a class says just as one value says it, by the column's type: of others
# the casts differ, or the errors do.
_NATURAL: dict[str, frozenset[type]] = {
    "SMALLINT": frozenset({int}),
    "INTEGER": frozenset({int}),
    "BIGINT": frozenset({int}),
    "BOOLEAN": frozenset({bool}),
    "FLOAT": frozenset({float, int, Decimal}),
    "NUMERIC": frozenset({Decimal, int, float}),
    "VARCHAR": frozenset({str}),
    "TEXT": frozenset({str}),
    "BYTEA": frozenset({bytes}),
    "DATE": frozenset({date}),
    "INTERVAL": frozenset({timedelta}),
}


def refuse_guesses(
    name: str, codec: Codec, values: Values, rows: Sequence[int], dialect: Dialect
) -> None:
    """Refuse values whose array would not say what one value says.

    asyncpg takes a list for a further dimension; psycopg gives all elements the type of one.
    A single value travels as itself, but for psycopg with a cast that SQLAlchemy may leave out.
    """
    if dialect.driver == "asyncpg":
        if len(rows) < 2 or _SCALARS.issuperset(map(type, values)):
            return
        if any(_is_nested(one) for one in values):
            raise FastPathUnsupportedError(f"column {name} is given a collection")
        return
    natural = _NATURAL.get(codec.element)
    if len(rows) < 2 and natural is None:
        return
    given = values if len(rows) == len(values) else [values[row] for row in rows]
    kinds = set(map(type, given)) - {type(None)}
    if len(kinds) > 1 or not kinds <= (natural or _SCALARS):
        raise FastPathUnsupportedError(f"column {name} is given values of other or several types")
    if kinds & {datetime, time} and len(set(_zones(given))) > 1:
        raise FastPathUnsupportedError(f"column {name} is given times with and without zone")


_BITS = {"SMALLINT": 15, "INTEGER": 31, "BIGINT": 63}


def has_numbers_too_large(batch: RowBatch, dialect: Dialect) -> bool:
    """Tell whether a row has an integer that its column refuses; asyncpg refuses it itself."""
    if dialect.driver == "asyncpg":
        return False
    return any(
        type(value) is int and value.bit_length() > _BITS[column.codec.element]
        for column, values, _ in batch.value_columns()
        if column.codec.element in _BITS
        for value in values
    )


def _is_nested(value: Any) -> bool:
    return (
        isinstance(value, Sized) and hasattr(value, "__iter__") and not isinstance(value, _VALUES)
    )


def _zones(values: Values) -> Iterator[bool]:
    return (value.tzinfo is None for value in values if value is not None)
