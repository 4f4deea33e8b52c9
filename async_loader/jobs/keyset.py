"""
Keyset paging: a select, in the order of a unique key, from behind one key up to another.

A key is kept as the database has it, and compared in the database: on PostgreSQL as the text of
each column (`["5","2026-02-03 04:05:06+00"]`), written under settings of ours that each session
reads alike; on SQLite as the value that is stored. What Python makes of a key, a float of a
numeric or a date of infinity, is in no position.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    column,
    func,
    inspect,
    literal,
    or_,
    tuple_,
    values,
)
from sqlalchemy import select as select_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, LoaderCriteriaOption, Mapper
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnClause, Grouping
from sqlalchemy.types import TypeEngine

from ..database.sqlalchemy_private import lock_of, with_condition, with_only_options, without_lock
from ..errors import ConfigurationError
from .catalog import ColumnFacts
from .movers import Movers
from .ordering import KeyTable, Named, Ordering, operate, raw_column
from .selects import refuse_what_has_no_pages

Key = tuple[Any, ...]
# A select, and what its bounds are: the same statement for each chunk, made once.
Page = tuple[Select[Any], dict[str, Any]]

# Every session reads what is written under these, whatever its own are: years first, intervals
# by ISO 8601, offsets from UTC, all digits.
SETTINGS = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
}


def encode(key: Sequence[Any]) -> str:
    """Return a key as text; equal keys are equal texts. Raises `ConfigurationError`."""
    return json.dumps([_encode_one(value) for value in key], separators=(",", ":"))


def decode(text: str) -> Key:
    """Return the key that `encode` was given, in value and type."""
    return tuple(_decode_one(value) for value in json.loads(text))


def _encode_one(value: Any) -> Any:
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if value is None or not isinstance(value, str | int):
        raise ConfigurationError(
            f"a key of type {type(value).__name__} cannot be kept exactly: page by another column"
        )
    return value


def _decode_one(value: Any) -> Any:
    if isinstance(value, dict):
        ((kind, text),) = value.items()
        return float.fromhex(text) if kind == "float" else bytes.fromhex(text)
    return value


class Keyset:
    """
    The pages of a select.

    `columns` is the key: unique together and never null, by default the primary key of the
    one mapped class that is selected. Raises `ConfigurationError` for a select that has no
    such pages. Statements can be made of it once it is `ordered` as the database orders it.
    """

    def __init__(self, select: Select[Any], key: Sequence[InstrumentedAttribute[Any]] = ()) -> None:
        refuse_what_has_no_pages(select)
        self.columns: tuple[Any, ...] = tuple(key) or _primary_key(select)
        self.elements = [_element(column) for column in self.columns]
        select = _bracketed(select)
        self.joins_collections = False  # eagerly: SQLAlchemy wants its rows made unique
        self.one_each = True  # no two rows are the same object
        self.doubtful = False  # whether the key of an object leads back to its row
        self.select = select
        self.only_keys = _only(select, self.columns)
        self.entities = _is_one_entity(select)
        self.ordering = Ordering((), on_sqlite=False)
        self.tables: tuple[KeyTable, ...] = ()
        self.movers = Movers()
        self.version: ColumnElement[Any] | None = None  # of a row, where it is asked for
        self._pages: dict[tuple[bool, bool, bool], Select[Any]] = {}

    def ordered(self, ordering: Ordering) -> Keyset:
        """Set how the database orders the key, and return this."""
        self.ordering = ordering
        self._pages.clear()
        self._operands = [
            raw_column(column, facts, ordering.on_sqlite)
            for column, facts in zip(self.columns, ordering.columns, strict=True)
        ]
        return self

    @property
    def names(self) -> str:
        """The names of the key's columns, for people."""
        return ", ".join(str(column.key) for column in self.columns)

    @property
    def needs_settings(self) -> bool:
        """Whether what is read as text depends on a session's settings."""
        versioned = self.version is not None and not self.ordering.on_sqlite
        return versioned or self.ordering.needs_settings

    @property
    def identity(self) -> list[Any]:
        """The primary key's columns of the one mapped class."""
        return [_element(column) for column in _primary_key(self.select)]

    @property
    def key(self) -> str:
        """The key's columns and what orders them: a run pages by these to its end."""
        return self.ordering.describe()

    def describe(self, key: str) -> str:
        """Return a key for people: `id=5`."""
        pairs = zip(self.columns, decode(key), strict=True)
        return ", ".join(f"{column.key}={value}" for column, value in pairs)

    def describe_range(self, lower: str | None, upper: str | None) -> str:
        """Return a range of keys for people: `behind id=5 up to id=10`."""
        ends = [("behind", lower), ("up to", upper)]
        told = [f"{word} {self.describe(end)}" for word, end in ends if end is not None]
        return " ".join(told) or "all"

    def rows(self, lower: str | None, upper: str | None, *, keys: bool = False) -> Page:
        """
        Return the select of whole rows in (lower, upper], and its parameters.

        `keys`: with the key, as it is kept, behind each row's own columns, and then its version.
        """
        which = lower is not None, upper is not None, keys
        if which not in self._pages:
            self._pages[which] = self._select_rows(*which)
        ends = [(n, end) for n, end in (("lower", lower), ("upper", upper)) if end is not None]
        return self._pages[which], {
            f"key_{name}_{n}": value for name, end in ends for n, value in enumerate(decode(end))
        }

    def lock_rows(self) -> None:
        """Have the rows locked that are read: those of the class, or of the key's tables."""
        if lock_of(self.select) is None:
            entities = [d["entity"] for d in self.select.column_descriptions if self.entities]
            of = entities or list({element.table for element in self.elements})
            self.select = self.select.with_for_update(key_share=True, of=of)

    def _select_rows(self, lower: bool, upper: bool, keys: bool) -> Select[Any]:
        query = self.select
        for name, symbol, wanted in (("lower", ">", lower), ("upper", "<=", upper)):
            if wanted:
                bounds = [self._bound(bindparam(f"key_{name}_{n}", type_=self._kept_type), f)
                          for n, f in enumerate(self.ordering.columns)]  # fmt: skip
                query = query.where(self._compare(symbol, bounds))
        query = query.order_by(*self._operands)
        return self._with_keys(query) if keys else query

    def _with_keys(self, query: Select[Any]) -> Select[Any]:
        kept = [self._kept(o).label(f"key_{n}") for n, o in enumerate(self._operands)]
        return query.add_columns(
            *kept, *([] if self.version is None else [self.version.label("key_version")])
        )

    def keys(self, lower: str | None, upper: str | None) -> Select[Any]:
        """Return the select of the keys in (lower, upper], as they are kept."""
        page = self._within(self.only_keys, lower, upper).subquery()
        operands = self._of(page)
        return select_(*map(self._kept, operands)).order_by(*operands)

    def every(self, n: int, times: int, lower: str | None, upper: str | None) -> Select[Any]:
        """Return the select of each n-th key behind `lower`, so many times at most."""
        order = self._operands
        number = func.row_number().over(order_by=order).label("key_number")
        within = self._within(self.only_keys, lower, upper)
        page = within.order_by(*order).add_columns(number).limit(n * times).subquery()
        count = page.c.key_number
        kept = map(self._kept_safely, self._of(page), self.ordering.columns)
        return select_(*kept).where(count % n == 0).order_by(count)

    def last(self) -> Select[Any]:
        """Return the select of the greatest key."""
        greatest = (operand.desc() for operand in self._operands)
        page = self.only_keys.order_by(*greatest).limit(1).subquery()
        return select_(*map(self._kept_safely, self._of(page), self.ordering.columns))

    def count(self, lower: str | None, upper: str | None) -> Select[Any]:
        """Return the select of the number of keys in (lower, upper]."""
        within = self._within(self.only_keys, lower, upper).subquery()
        return select_(func.count()).select_from(within)

    def base_count(self, lower: str | None, upper: str | None) -> Select[Any] | None:
        """Return the select of how many rows of the key's one table are in (lower, upper]."""
        if len(self.tables) != 1:
            return None
        table, facts = self.tables[0].table, self.ordering.columns
        operands = [raw_column(table.c[e.key], f, self.ordering.on_sqlite)
                    for e, f in zip(self.elements, facts, strict=True)]  # fmt: skip
        query = select_(func.count()).select_from(table)
        if lower is not None:
            query = query.where(self._compare(">", self._bounds(lower), operands))
        if upper is not None:
            query = query.where(self._compare("<=", self._bounds(upper), operands))
        return query.execution_options(**self.only_keys.get_execution_options())

    def one_row(self) -> Select[Any]:
        """Return the select of any one row, which is not locked."""
        return without_lock(self.rows(None, None)[0].limit(1))

    def found_again(
        self, lower: str | None, upper: str | None, identities: Sequence[Any]
    ) -> Select[Any]:
        """Return the select of how many rows in (lower, upper], and in all, Python's keys find."""
        mapper = inspect(self.select.column_descriptions[0]["entity"]).mapper
        # Each value as the mapped type sends it, as a flush does: `$1::INTEGER` of a numeric.
        columns = [column(f"key_{n}", c.type) for n, c in enumerate(mapper.primary_key)]
        asked = values(*columns, name="asked").data(list(identities))

        def is_asked(own: Sequence[Any]) -> ColumnElement[bool]:
            same = (mine == theirs for mine, theirs in zip(own, asked.c, strict=True))
            return select_(literal(1)).select_from(asked).where(*same).exists()

        own = _primary_key(self.select)
        here = self._within(self.only_keys, lower, upper).where(is_asked(own))
        every = select_(literal(1)).select_from(mapper.persist_selectable)
        every = every.where(is_asked(mapper.primary_key))
        counts = (
            select_(func.count()).select_from(found.subquery()).scalar_subquery()
            for found in (here, every)
        )
        return select_(*counts).execution_options(**self.only_keys.get_execution_options())

    def only_keys_of(self, executed: Select[Any]) -> Select[Any]:
        """Return the select of the keys of all rows, of one that a session has made of ours."""
        return _only(executed, self.columns).limit(None)

    def at(self, key: str, *, keys: bool = False) -> Page:
        """Return the select of the one row of a key, and no parameters; `keys`: as in `rows`."""
        row = self.select.where(self.is_at(key))
        return (self._with_keys(row) if keys else row), {}

    def is_at(self, key: str) -> ColumnElement[Any]:
        """Return the condition that a row has a key."""
        return self._compare("=", self._bounds(key))

    def _of(self, page: Any) -> list[ColumnElement[Any]]:
        """Return the key's columns as a subquery has them."""
        return [
            raw_column(column, facts, self.ordering.on_sqlite)
            for column, facts in zip(page.c, self.ordering.columns, strict=False)
        ]

    def _kept(self, operand: ColumnElement[Any]) -> ColumnElement[Any]:
        return operand if self.ordering.on_sqlite else cast(operand, Text)

    def _kept_safely(self, operand: ColumnElement[Any], facts: ColumnFacts) -> ColumnElement[Any]:
        """Return it as it is kept, or null where the database would read another value."""
        if self.ordering.on_sqlite:
            return operand
        text = cast(operand, Text)
        return case((operate(operand, "=", cast(text, operand.type), facts), text))

    def _within(self, select: Select[Any], lower: str | None, upper: str | None) -> Select[Any]:
        if lower is not None:
            select = select.where(self._compare(">", self._bounds(lower)))
        if upper is not None:
            select = select.where(self._compare("<=", self._bounds(upper)))
        return select

    def _compare(
        self,
        symbol: str,
        bounds: Sequence[ColumnElement[Any]],
        operands: Sequence[ColumnElement[Any]] = (),
    ) -> ColumnElement[Any]:
        """Return the condition that rows' keys are in this relation to a key, as one."""
        operands = operands or self._operands
        facts = self.ordering.columns
        if len(bounds) == 1:
            return operate(operands[0], symbol, bounds[0], facts[0])
        if not any(column.operators for column in facts):
            return tuple_(*operands).op(symbol, is_comparison=True)(tuple_(*bounds))
        return self._compare_in_turn(symbol, operands, bounds)

    def _compare_in_turn(
        self,
        symbol: str,
        operands: Sequence[ColumnElement[Any]],
        bounds: Sequence[ColumnElement[Any]],
    ) -> ColumnElement[Any]:
        """Return the same of columns whose operators are in several schemas."""
        parts = list(zip(operands, bounds, self.ordering.columns, strict=True))
        equal = [operate(left, "=", right, facts) for left, right, facts in parts]
        ways = [
            and_(*equal[:n], operate(left, symbol.rstrip("="), right, facts))
            for n, (left, right, facts) in enumerate(parts)
            if symbol != "="
        ]
        return or_(*ways, and_(*equal)) if "=" in symbol else or_(*ways)

    def _bounds(self, key: str) -> list[ColumnElement[Any]]:
        """Return a key's columns as a statement has them."""
        return [
            self._bound(literal(value, self._kept_type), facts)
            for value, facts in zip(decode(key), self.ordering.columns, strict=True)
        ]

    def _bound(self, kept: ColumnElement[Any], facts: ColumnFacts) -> ColumnElement[Any]:
        return kept if self.ordering.on_sqlite else cast(kept, Named(facts.sql))

    @property
    def _kept_type(self) -> TypeEngine[Any]:
        return Named("RAW") if self.ordering.on_sqlite else Text()


class _Brackets(Grouping[bool]):
    """Parentheses around what a user wrote, which may end in a comment."""

    inherit_cache = True


@compiles(_Brackets)
def _in_brackets(element: _Brackets, compiler: SQLCompiler, **options: Any) -> str:
    return f"({compiler.process(element.element, **options)}\n)"


def _bracketed(select: Select[Any]) -> Select[Any]:
    """
    Return a select whose conditions are one, to which the key's are added.

    SQLAlchemy puts no parentheses around a text: of `a OR b` the key would go with b alone.
    """
    if select.whereclause is None:
        return select
    return with_condition(select, _Brackets(select.whereclause))


def _element(given: Any) -> Any:
    """Return the column of an attribute; raises `ConfigurationError` for one that has none."""
    element = given.__clause_element__() if hasattr(given, "__clause_element__") else given
    if not isinstance(element, ColumnClause) or element.is_literal:
        raise ConfigurationError(
            f"a key is of columns, as key=(Song.id,), and {given} is none: it has no unique index, "
            "or a direction"
        )
    return element


def _is_one_entity(select: Select[Any]) -> bool:
    """Whether rows are mapped objects, and not tuples of something."""
    descriptions = select.column_descriptions
    return len(descriptions) == 1 and descriptions[0].get("entity") is descriptions[0].get("expr")


def _only(select: Select[Any], columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """Return the select of these columns: nothing is eagerly loaded, no row is locked."""
    keys = without_lock(select.with_only_columns(*columns, maintain_column_froms=True))
    return with_only_options(keys, LoaderCriteriaOption, ["schema_translate_map"])


def _primary_key(select: Select[Any]) -> tuple[ColumnElement[Any], ...]:
    descriptions = select.column_descriptions
    entity = descriptions[0].get("entity") if descriptions else None
    if entity is None:
        raise ConfigurationError("a job's select needs a mapped class, or key=(a column, ...)")
    mapper = inspect(entity).mapper
    assert isinstance(mapper, Mapper)
    names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    return tuple(getattr(entity, name) for name in names)
