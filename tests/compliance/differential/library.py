"""What the script of an example may use beside SQLAlchemy: nothing in it knows about batching."""

from __future__ import annotations

import enum
from array import array
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CHAR,
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    DateTime,
    Enum,
    FetchedValue,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    PickleType,
    Sequence,
    SmallInteger,
    String,
    Table,
    Text,
    Time,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    and_,
    bindparam,
    func,
    literal,
    null,
    select,
    text,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import (
    BIT,
    CITEXT,
    DOMAIN,
    HSTORE,
    INET,
    INT4MULTIRANGE,
    INT4RANGE,
    JSONB,
    MACADDR,
    MONEY,
    TSTZRANGE,
    TSVECTOR,
    Range,
)
from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.orm import (
    DeclarativeBase,
    backref,
    column_property,
    composite,
    deferred,
    make_transient,
    mapped_column,
    relationship,
    validates,
)

__all__ = [
    "ARRAY",
    "BIT",
    "CHAR",
    "CITEXT",
    "DOMAIN",
    "HSTORE",
    "INET",
    "INT4MULTIRANGE",
    "INT4RANGE",
    "JSON",
    "JSONB",
    "MACADDR",
    "MONEY",
    "TSTZRANGE",
    "TSVECTOR",
    "UTC",
    "UUID",
    "BigInteger",
    "Boolean",
    "Both",
    "CheckConstraint",
    "Color",
    "Column",
    "Computed",
    "Date",
    "DateTime",
    "Decimal",
    "DeclarativeBase",
    "Doubled",
    "Enum",
    "FetchedValue",
    "Float",
    "ForeignKey",
    "ForeignKeyConstraint",
    "Hashed",
    "Identity",
    "Index",
    "Integer",
    "Interval",
    "LargeBinary",
    "Lowered",
    "MetaData",
    "MutableDict",
    "MutableList",
    "Nonced",
    "Numeric",
    "PickleType",
    "Range",
    "Sequence",
    "Shown",
    "SmallInteger",
    "String",
    "Table",
    "Text",
    "Time",
    "TypeDecorator",
    "UniqueConstraint",
    "Uuid",
    "and_",
    "array",
    "backref",
    "bindparam",
    "called",
    "column_property",
    "composite",
    "contextual",
    "counter",
    "date",
    "datetime",
    "deferred",
    "descending",
    "func",
    "literal",
    "make_transient",
    "mapped_column",
    "null",
    "relationship",
    "select",
    "text",
    "time",
    "timedelta",
    "timezone",
    "type_coerce",
    "uuid_counter",
    "validates",
    "words",
]


class Color(enum.Enum):
    """An application's enum."""

    red = "r"
    green = "g"
    blue = "b"


class Memory:
    """Calls of defaults and types, in order, and the counters they use."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.counters: dict[str, int] = {}

    def reset(self) -> None:
        """Forget: the next call of each counter is its first."""
        self.calls = []
        self.counters = {}

    def next(self, name: str) -> int:
        """Count, and remember who did."""
        number = self.counters[name] = self.counters.get(name, 0) + 1
        self.calls.append(f"{name} {number}")
        return number

    def call(self, what: str) -> None:
        """Remember a call."""
        self.calls.append(what)


memory = Memory()


def counter(name: str, start: int = 0, step: int = 1) -> Callable[[], int]:
    """Return a default that counts."""
    return lambda: start + step * memory.next(name)


def descending(name: str) -> Callable[[], int]:
    """Return a default that counts down."""
    return counter(name, 10_000, -1)


def words(name: str) -> Callable[[], str]:
    """Return a default that makes strings, in no alphabetical order."""
    return lambda: f"{(number := memory.next(name)) * 7 % 10}-{number}"


def uuid_counter(name: str) -> Callable[[], UUID]:
    """Return a default that makes UUIDs, in no order of their own."""
    return lambda: UUID(int=(number := memory.next(name)) * 7 % 10 << 64 | number)


def contextual(name: str) -> Callable[[Any], str]:
    """Return a default that looks at the other values of its row."""
    return lambda context: (
        f"{memory.next(name)} {context.get_current_parameters().get('tag')} "
        f"of {len(context.get_current_parameters())}"
    )


def called(name: str, value: Any) -> Callable[[], Any]:
    """Return a default that is a constant, but called."""

    def default() -> Any:
        memory.next(name)
        return value

    return default


class Lowered(TypeDecorator[str]):
    """Changes a value on its way in."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        memory.call(f"lowered {value!r}")
        return value if value is None else value.lower()


class Shown(TypeDecorator[str]):
    """Changes a value on its way out."""

    impl = String
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value if value is None else f"<{value}>"


class Both(TypeDecorator[Any]):
    """Keeps an integer as text, None as a word."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str:
        memory.call(f"both {value!r}")
        return "none" if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value == "none" else int(value)


class Nonced(TypeDecorator[str]):
    """Has a memory: each value that goes in gets a number."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value if value is None else f"{value}#{memory.next('nonce')}"

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value if value is None else value.split("#")[0]


class Hashed(TypeDecorator[str]):
    """Wraps its value in SQL."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return func.md5(bindvalue)


class Doubled(TypeDecorator[int]):
    """Wraps its column in SQL."""

    impl = Integer
    cache_ok = True

    def column_expression(self, column: Any) -> Any:
        return type_coerce(column * 2, self)
