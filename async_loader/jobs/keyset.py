"""
Keyset paging: a select, in the order of a unique key, from behind one key up to another.

A key is kept as JSON with its types, so that what is compared next week is what was read:
`[["int", 5], ["datetime", "2026-02-03T04:05:06.000007+00:00"]]`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    UniqueConstraint,
    func,
    inspect,
    literal,
    tuple_,
)
from sqlalchemy import select as select_
from sqlalchemy.orm import InstrumentedAttribute, Mapper
from sqlalchemy.util import EMPTY_DICT

from ..errors import ConfigurationError

Key = tuple[Any, ...]


def _same(value: Any) -> Any:
    return value


# Exact types, not subclasses: what comes back must be what went in.
_CODECS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    bool: ("bool", _same, _same),
    int: ("int", _same, _same),
    str: ("str", _same, _same),
    float: ("float", float.hex, float.fromhex),
    Decimal: ("decimal", str, Decimal),
    UUID: ("uuid", str, UUID),
    bytes: ("bytes", bytes.hex, bytes.fromhex),
    datetime: ("datetime", datetime.isoformat, datetime.fromisoformat),
    date: ("date", date.isoformat, date.fromisoformat),
    time: ("time", time.isoformat, time.fromisoformat),
    timedelta: (
        "timedelta",
        lambda delta: [delta.days, delta.seconds, delta.microseconds],
        lambda parts: timedelta(*parts),
    ),
}
_DECODERS = {name: decoder for name, _, decoder in _CODECS.values()}


def encode(key: Sequence[Any]) -> str:
    """Return a key as text; equal keys are equal texts. Raises `ConfigurationError`."""
    return json.dumps([_encode_one(value) for value in key], separators=(",", ":"))


def decode(text: str) -> Key:
    """Return the key that `encode` was given, in value and type."""
    return tuple(_DECODERS[name](value) for name, value in json.loads(text))


def _encode_one(value: Any) -> tuple[str, Any]:
    kind = type(value)
    if kind not in _CODECS:  # asyncpg has a UUID of its own, equal to Python's
        kind = next((k for k in (UUID, str) if isinstance(value, k)), kind)
    if kind not in _CODECS:
        raise ConfigurationError(
            f"a key of type {kind.__name__} cannot be kept exactly: page by a column of "
            f"{', '.join(sorted(k.__name__ for k in _CODECS))} (key=)"
        )
    name, encoder, _ = _CODECS[kind]
    return name, encoder(value)


class Keyset:
    """
    The pages of a select.

    `columns` is the key: unique together and never null, by default the primary key of the
    one mapped class that is selected. Raises `ConfigurationError` for a select that has no
    such pages.
    """

    def __init__(self, select: Select[Any], key: Sequence[InstrumentedAttribute[Any]] = ()) -> None:
        _refuse_what_has_no_pages(select)
        self.columns: tuple[Any, ...] = tuple(key) or _primary_key(select)
        _check_key(self.columns)
        self._select = select
        self._order = tuple_(*self.columns) if len(self.columns) > 1 else self.columns[0]
        self._keys = _only(select, self.columns)
        self.entities = _is_one_entity(select)

    @property
    def names(self) -> str:
        """The names of the key's columns, for people and for comparing."""
        return ", ".join(str(column.key) for column in self.columns)

    def describe(self, key: str) -> str:
        """Return a key for people: `id=5`."""
        pairs = zip(self.columns, decode(key), strict=True)
        return ", ".join(f"{column.key}={value}" for column, value in pairs)

    def rows(self, lower: str | None, upper: str | None) -> Select[Any]:
        """Return the select of whole rows in (lower, upper]."""
        return self._within(self._select, lower, upper).order_by(*self.columns)

    def rows_with_keys(self, lower: str | None, upper: str | None) -> Select[Any]:
        """Return the same with the key's columns behind each row's own."""
        return self.rows(lower, upper).add_columns(*self.columns)

    def keys(self, lower: str | None, upper: str | None) -> Select[Any]:
        """Return the select of the keys in (lower, upper]."""
        return self._within(self._keys, lower, upper).order_by(*self.columns)

    def every(self, n: int, times: int, lower: str | None, upper: str | None) -> Select[Any]:
        """Return the select of each n-th key behind `lower`, so many times at most."""
        number = func.row_number().over(order_by=self.columns).label("key_number")
        page = self.keys(lower, upper).add_columns(number).limit(n * times).subquery()
        *key, count = page.columns
        return select_(*key).where(count % n == 0).order_by(count)

    def last(self) -> Select[Any]:
        """Return the select of the greatest key."""
        return self._keys.order_by(*(column.desc() for column in self.columns)).limit(1)

    def count(self, lower: str | None, upper: str | None) -> Select[Any]:
        """Return the select of the number of keys in (lower, upper]."""
        within = self._within(self._keys, lower, upper).subquery()
        return select_(func.count()).select_from(within)

    def at(self, key: str) -> Select[Any]:
        """Return the select of the one row of a key."""
        return self._select.where(self._order == self._bound(key))

    def _within(self, select: Select[Any], lower: str | None, upper: str | None) -> Select[Any]:
        if lower is not None:
            select = select.where(self._order > self._bound(lower))
        if upper is not None:
            select = select.where(self._order <= self._bound(upper))
        return select

    def _bound(self, key: str) -> ColumnElement[Any]:
        values = [literal(v, c.type) for v, c in zip(decode(key), self.columns, strict=True)]
        return tuple_(*values) if len(values) > 1 else values[0]


def _is_one_entity(select: Select[Any]) -> bool:
    """Whether rows are mapped objects, and not tuples of something."""
    descriptions = select.column_descriptions
    return len(descriptions) == 1 and descriptions[0].get("entity") is descriptions[0].get("expr")


def _only(select: Select[Any], columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """Return the select of these columns: nothing is eagerly loaded, no row is locked."""
    keys = select.with_only_columns(*columns, maintain_column_froms=True)
    keys._with_options = ()  # there is no public way to take options back
    keys._for_update_arg = None
    keys._execution_options = EMPTY_DICT
    return keys


def _refuse_what_has_no_pages(select: Select[Any]) -> None:
    refused = {
        "ORDER BY": select._order_by_clauses,
        "GROUP BY": select._group_by_clauses,
        "DISTINCT": select._distinct,
        "LIMIT": select._has_row_limiting_clause,
    }
    for clause, present in refused.items():
        if present:
            raise ConfigurationError(
                f"a job's select has a {clause}: leave it out, the job orders and cuts by key"
            )


def _primary_key(select: Select[Any]) -> tuple[ColumnElement[Any], ...]:
    descriptions = select.column_descriptions
    entity = descriptions[0].get("entity") if descriptions else None
    if entity is None:
        raise ConfigurationError("a job's select needs a mapped class, or key=(a column, ...)")
    mapper = inspect(entity).mapper
    assert isinstance(mapper, Mapper)
    names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    return tuple(getattr(entity, name) for name in names)


def _check_key(columns: Sequence[ColumnElement[Any]]) -> None:
    """Refuse a key with nulls or duplicates: rows would never be read."""
    inner = [getattr(c, "expression", c) for c in columns]
    known = [c for c in inner if isinstance(getattr(c, "table", None), Table)]
    if len(known) < len(columns):
        return  # of a subquery or an alias: the user's own word has to do
    for column in known:
        if column.nullable:
            raise ConfigurationError(f"the key's column {column.key} may be null: page by another")
    names = {str(column.key) for column in known}
    if not any(unique <= names for unique in _unique_sets(known[0].table)):
        raise ConfigurationError(
            f"({', '.join(sorted(names))}) is not unique: add the primary key to the key"
        )


def _unique_sets(table: Table) -> list[set[str]]:
    unique: list[Any] = [c for c in table.constraints if isinstance(c, UniqueConstraint)]
    unique += [index for index in table.indexes if index.unique]
    return [{str(c.key) for c in found.columns} for found in (table.primary_key, *unique)]
