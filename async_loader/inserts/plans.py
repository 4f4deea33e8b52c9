"""
What is known about a mapper once and for all: can its objects be inserted directly, and how.

A plan is made per mapper and dialect and kept in the mapper's own memo, which SQLAlchemy empties
when the mapping changes. Whatever is not exactly understood here makes the mapper 'stock' with
the reason, which `explain` prints.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Table
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapper

from ._sqlalchemy import counts_versions, ignores_context, orm_defaults
from .column_types import Codec, codec, is_foreign

DRIVERS = frozenset({"asyncpg", "psycopg", "psycopg_async"})


class Level(enum.StrEnum):
    """How the objects of a mapper are inserted, from fastest to slowest."""

    DIRECT = "direct"
    PREFETCH = "prefetch"
    STOCK = "stock"


class FastPathUnsupportedError(Exception):
    """A mapper, table or value that only SQLAlchemy itself inserts rightly."""


class Role(enum.Enum):
    """Where a column's value comes from when the object has none."""

    NONE = enum.auto()  # the insert says NULL
    ABSENT = enum.auto()  # the column is left out: the server has a default
    DEFAULT = enum.auto()  # a Python default
    VERSION = enum.auto()  # the version counter, always ours


@dataclass(frozen=True, slots=True, eq=False)
class ColumnPlan:
    """One column of an insert."""

    column: Column[Any]
    key: str | None  # the attribute, or None for a column that is not mapped
    sql: str
    codec: Codec  # of a type that is not understood: a stand-in that is never used
    role: Role
    evaluates_none: bool  # None is a value of its own, as in JSON
    default: Callable[[], Any] | None = None
    is_callable: bool = False
    origin: object = None  # equal where two mappers' defaults are the same
    reason: str | None = None  # why only SQLAlchemy can send it
    foreign: bool = False  # the application's own code is in its type


@dataclass(frozen=True, slots=True, eq=False)
class Returned:
    """A column that is read back with RETURNING."""

    column: Column[Any]
    key: str
    sql: str


class KeySource(enum.Enum):
    """What fills a primary key that an object does not have."""

    COUNTER = enum.auto()  # SERIAL or IDENTITY: RETURNING, sorted, is the order of the rows
    SERVER = enum.auto()  # a sequence or a server default that must be asked for first
    NOTHING = enum.auto()


@dataclass(slots=True, eq=False)
class TablePlan:
    """How rows of one mapper go into one of its tables."""

    table: Table
    columns: tuple[ColumnPlan, ...]
    keys: tuple[ColumnPlan, ...]
    generated: ColumnPlan | None  # the one key column that the server can fill
    key_source: KeySource
    server_keys: frozenset[str]  # column keys whose absence calls for RETURNING
    returned: tuple[Returned, ...]  # in that case, as far as the rows lack them
    expires: dict[str, str]  # column key to attribute, of server defaults not read back
    equated: tuple[tuple[str, str], ...]  # keys that an inheriting table copies
    refers_to_itself: bool
    name: str  # as SQL
    statements: dict[Any, Any] = field(default_factory=dict)  # by their columns
    processors: dict[Any, Any] = field(default_factory=dict)  # by column and type code

    @property
    def shape(self) -> object:
        """Equal for two mappers whose objects fill the table in the same way."""
        columns = tuple(
            (plan.column, plan.key, plan.role, plan.evaluates_none, plan.origin)
            for plan in self.columns
        )
        expires = tuple(sorted(self.expires.items()))
        returned = tuple((item.column, item.key) for item in self.returned)
        return columns, self.server_keys, expires, returned


@dataclass(slots=True, eq=False)
class MapperPlan:
    """How objects of one mapper are inserted."""

    mapper: Mapper[Any]
    tables: dict[Table, TablePlan]
    identity_keys: tuple[str, ...]
    needs_finalize: bool  # read-only or eagerly loaded attributes remain after the insert
    reason: str | None = None  # why not direct
    level: Level = Level.DIRECT


_MEMO = "async_loader.inserts"


def mapper_plan(mapper: Mapper[Any], dialect: Dialect) -> MapperPlan:
    """Return the plan of a mapper, made at its first use with a dialect."""
    plans: WeakKeyDictionary[Dialect, MapperPlan] = mapper._memo(_MEMO, WeakKeyDictionary)
    plan = plans.get(dialect)
    if plan is None:
        plan = plans[dialect] = _make(mapper, dialect)
    return plan


def listens(mapper: Any) -> str | None:
    """Return the mapper event that somebody listens to and an insert would not tell."""
    dispatch = mapper.dispatch
    if dispatch.before_insert:
        return "has a before_insert listener"
    if dispatch.after_insert:
        return "has an after_insert listener"
    if mapper.class_manager.dispatch.refresh_flush:
        return "has a refresh_flush listener"
    if mapper.class_manager.dispatch.expire:
        # SQLAlchemy tells it also of rows that have nothing to expire but columns unmapped here.
        return "has an expire listener"
    return None


def _make(mapper: Any, dialect: Dialect) -> MapperPlan:
    plan = MapperPlan(mapper, {}, (), needs_finalize=False)
    try:
        _refuse_mapper(mapper, dialect)
        for table, owner in mapper.base_mapper._sorted_tables.items():
            if table in mapper._pks_by_table and table in owner._pks_by_table:
                plan.tables[table] = _table_plan(mapper, owner, table, dialect)
        plan.identity_keys = tuple(prop.key for prop in mapper._identity_key_props)
        _refuse_unfilled_keys(plan)
        plan.needs_finalize = _needs_finalize(mapper, plan)
        plan.reason = next((column.reason for column in _all_columns(plan) if column.reason), None)
        plan.level = Level.PREFETCH if plan.reason else Level.DIRECT
    except FastPathUnsupportedError as error:
        plan.reason = str(error)
        plan.level = Level.STOCK
        plan.tables = {}
    return plan


def _all_columns(plan: MapperPlan) -> Iterator[ColumnPlan]:
    for table in plan.tables.values():
        yield from table.columns


def _refuse_mapper(mapper: Any, dialect: Dialect) -> None:
    if dialect.name != "postgresql" or dialect.driver not in DRIVERS:
        raise FastPathUnsupportedError(f"{dialect.name}+{dialect.driver} is not supported")
    if not mapper.base_mapper.batch:
        raise FastPathUnsupportedError("is mapped with batch=False")
    if not all(isinstance(table, Table) for table in mapper.tables):
        raise FastPathUnsupportedError("is not mapped to plain tables")
    if len(mapper.tables) > sum(1 for _ in mapper.iterate_to_root()):
        raise FastPathUnsupportedError("is mapped to a join")
    if mapper.version_id_col is not None and not counts_versions(mapper):
        # One with a memory would tell in which order, and how often, it is called.
        raise FastPathUnsupportedError("has a version_id_generator of its own, or the server's")


def _refuse_unfilled_keys(plan: MapperPlan) -> None:
    """Keys of an inheriting table have to come from the tables inserted before it."""
    filled: set[str | None] = set()
    for number, table in enumerate(plan.tables.values()):
        keys = {key.key for key in table.keys}
        if number and not keys <= filled:
            raise FastPathUnsupportedError(f"nothing fills the key of {table.table.name}")
        filled |= keys
        filled |= {target for source, target in table.equated if source in filled}


def _needs_finalize(mapper: Any, plan: MapperPlan) -> bool:
    if mapper._readonly_props:
        return True
    if mapper.base_mapper.eager_defaults is not True:
        return False
    # Columns that bring RETURNING about when they are absent; others may be listed for nothing.
    returned = {
        item.key
        for table in plan.tables.values()
        for item in table.returned
        if item.column.key in table.server_keys
    }
    return not mapper._server_default_plus_onupdate_propkeys <= returned


def _table_plan(mapper: Any, owner: Any, table: Table, dialect: Dialect) -> TablePlan:
    keys = mapper._pks_by_table[table]
    if set(keys) != set(table.primary_key):
        raise FastPathUnsupportedError(f"its key is not the primary key of {table.name}")
    if not table.implicit_returning:
        raise FastPathUnsupportedError(f"{table.name} has implicit_returning=False")
    columns = tuple(_columns(mapper, table, dialect))
    generated, source = _generated(columns, table)
    eager = mapper.base_mapper._prefer_eager_defaults(dialect, table)
    properties = mapper._columntoproperty
    preparer: Any = dialect.identifier_preparer
    return TablePlan(
        table=table,
        columns=columns,
        keys=tuple(plan for plan in columns if plan.column.primary_key),
        generated=generated,
        key_source=source,
        server_keys=mapper._server_default_col_keys[table] if eager else frozenset(),
        returned=_returned(mapper, owner, table, dialect) if eager else (),
        expires={
            column.key: properties[column].key
            for column in table.c
            if not column.primary_key and column.server_default is not None and column in properties
        },
        equated=_equated(mapper, table),
        name=str(preparer.format_table(table)),
        refers_to_itself=any(key.column.table is table for key in table.foreign_keys),
    )


def _returned(mapper: Any, owner: Any, table: Table, dialect: Dialect) -> tuple[Returned, ...]:
    """What SQLAlchemy's `return_defaults` names: an empty list means every column."""
    named = owner._server_default_cols[table]
    for column in table.c:
        if column.type._has_column_expression:
            raise FastPathUnsupportedError(f"column {column.name} is read through an expression")
    properties = mapper._columntoproperty
    return tuple(
        Returned(column, properties[column].key, _quoted(column, dialect))
        for column in table.c
        if not column.primary_key and column in properties and (not named or column in named)
    )


def _quoted(column: Column[Any], dialect: Dialect) -> str:
    preparer: Any = dialect.identifier_preparer
    return str(preparer.format_column(column))


def _columns(mapper: Any, table: Table, dialect: Dialect) -> Iterator[ColumnPlan]:
    mapped = {column: key for key, column in mapper._propkey_to_col[table].items()}
    supplied = {row.column: row.value for row in orm_defaults(mapper, table)}
    for column in table.c:
        if column in mapped:
            yield _column(mapper, column, mapped[column], supplied, dialect)
        elif column.primary_key:
            raise FastPathUnsupportedError(f"column {column.name} of its key is not mapped")
        elif column.default is not None:
            yield _column(mapper, column, None, supplied, dialect)


def _column(
    mapper: Any,
    column: Column[Any],
    key: str | None,
    supplied: dict[Any, Any],
    dialect: Dialect,
) -> ColumnPlan:
    table: Any = column.table
    way = codec(column.type, dialect)
    reason = None if way else f"column {column.name} has the type {column.type!r}"
    role, default, is_callable = Role.ABSENT, None, False
    origin: object = id(column.default)
    if column is mapper.version_id_col:
        role, default = Role.VERSION, lambda: mapper.version_id_generator(None)
        origin = mapper.version_id_generator
    elif column in supplied:
        value = supplied[column]
        if hasattr(value, "__clause_element__") or not isinstance(value, _CONSTANTS):
            raise FastPathUnsupportedError(f"column {column.name} has a default of the ORM's own")
        role, default, origin = Role.DEFAULT, lambda: value, (type(value), value)
    elif column.default is not None:
        role, default, is_callable, unclear = _default(column)
        reason = reason or unclear
    elif column.key in mapper._insert_cols_as_none[table]:
        role = Role.NONE
    return ColumnPlan(
        column=column,
        key=key,
        sql=_quoted(column, dialect),
        codec=way or _NO_CODEC,
        role=role,
        evaluates_none=column in mapper._insert_cols_evaluating_none[table],
        default=default,
        is_callable=is_callable,
        origin=origin,
        reason=reason,
        foreign=is_foreign(column.type),
    )


_NO_CODEC = Codec("", None)
_CONSTANTS = (str, int, float, bool, bytes)


def _default(
    column: Column[Any],
) -> tuple[Role, Callable[[], Any] | None, bool, str | None]:
    """Return the role, what makes the value, if it is called, and why it is not understood."""
    default: Any = column.default
    if default.is_scalar:
        return Role.DEFAULT, lambda: default.arg, False, None
    if default.is_callable:
        if ignores_context(default):
            return Role.DEFAULT, lambda: default.arg(None), True, None
        reason = f"the default of column {column.name} asks for its context"
        return Role.DEFAULT, None, True, reason
    if default.is_sequence and column.primary_key:
        return Role.ABSENT, None, False, None
    if column.primary_key:
        raise FastPathUnsupportedError(f"its key {column.name} has a SQL default")
    return Role.ABSENT, None, False, f"column {column.name} has a SQL default"


def _generated(
    columns: tuple[ColumnPlan, ...], table: Table
) -> tuple[ColumnPlan | None, KeySource]:
    """Return the key column that the server can fill, and by what."""
    absent = [plan for plan in columns if plan.column.primary_key and plan.role is Role.ABSENT]
    candidates = [
        plan
        for plan in absent
        if plan.column is table.autoincrement_column or plan.column.server_default is not None
    ]
    if len(candidates) != 1:
        return None, KeySource.NOTHING
    plan = candidates[0]
    column = plan.column
    default: Any = column.default
    unset = default is None or (default.is_sequence and default.optional)
    if column is table.autoincrement_column and unset:
        identity = column.identity
        if column.server_default is None:
            return plan, KeySource.COUNTER
        if identity is not None and not identity._increment_is_negative:
            return plan, KeySource.COUNTER
    return plan, KeySource.SERVER


def _equated(mapper: Any, table: Table) -> tuple[tuple[str, str], ...]:
    pairs = []
    for owner, equated in mapper._table_to_equated[table]:
        for source, target in equated:
            properties = owner._columntoproperty
            pairs.append((properties[source].key, properties[target].key))
    return tuple(pairs)
