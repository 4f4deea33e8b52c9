"""How types travel in arrays: never with a length, and unknown ones not at all."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import types as sqltypes
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

from async_loader.inserts.column_types import codec
from async_loader.inserts.names import Names

DIALECT: Any = PGDialect_asyncpg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so


class Text(TypeDecorator[str]):
    impl = sqltypes.String(5)
    cache_ok = True


class WithExpression(TypeDecorator[str]):
    impl = sqltypes.String
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return bindparam


class Point(UserDefinedType[str]):
    cache_ok = True


@pytest.mark.parametrize(
    ("type_", "element", "cast"),
    [
        (sqltypes.String(5), "VARCHAR", ""),
        (Text(), "VARCHAR", ""),
        (sqltypes.Numeric(4, 1), "NUMERIC", ""),
        (sqltypes.SmallInteger(), "SMALLINT", ""),
        (sqltypes.BigInteger(), "BIGINT", ""),
        (postgresql.TIMESTAMP(precision=3, timezone=True), "TIMESTAMP WITH TIME ZONE", ""),
        (sqltypes.Enum("a", name="Mood"), '"Mood"', ""),
        (sqltypes.Enum("a", name="mood", schema="x"), "x.mood", ""),
        (sqltypes.Enum("a", native_enum=False), "VARCHAR", ""),
        (sqltypes.JSON(), "JSON", ""),
        (postgresql.JSONB(), "JSONB", ""),
        (sqltypes.Uuid(), "UUID", ""),
        (sqltypes.Uuid(native_uuid=False), "TEXT", ""),
        (sqltypes.Interval(), "INTERVAL", ""),
        (sqltypes.PickleType(), "BYTEA", ""),
    ],
    ids=repr,
)
def test_understood(type_: TypeEngine[Any], element: str, cast: str) -> None:
    found = codec(type_, DIALECT)
    assert found is not None
    names = Names(DIALECT, None)
    assert (found.element_sql(names), found.cast_sql(names)) == (element, cast)


def test_an_enum_in_the_schema_that_a_translation_says() -> None:
    found = codec(sqltypes.Enum("a", name="mood", schema="x"), DIALECT)
    assert found is not None
    assert found.element_sql(Names(DIALECT, {"x": "tenant"})) == "tenant.mood"


def test_psycopg_sends_an_enum_as_text() -> None:
    dialect: Any = PGDialect_psycopg()  # type: ignore[no-untyped-call]  # SQLAlchemy's
    found = codec(sqltypes.Enum("a", name="mood"), dialect)
    assert found is not None
    names = Names(dialect, None)
    assert (found.element_sql(names), found.cast_sql(names)) == ("TEXT", "::mood")


@pytest.mark.parametrize(
    "type_",
    [
        sqltypes.CHAR(3),
        postgresql.ARRAY(sqltypes.Integer),
        postgresql.HSTORE(),
        postgresql.INET(),
        postgresql.MONEY(),
        postgresql.OID(),
        postgresql.BIT(3),
        postgresql.INT4RANGE(),
        postgresql.CITEXT(),
        WithExpression(),
        Point(),
        sqltypes.NullType(),
    ],
    ids=repr,
)
def test_left_to_sqlalchemy(type_: TypeEngine[Any]) -> None:
    assert codec(type_, DIALECT) is None
