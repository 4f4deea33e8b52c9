"""
"Is one of these keys", said as the database takes it best.

`= ANY ($1::INTEGER[])` for asyncpg and psycopg: one text and one prepared statement for any number
of keys, where `IN ($1, $2, ...)` is written anew for each. Every other driver gets SQLAlchemy's IN:
the element decides when it is compiled, so a statement that has it can be kept and run anywhere.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, any_, bindparam
from sqlalchemy import types as sqltypes
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import TypeEngine

from ._sqlalchemy import has_variants

# What the loader calls the keys.
KEYS = "primary_keys"
DRIVERS = frozenset({"asyncpg", "psycopg"})

# Exactly these: an array of them binds each as it would be bound alone, and compares as it does.
_AS_THEY_ARE = frozenset(
    {
        sqltypes.Integer, sqltypes.INTEGER, sqltypes.BigInteger, sqltypes.BIGINT,
        sqltypes.SmallInteger, sqltypes.SMALLINT, sqltypes.Date, sqltypes.DATE,
        sqltypes.DateTime, sqltypes.DATETIME, sqltypes.TIMESTAMP,
    }
)  # fmt: skip
_STRINGS = frozenset(
    {sqltypes.String, sqltypes.VARCHAR, sqltypes.Unicode, sqltypes.Text, sqltypes.TEXT}
)
_UUIDS = frozenset({sqltypes.Uuid, sqltypes.UUID})


def element_type(type_: TypeEngine[Any]) -> TypeEngine[Any] | None:
    """
    Return the type of an array's elements that compare as single values of a type do, or None.

    Without a length: a cast to `varchar(3)[]` would cut a longer key in silence, and find the rows
    of another one.
    """
    exact: Any = type(type_)
    if has_variants(type_):
        return None
    if isinstance(type_, sqltypes.String):
        return exact() if exact in _STRINGS and type_.collation is None else None
    if isinstance(type_, sqltypes.Uuid):
        return type_ if exact in _UUIDS and type_.native_uuid else None
    return type_ if exact in _AS_THEY_ARE else None


class KeyList(ColumnElement[bool]):
    """`column IN (keys)`, by whatever name the keys come when it is executed."""

    __visit_name__ = "key_list"
    inherit_cache = True
    type = sqltypes.Boolean()
    _traverse_internals = [  # noqa: RUF012  SQLAlchemy's form of it
        ("column", InternalTraversal.dp_clauseelement),
        ("array", InternalTraversal.dp_clauseelement),
    ]

    def __init__(self, column: ColumnElement[Any], elements: TypeEngine[Any]) -> None:
        self.column = column
        self.array = bindparam(KEYS, type_=postgresql.ARRAY(elements))

    def self_group(self, against: Any = None) -> Any:  # noqa: ARG002  SQLAlchemy's signature
        """Return itself: it is a condition, also where there are no booleans (`IN (...) = 1`)."""
        return self


def _with_in(element: KeyList, compiler: Any, **options: Any) -> str:
    written: str = compiler.process(element.column.in_(bindparam(KEYS)), **options)
    return written


def _with_any(element: KeyList, compiler: Any, **options: Any) -> str:
    if compiler.dialect.driver not in DRIVERS:
        return _with_in(element, compiler, **options)
    written: str = compiler.process(element.column == any_(element.array), **options)
    return written


compiles(KeyList)(_with_in)
compiles(KeyList, "postgresql")(_with_any)
