"""
How a column's values travel in an array parameter.

An allowlist: a type goes direct when its array says exactly what one bound value would. No cast
carries a length or precision, because a cast to `varchar(5)[]` cuts a value in silence where
the assignment raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import types as sqltypes
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

Processor = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Codec:
    """One column's way into an array parameter and out of `unnest`."""

    element: str  # the SQL type of an element of the array
    cast: str  # appended to the unnested column, such as '::json'; mostly nothing
    bind: Processor | None  # what SQLAlchemy would do to one value


# Types in the order in which they are asked, subclasses before their bases.
_PLAIN: list[tuple[type[Any], str]] = [
    (sqltypes.SmallInteger, "SMALLINT"),
    (sqltypes.BigInteger, "BIGINT"),
    (sqltypes.Integer, "INTEGER"),
    (sqltypes.Boolean, "BOOLEAN"),
    (sqltypes.LargeBinary, "BYTEA"),
    (sqltypes.Date, "DATE"),
    (postgresql.INTERVAL, "INTERVAL"),
]


def codec(type_: TypeEngine[Any], dialect: Dialect) -> Codec | None:
    """Return how values of a type travel, or None when only SQLAlchemy knows."""
    if type_._has_bind_expression:
        return None
    implementation = type_.dialect_impl(dialect)
    while isinstance(implementation, sqltypes.TypeDecorator):
        implementation = implementation.impl_instance.dialect_impl(dialect)
    # A user's subclass of a type may do anything; only SQLAlchemy's own are understood.
    if not type(implementation).__module__.startswith("sqlalchemy."):
        return None
    sql = _element_and_cast(implementation, dialect)
    if sql is None:
        return None
    return Codec(sql[0], sql[1], type_._cached_bind_processor(dialect))


def _element_and_cast(type_: Any, dialect: Dialect) -> tuple[str, str] | None:
    if isinstance(type_, sqltypes.Enum):
        return _enum(type_, dialect)
    if isinstance(type_, sqltypes.JSON):
        if dialect.driver != "asyncpg":
            return None  # psycopg wraps each value in an object of its own
        name = "jsonb" if isinstance(type_, postgresql.JSONB) else "json"
        return "TEXT", f"::{name}"
    if isinstance(type_, sqltypes.DateTime):
        return _with_zone("TIMESTAMP", type_), ""
    if isinstance(type_, sqltypes.Time):
        return _with_zone("TIME", type_), ""
    if isinstance(type_, sqltypes.Float):
        return _float(type_, dialect), ""
    if isinstance(type_, sqltypes.Numeric):
        return "NUMERIC", ""
    if isinstance(type_, sqltypes.String):
        return _string(type_)
    if isinstance(type_, sqltypes.Uuid):
        return ("UUID" if type_.native_uuid else "TEXT"), ""
    if type_.__visit_name__ in _OTHERS:
        return None
    for cls, name in _PLAIN:
        if isinstance(type_, cls):
            return name, ""
    return None


# PostgreSQL's own types that share a base class with a plain one.
_OTHERS = {"OID", "REGCLASS", "MONEY", "BIT"}


def _with_zone(name: str, type_: Any) -> str:
    return f"{name} WITH TIME ZONE" if type_.timezone else f"{name} WITHOUT TIME ZONE"


def _float(type_: Any, dialect: Dialect) -> str:
    compiler: Any = dialect.type_compiler_instance
    return str(compiler.process(type_))


def _string(type_: Any) -> tuple[str, str] | None:
    # CHAR pads and cuts, CITEXT and others have operators of their own.
    visit_name = type_.__visit_name__
    if visit_name in {"string", "unicode", "VARCHAR", "NVARCHAR"}:
        return "VARCHAR", ""
    if visit_name in {"text", "unicode_text", "TEXT"}:
        return "TEXT", ""
    return None


def _enum(type_: Any, dialect: Dialect) -> tuple[str, str] | None:
    if not type_.native_enum:
        return "VARCHAR", ""
    if not type_.name:
        return None
    preparer: Any = dialect.identifier_preparer
    # As text, because asyncpg would ask the server what an array of this enum looks like.
    return "TEXT", f"::{preparer.format_type(type_)}"
