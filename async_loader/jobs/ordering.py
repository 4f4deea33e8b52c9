"""How the database has a key: types, collations and operators of its columns, and its tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Table, collate, type_coerce
from sqlalchemy.types import UserDefinedType

from .catalog import INTEGERS, ColumnFacts


class Named(UserDefinedType[Any]):
    """A type of the database by its name; what SQLAlchemy knows of it is left out."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        """Return the name as SQL has it."""
        return self.name


@dataclass(frozen=True, slots=True)
class Ordering:
    """How the database has a key: the facts of each of its columns."""

    columns: tuple[ColumnFacts, ...]
    on_sqlite: bool

    @property
    def needs_settings(self) -> bool:
        """Whether the texts of keys depend on a session's settings."""
        return not self.on_sqlite and not all(column.plain for column in self.columns)

    def describe(self) -> str:
        """Return what orders the key, for people and for comparing: `id integer, name text`."""
        return ", ".join(_describe(column) for column in self.columns)


def _describe(column: ColumnFacts) -> str:
    type_ = "integer" if column.type in INTEGERS else column.type
    collation = column.collation.removeprefix("pg_catalog.")
    shown = collation and collation not in ("default", '"default"', "BINARY")
    return f"{column.name} {type_}" + (f" COLLATE {collation}" if shown else "")


@dataclass(frozen=True, slots=True)
class KeyTable:
    """A table whose columns are in a key; `moved_by`: what else may change them."""

    table: Table
    name: str  # resolved: schema.table
    columns: frozenset[str]
    moved_by: str = ""

    @property
    def quoted(self) -> str:
        """The resolved name as SQL has it."""
        schema, _, name = self.name.partition(".")
        return ".".join('"{}"'.format(part.replace('"', '""')) for part in (schema, name))

    def is_named(self, name: str) -> bool:
        """Return whether a name in a statement may be this table's."""
        parts = [part.strip().strip('"') for part in name.split(".")]
        ours = self.name.split(".", 1)
        pairs = zip(reversed(parts), reversed(ours), strict=False)
        return all(left.lower() == right.lower() for left, right in pairs)


_STRATEGIES = ("<", "<=", "=", ">=", ">")  # of a B-tree, in their order


def operate(
    left: ColumnElement[Any], symbol: str, right: ColumnElement[Any], facts: ColumnFacts
) -> ColumnElement[Any]:
    """Return a comparison by the operators that the database orders by."""
    if facts.operators:  # they may lie in no schema of the search path, and have other names
        symbol = f"OPERATOR({facts.operators[_STRATEGIES.index(symbol)]})"
    return left.op(symbol, is_comparison=True)(right)


def raw_column(column: Any, facts: ColumnFacts, on_sqlite: bool) -> ColumnElement[Any]:
    """Return a column without what SQLAlchemy makes of its values and comparisons."""
    raw = type_coerce(column, Named(facts.sql or "RAW"))
    if on_sqlite and any(kind in facts.type for kind in ("CHAR", "CLOB", "TEXT")):
        return collate(raw, facts.collation)
    return raw
