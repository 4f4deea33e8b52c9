"""`insert_rows` stores what `insert()` stores, or raises what it raises, on either driver."""

# ruff: noqa: RUF012  # how SQLAlchemy's declarative classes are written

from __future__ import annotations

import datetime as dt
import enum
import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    Boolean,
    Computed,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Identity,
    Integer,
    LargeBinary,
    Numeric,
    Sequence,
    SmallInteger,
    String,
    TypeDecorator,
    func,
    insert,
    text,
)
from sqlalchemy.dialects.postgresql import (
    CIDR,
    CITEXT,
    HSTORE,
    INET,
    INT4RANGE,
    JSONB,
    MACADDR,
    MONEY,
    TSVECTOR,
    Range,
)
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    composite,
    mapped_column,
    orm_insert_sentinel,
    synonym,
)
from sqlalchemy.types import UserDefinedType

from async_loader.inserts import insert_rows
from async_loader.inserts.bulk import loading


class Base(DeclarativeBase):
    pass


class Calls:
    """Numbers the calls of defaults and types."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._numbers = itertools.count(1)

    def __next__(self) -> int:
        return next(self._numbers)


calls, defaults = Calls(), Calls()


class Sealed(TypeDecorator[str]):
    """An encrypting type: the server does it."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return func.md5(bindvalue)


class Numbered(TypeDecorator[str]):
    """A type with a memory, which marks what it is given."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str:
        return f"{next(calls)}:{value}"


class Point(UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "point"


class PointAsText(TypeDecorator[Any]):
    impl = Point
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return func.point(func.split_part(bindvalue, " ", 1).cast(Float), 0)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Letter(enum.StrEnum):
    A = "a"


class Sealing(Base):
    __tablename__ = "sealing"
    id: Mapped[int] = mapped_column(primary_key=True)
    secret = mapped_column(Sealed)
    note: Mapped[str | None]


class Sealings(Base):
    __tablename__ = "sealings"
    id: Mapped[int] = mapped_column(primary_key=True)
    secret = mapped_column(Sealed().with_variant(String(), "sqlite"))


class Marked(Base):
    __tablename__ = "marked"
    id: Mapped[int] = mapped_column(primary_key=True)
    one = mapped_column(Numbered)
    two = mapped_column(Numbered)
    made: Mapped[int] = mapped_column(default=lambda: next(defaults))
    state: Mapped[str | None] = mapped_column(server_default="new")


class Texts(Base):
    __tablename__ = "texts"
    id: Mapped[int] = mapped_column(primary_key=True)
    name = mapped_column(CITEXT)
    tags = mapped_column(HSTORE)
    words = mapped_column(TSVECTOR)
    price = mapped_column(MONEY)
    mac = mapped_column(MACADDR)
    address = mapped_column(INET)
    net = mapped_column(CIDR)
    names = mapped_column(ARRAY(CITEXT))


class Types(Base):
    __tablename__ = "types"
    id: Mapped[int] = mapped_column(primary_key=True)
    small = mapped_column(SmallInteger)
    number = mapped_column(Numeric(10, 2))
    real = mapped_column(Float(24))
    double = mapped_column(Float)
    flag = mapped_column(Boolean)
    short = mapped_column(String(5))
    data = mapped_column(LargeBinary)
    day: Mapped[dt.date | None]
    hour: Mapped[dt.time | None]
    naive: Mapped[dt.datetime | None]
    aware = mapped_column(DateTime(timezone=True))
    lasting: Mapped[dt.timedelta | None]
    key: Mapped[uuid.UUID | None]
    colour = mapped_column(Enum(Colour))
    colours = mapped_column(ARRAY(Enum(Colour)))
    loose = mapped_column(Enum("a", "b", native_enum=False))
    numbers = mapped_column(ARRAY(Integer))
    shorts = mapped_column(ARRAY(String(3)))
    span = mapped_column(INT4RANGE)
    document = mapped_column(JSON)
    binary_document = mapped_column(JSONB(none_as_null=True))


class Drifted(Base):
    """The database's columns are not what the model says."""

    __tablename__ = "drifted"
    id: Mapped[int] = mapped_column(primary_key=True)
    big: Mapped[int | None]
    small: Mapped[int | None]
    number = mapped_column(Numeric(6, 1))
    words: Mapped[str | None]
    naive: Mapped[dt.datetime | None]
    positive: Mapped[int | None]


class Keyed(Base):
    __tablename__ = "keyed"
    id = mapped_column(Integer, Sequence("keyed_seq", start=7, increment=2), primary_key=True)
    name: Mapped[str | None]


class Watched(Base):
    __tablename__ = "watched"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    _sentinel: Mapped[int] = orm_insert_sentinel()


class Always(Base):
    __tablename__ = "always"
    id = mapped_column(Integer, Identity(always=True), primary_key=True)
    name: Mapped[str | None]
    twice: Mapped[str | None] = mapped_column(Computed("name || name"))


class Stated(Base):
    __tablename__ = "stated"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    state: Mapped[str | None] = mapped_column(server_default="new")
    python: Mapped[int | None] = mapped_column(default=5)
    expression: Mapped[str | None] = mapped_column(default=func.lower("SQL"))


class Tree(Base):
    __tablename__ = "tree"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("tree.id"))


class Pair:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __composite_values__(self) -> tuple[int, int]:
        return self.x, self.y


class Versioned(Base):
    __tablename__ = "versioned"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column("version of it")
    place_x: Mapped[int | None] = mapped_column("x")
    place_y: Mapped[int | None] = mapped_column()
    place = composite(Pair, place_x, place_y)
    ordinate = synonym("place_y")
    __mapper_args__ = {"version_id_col": version}


class Animal(Base):
    __tablename__ = "animal"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str | None]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}


class Dog(Animal):
    tricks: Mapped[int | None] = mapped_column(default=3)
    __mapper_args__ = {"polymorphic_identity": "dog"}


class Horse(Animal):
    __tablename__ = "horse"
    id: Mapped[int] = mapped_column(ForeignKey("animal.id"), primary_key=True)
    height: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "horse"}


BEFORE = [
    "CREATE EXTENSION citext",
    "CREATE EXTENSION hstore",
    "CREATE DOMAIN positive AS bigint CHECK (VALUE > 0) DEFAULT 1",
]
AFTER = [
    "ALTER TABLE drifted ALTER big TYPE bigint, ALTER small TYPE smallint,"
    " ALTER number TYPE numeric, ALTER words TYPE citext,"
    " ALTER naive TYPE timestamptz, ALTER positive TYPE positive",
]
NOW = dt.datetime(2024, 5, 6, 7, 8, 9, 123456)
ZONE = dt.timezone(dt.timedelta(hours=5, minutes=30))


@pytest.fixture(autouse=True)
def even_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a list of few rows, too, be looked at for COPY."""
    monkeypatch.setattr(loading, "FEW", 0)


@pytest.fixture(params=["asyncpg", "psycopg_async"])
async def engine(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[AsyncEngine]:
    url = make_url(database_url).set(drivername=f"postgresql+{request.param}")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        for statement in BEFORE:
            await connection.execute(text(statement))
        await connection.run_sync(Base.metadata.create_all)
        for statement in AFTER:
            await connection.execute(text(statement))
    yield engine
    await engine.dispose()


Write = Callable[[AsyncSession, Any, list[Any]], Any]


async def by_insert(session: AsyncSession, model: Any, rows: list[Any]) -> None:
    await session.execute(insert(model), rows)


async def outcome(engine: AsyncEngine, write: Write, model: Any, rows: list[Any]) -> Any:
    """What is in the table after a write that is rolled back, or how it failed."""
    calls.restart()
    defaults.restart()
    table = getattr(model, "__table__", model)
    async with AsyncSession(engine) as session:
        await session.execute(text(f"TRUNCATE {table.name}, animal RESTART IDENTITY CASCADE"))
        await session.execute(text("SELECT setval('keyed_seq', 7, false)"))
        await session.execute(text("SET LOCAL TIME ZONE 'Europe/Berlin'"))
        try:
            await write(session, model, [dict(row) for row in rows])
        except Exception as error:
            orig = getattr(error, "orig", None)
            return type(error), type(orig), getattr(orig, "sqlstate", None)
        found = await session.execute(text(f"SELECT t::text FROM {table.name} t"))
        result = sorted(found.scalars())  # keys tell the order
        await session.commit()
    return result


class Float2(float):
    pass


class Str2(str):
    __slots__ = ()


ROWS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "sealed": (Sealing, [{"secret": "a", "note": "b"}, {"secret": None}, {"secret": "c"}]),
    "sealed_left_out": (Sealing, [{"note": "b"}, {"note": "c"}]),
    "sealed_variant": (Sealings, [{"secret": "a"}, {"secret": "b"}]),
    "memory": (Marked, [{"one": "a", "two": "b"}, {"one": "c", "two": "d"}]),
    "memory_of_mixed_rows": (
        Marked,
        [{"one": "a", "two": "b"}, {"one": "c", "two": "d", "state": "s"}, {"one": "e"}] * 2,
    ),
    "memory_none": (Marked, [{"one": "a", "two": None}, {"one": None, "two": "d"}]),
    "texts": (
        Texts,
        [
            {"name": "A", "tags": {"a": "1"}, "words": "cat", "price": "12.5"},
            {"mac": "08:00:2b:01:02:03", "address": "10.0.0.1", "net": "10.0.0.0/8"},
            {"names": ["A", None, "b,c"]},
        ],
    ),
    "text_types_left_out": (Texts, [{"id": 5}, {"id": 6}]),
    "types": (
        Types,
        [
            {
                "small": 3, "number": Decimal("1.25"), "real": 0.1, "double": 0.1, "flag": True,
                "short": "abc", "data": b"\0x", "day": NOW.date(), "hour": NOW.time(),
                "naive": NOW, "aware": NOW.replace(tzinfo=ZONE), "lasting": dt.timedelta(1, 2),
                "key": uuid.UUID(int=5), "colour": Colour.RED, "loose": "b",
                "numbers": [1, None, 3], "span": Range(1, 5), "document": {"a": [1]},
                "binary_document": ["é"],
            },
            {"document": None, "binary_document": None},
            {"colours": [Colour.RED, Colour.BLUE]},
        ],
    ),
    "odd_strings": (Types, [{"short": s} for s in ("", "\t\n", "\\N", "\\.", "ü€", "a    \0"[:5])]),
    "cut_blanks": (Types, [{"short": "abc      "}]),
    "too_long": (Types, [{"short": "abcdef"}]),
    "cut_in_array": (Types, [{"shorts": ["abcdef", "gh"]}]),
    "bytes_kinds": (Types, [{"data": bytearray(b"a")}, {"data": memoryview(b"b")}, {"data": b"c"}]),
    "int_for_decimal": (Types, [{"number": 5}, {"number": Decimal("1.555")}, {"number": 2.675}]),
    "decimal_for_float": (Types, [{"double": Decimal("0.1")}, {"double": 3}, {"double": 0.1}]),
    "int_for_bool": (Types, [{"flag": 1}, {"flag": False}]),
    "bool_for_int": (Types, [{"small": True}, {"small": 2}]),
    "float_for_int": (Types, [{"small": 1.5}, {"small": 2}]),
    "str_for_int": (Types, [{"small": "7"}, {"small": 2}]),
    "int_for_str": (Types, [{"short": 7}, {"short": "a"}]),
    "subclasses": (Types, [{"double": Float2(1.5), "short": Str2("a")}]),
    "datetime_for_date": (Types, [{"day": NOW}, {"day": NOW.date()}]),
    "date_for_datetime": (Types, [{"naive": NOW.date()}, {"naive": NOW}]),
    "aware_for_naive": (Types, [{"naive": NOW.replace(tzinfo=ZONE)}, {"naive": NOW}]),
    "naive_for_aware": (Types, [{"aware": NOW}, {"aware": NOW.replace(tzinfo=ZONE)}]),
    "str_for_uuid": (Types, [{"key": str(uuid.UUID(int=3))}, {"key": uuid.UUID(int=5)}]),
    "real_underflows": (Types, [{"real": 1e-50}]),
    "real_overflows": (Types, [{"real": 1e39}]),
    "expression": (Types, [{"short": func.lower("A")}]),
    "list_for_str": (Types, [{"short": ["a"]}]),
    "dict_for_str": (Types, [{"short": {"a": 1}}]),
    "str_enum": (Types, [{"short": Letter.A}]),
    "limits": (Types, [{"naive": dt.datetime.min}, {"naive": dt.datetime.max}]),
    "not_a_number": (Types, [{"double": float("nan"), "number": Decimal("NaN")}]),
    "nul": (Types, [{"short": "a\0b"}]),
    "surrogate": (Types, [{"short": "\udc80"}]),
    "wrong_enum": (Types, [{"colour": "GREEN"}]),
    "wrong_flag": (Types, [{"flag": "yes"}]),
    "out_of_range": (Types, [{"small": 40_000}]),
    "drifted_big": (Drifted, [{"big": 5, "words": "A"}, {"big": 2**40}]),
    "drifted_small": (Drifted, [{"small": 40_000}]),
    "drifted_number": (Drifted, [{"number": Decimal("1.25")}, {"number": Decimal("1.35")}]),
    "drifted_zone": (Drifted, [{"naive": NOW}]),
    "domain": (Drifted, [{"positive": 4}, {"big": 1}]),
    "domain_refuses": (Drifted, [{"positive": -4}]),
    "domain_left_out": (Drifted, [{"big": 4}, {"big": 1}]),
    "sequence": (Keyed, [{"name": "a"}, {"name": None}, {}]),
    "sequence_given": (Keyed, [{"id": 1, "name": "a"}, {"id": None, "name": "b"}]),
    "sentinel": (Watched, [{"name": "a"}, {"name": "b"}]),
    "empty": (Stated, [{}, {}]),
    "one_empty": (Stated, [{}]),
    "some_empty": (Watched, [{"name": "a"}, {}, {"name": "b"}]),
    "always_given": (Always, [{"id": 5, "name": "a"}]),
    "always_left_out": (Always, [{"name": "a"}, {"name": "b", "id": None}]),
    "computed_given": (Always, [{"name": "a", "twice": "b"}]),
    "none_for_key": (Watched, [{"id": None, "name": "a"}, {"id": None, "name": "b"}]),
    "none_for_some_keys": (Watched, [{"id": None, "name": "a"}, {"id": 9}, {"name": "b"}]),
    "none_for_default": (
        Stated,
        [{"state": None, "name": "a"}, {"state": "x"}, {"python": None}, {"expression": None}],
    ),
    "given_defaults": (
        Stated, [{"state": "s", "python": 1, "expression": "e"}, {"state": "t", "name": "n"}],
    ),
    "order_of_mixed_rows": (
        Watched, [{"name": "a"}, {"id": 50}, {"name": "c"}, {"id": 51, "name": "d"}, {}],
    ),
    "child_first": (Tree, [{"id": 2, "parent_id": 1}, {"id": 1, "parent_id": None}]),
    "child_last": (Tree, [{"id": 1}, {"id": 2, "parent_id": 1}]),
    "version": (Versioned, [{"place_x": 1}, {"version": 9, "place_x": 2}]),
    "composite": (Versioned, [{"place": Pair(1, 2)}, {"place_x": 3}]),
    "duplicate": (Watched, [{"id": 1}, {"id": 1}]),
    "animal": (Animal, [{"name": "a"}, {"name": "b"}]),
    "dog": (Dog, [{"name": "a"}, {"name": "b", "tricks": None}, {"tricks": 1}]),
    "other_kind": (Dog, [{"name": "a", "kind": "cat"}]),
    "horse": (Horse, [{"name": "a", "height": 2}, {"name": "b", "height": 3}]),
}  # fmt: skip


async def test_stores_what_insert_stores(engine: AsyncEngine) -> None:
    differences = {}
    for case, (model, rows) in ROWS.items():
        expected = await outcome(engine, by_insert, model, rows)
        found = await outcome(engine, insert_rows, model, rows)
        if found != expected:
            differences[case] = (found, expected)
    assert differences == {}
