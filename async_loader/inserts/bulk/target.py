"""
What rows go into: a table, and what each of its columns does with a row.

Of a mapped class, rows are named by attribute and read as `session.execute(insert(Model), rows)`
reads them: None is the same as nothing, except where it is a value of its own (JSON). Of a Table,
they are named by column key, and None is NULL, as in `connection.execute(insert(table), rows)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Column, Table, inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper

from ...errors import ConfigurationError
from .._sqlalchemy import ignores_context, orm_defaults, polymorphic_attribute
from .given import a_kind


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A column, as rows see it."""

    column: Column[Any]
    key: str | None  # in a row; None for one that a class does not map
    default: Callable[[], Any] | None = None  # makes the value of a row that lacks it
    is_fixed: bool = False  # the default is used whatever a row says: a version counter
    keeps_none: bool = False  # None is sent as a value, not taken for a lack of one
    left_to_sql: str | None = None  # why the value of a row that lacks it is SQLAlchemy's to make


class Target:
    """A table, its fields, and the class that rows are named by, if there is one."""

    def __init__(self, model: Any, mapper: Mapper[Any] | None, table: Table | None) -> None:
        self.model = model
        self.mapper = mapper
        self.name = mapper.class_.__name__ if mapper is not None else str(model)
        self._table = table

    @property
    def table(self) -> Table:
        assert self._table is not None
        return self._table

    @property
    def is_one_table(self) -> bool:
        """False for joined inheritance and the like, which only the ORM takes apart."""
        return self._table is not None

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """All columns in the table's order."""
        if self.mapper is None:
            return tuple(_table_field(column) for column in self.table.c)
        return tuple(_mapped_fields(self.mapper, self.table))

    @cached_property
    def by_key(self) -> Mapping[str, Field]:
        return {field.key: field for field in self.fields if field.key is not None}

    @cached_property
    def keys(self) -> frozenset[str]:
        """What a row may name."""
        if self.is_one_table:
            return frozenset(self.by_key)
        assert self.mapper is not None
        return frozenset(prop.key for prop in self.mapper.column_attrs)

    @cached_property
    def generated(self) -> Column[Any] | None:
        """The one key column that the server fills where a row lacks it."""
        filled = [
            field.column
            for field in self.fields
            if field.column.primary_key
            and field.default is None
            and (
                field.column is self.table.autoincrement_column
                or field.column.server_default is not None
                or field.left_to_sql is not None
            )
        ]
        return filled[0] if len(filled) == 1 else None

    def refuse_made_there(self, keys: Iterable[str]) -> None:
        """Raise ConfigurationError where rows name what the server alone makes."""
        made = sorted(key for key in keys if self.by_key[key].column.computed is not None)
        if made:
            raise ConfigurationError(f"{self.name}.{made[0]} is made by the server: leave it out")

    def names_of(self, length: int) -> tuple[str, ...]:
        """Return what a tuple of that length names: all columns, or all but the server's key."""
        if not self.is_one_table:
            raise ConfigurationError(
                f"the rows of {self.name} lie in several tables: give dicts, not tuples"
            )
        names = tuple(self.by_key)
        without = tuple(key for key in names if self.by_key[key].column is not self.generated)
        if length not in {len(names), len(without)}:
            raise ConfigurationError(
                f"a row of {self.name} has {len(names)} values, or {len(without)} without the "
                f"key that the server makes, not {length}"
            )
        return names if length == len(names) else without


def target_of(model: Any, caller: str = "insert_rows") -> Target:
    """Return what rows of a mapped class or a Table go into; raises ConfigurationError."""
    if isinstance(model, Table):
        return Target(model, None, model)
    try:
        mapper = inspect(model)
    except NoInspectionAvailable:
        mapper = None
    if not isinstance(mapper, Mapper):
        raise ConfigurationError(f"{caller} takes a mapped class or a Table, not {a_kind(model)}")
    table = mapper.local_table
    if not isinstance(table, Table):
        verb, _, _ = caller.partition("_")
        raise ConfigurationError(
            f"{caller} cannot {verb} {mapper.class_.__name__}: it is not mapped to a table"
        )
    return Target(mapper.class_, mapper, table if len(mapper.tables) == 1 else None)


def fields_of(target: Target, given: Any, what: str) -> tuple[Field, ...]:
    """Return the fields of attributes or their names; one alone needs no tuple."""
    several = given if isinstance(given, list | tuple | set | frozenset) else [given]
    fields = []
    for each in several:
        name = each if isinstance(each, str) else getattr(each, "key", None)
        field = target.by_key.get(name) if isinstance(name, str) else None
        if field is None:
            said = name if isinstance(name, str) else a_kind(each)
            raise ConfigurationError(f"{what}= names {said}, which {target.name} does not have")
        fields.append(field)
    return tuple(fields)


def _table_field(column: Column[Any]) -> Field:
    default, left_to_sql = _default(column)
    return Field(column, column.key, default, keeps_none=True, left_to_sql=left_to_sql)


def _mapped_fields(mapper: Mapper[Any], table: Table) -> list[Field]:
    keys = {prop.columns[0]: prop.key for prop in mapper.column_attrs}
    supplied = {row.column: row.value for row in orm_defaults(mapper, table)}
    return [_mapped_field(mapper, column, keys.get(column), supplied) for column in table.c]


def _mapped_field(
    mapper: Any, column: Column[Any], key: str | None, supplied: Mapping[Any, Any]
) -> Field:
    default, left_to_sql = _default(column)
    is_version = column is mapper.version_id_col and mapper.version_id_generator is not False
    if is_version:
        default = lambda: mapper.version_id_generator(None)  # noqa: E731  # as the others are made
    elif key is not None and key == polymorphic_attribute(mapper):
        default = _constant(mapper.polymorphic_identity)
    elif column in supplied and default is None and left_to_sql is None:
        default = _constant(supplied[column])
    return Field(
        column,
        key,
        default,
        is_fixed=is_version,
        keeps_none=column.type.should_evaluate_none,
        left_to_sql=None if default is not None else left_to_sql,
    )


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _default(column: Column[Any]) -> tuple[Callable[[], Any] | None, str | None]:
    """Return what makes the value where a row has none, or why only SQLAlchemy can."""
    default: Any = column.default
    if default is None or default.is_sentinel:
        return None, None
    maker = maker_of(default)
    return maker, None if maker is not None else _why_sql(column, default)


def maker_of(default: Any) -> Callable[[], Any] | None:
    """Return what makes the values of a default or an `onupdate`, if that is Python alone."""
    if default.is_scalar:
        return _constant(default.arg)
    if default.is_callable and ignores_context(default):
        return lambda: default.arg(None)
    return None


def _why_sql(column: Column[Any], default: Any) -> str | None:
    if default.is_callable:
        return f"the default of column {column.name} asks for its context"
    if default.is_sequence:
        # An optional one is the server's: a serial column.
        return None if default.optional else f"column {column.name} takes its value from a Sequence"
    return f"the default of column {column.name} is a SQL expression"
