"""Keys of every type are found as SQLAlchemy finds them, also where they go as an array."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import CHAR, Column, ForeignKey, Table, func, inspect, select, text
from sqlalchemy import types as t
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, registry, relationship, selectinload

from async_loader import enable_fast_paths
from tests.integration.reads.conftest import DRIVERS, engine_of, statements_of

mapped = registry()


class OwnSession(Session):
    """For which alone they are on."""


class Color(enum.StrEnum):  # SQLAlchemy 2.0 sorts keys
    RED = "r"
    GREEN = "g"


class Prefixed(t.TypeDecorator[str]):
    impl = t.String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else f"x-{value}"

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value[2:]


class Lower(t.UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **options: Any) -> str:
        return "VARCHAR"

    def bind_expression(self, bindvalue: Any) -> Any:
        return func.lower(bindvalue, type_=t.String)


@dataclass
class Case:
    """Keys of a type; their column is of that type unless it is another in the database."""

    type_: Any
    keys: list[Any]
    any_: bool = False
    column: str | None = None
    models: Any = field(default=None, repr=False)


TEXTS = ["a", "b'c", '{x,"y\\}', "", "NULL", "null", "ü€"]
UUIDS = [UUID(int=i) for i in (3, 1, 2)]
STAMPS = [dt.datetime(2020, 1, i, 3, 4, 5, 678) for i in (3, 1, 2)]
CASES = {
    "integer": Case(t.Integer(), [3, 1, 2], any_=True),
    "bigint": Case(t.BigInteger(), [2**40, 1, 2**62], any_=True),
    "smallint": Case(t.SmallInteger(), [3, 1, 2], any_=True),
    "integer_in_bigint": Case(t.Integer(), [3, 1], any_=True, column="bigint"),
    "integer_in_numeric": Case(t.Integer(), [3, 1], any_=True, column="numeric"),
    "string": Case(t.String(), TEXTS, any_=True),
    "varchar": Case(t.String(10), ["a", "bb", "c" * 10], any_=True),
    "longer_than_its_type": Case(t.String(3), ["abcd", "abce"], any_=True, column="text"),
    "text": Case(t.Text(), TEXTS, any_=True),
    "string_in_char": Case(t.String(), ["a    ", "ccccc"], any_=True, column="char(5)"),
    "string_in_citext": Case(t.String(), ["Ab", "cD"], any_=True, column="citext"),
    "string_in_uuid": Case(t.String(), [str(UUIDS[0])], any_=True, column="uuid"),
    "string_in_enum": Case(t.String(), ["x", "y"], any_=True, column="letter"),
    "uuid": Case(t.Uuid(), UUIDS, any_=True),
    "uuid_as_text": Case(t.Uuid(as_uuid=False), [*map(str, UUIDS)], any_=True),
    "uuid_not_native": Case(t.Uuid(native_uuid=False), UUIDS),
    "date": Case(t.Date(), [dt.date(2020, 1, i) for i in (3, 1, 2)], any_=True),
    "datetime": Case(t.DateTime(), STAMPS, any_=True),
    "datetime_tz": Case(
        t.DateTime(timezone=True), [one.replace(tzinfo=dt.UTC) for one in STAMPS], any_=True
    ),
    "char": Case(CHAR(5), ["a", "bb", "ccccc"]),
    "citext": Case(postgresql.CITEXT(), ["Ab", "cD"]),
    "collated": Case(t.String(collation="C"), ["a", "B"]),
    "enum": Case(t.Enum(Color, name="color"), list(Color)),
    "enum_as_text": Case(t.Enum(Color, native_enum=False, name="color_text"), list(Color)),
    "numeric": Case(t.Numeric(12, 2), [Decimal("1.10"), Decimal("3.5")]),
    "double": Case(t.Double(), [0.1, 1e300]),
    "boolean": Case(t.Boolean(), [True, False]),
    "bytes": Case(t.LargeBinary(), [b"a", b"\x00\xff", b""]),
    "inet": Case(postgresql.INET(), ["10.0.0.1", "10.0.0.2"]),
    "decorated": Case(Prefixed(), ["a", "b"]),
    "with_a_bind_expression": Case(Lower(), ["a", "b"]),
    "variant": Case(
        t.String().with_variant(t.Uuid(as_uuid=False), "postgresql"), [*map(str, UUIDS)]
    ),
}


def _models(name: str, case: Case) -> Any:
    key: Any = Column("id", case.type_, primary_key=True, autoincrement=False)
    owners = Table(f"owner_{name}", mapped.metadata, key)
    things = Table(
        f"thing_{name}",
        mapped.metadata,
        Column("id", t.Integer, primary_key=True),
        Column("owner_id", case.type_, ForeignKey(owners.c.id), nullable=True),
    )
    owner, thing = type(f"Owner_{name}", (), {}), type(f"Thing_{name}", (), {})
    mapped.map_imperatively(
        owner, owners, properties={"things": relationship(thing, back_populates="owner")}
    )
    mapped.map_imperatively(
        thing, things, properties={"owner": relationship(owner, back_populates="things")}
    )
    return owner, thing


for _name, _case in CASES.items():
    _case.models = _models(_name, _case)


async def _fill(url: str) -> None:
    engine = engine_of(url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE EXTENSION citext"))
        await connection.execute(text("CREATE TYPE letter AS ENUM ('x', 'y')"))
        await connection.run_sync(mapped.metadata.create_all)
        for name, case in CASES.items():
            if case.column is not None:
                foreign = f"thing_{name}_owner_id_fkey"
                for change in (
                    f"ALTER TABLE thing_{name} DROP CONSTRAINT {foreign}",
                    f"ALTER TABLE owner_{name} ALTER id TYPE {case.column} USING id::{case.column}",
                    f"ALTER TABLE thing_{name} ALTER owner_id TYPE {case.column} "
                    f"USING owner_id::{case.column}",
                ):
                    await connection.execute(text(change))
        for name, case in CASES.items():
            await _insert(connection, name, case)
    await engine.dispose()


async def _insert(connection: Any, name: str, case: Case) -> None:
    owner, thing = (inspect(model).local_table for model in case.models)
    if case.column in {"uuid", "letter"}:  # neither takes a text
        for number, key in enumerate(case.keys):
            await connection.execute(text(f"INSERT INTO owner_{name} VALUES ('{key}')"))
            await connection.execute(text(f"INSERT INTO thing_{name} VALUES ({number}, '{key}')"))
        return
    await connection.execute(owner.insert(), [{"id": key} for key in case.keys])
    rows = [{"id": i, "owner_id": key} for i, key in enumerate([*case.keys, *case.keys, None])]
    await connection.execute(thing.insert(), rows[1:])


@pytest.fixture(scope="module", autouse=True)
def filled(read_url: str) -> None:
    asyncio.run(_fill(read_url))


async def _read(engine: AsyncEngine, case: Case) -> Any:
    """Both ways; or the SQLSTATE, where the database does not compare text with such a column."""
    owner, thing = case.models
    try:
        async with AsyncSession(engine, sync_session_class=OwnSession) as session:
            owners = await session.scalars(select(owner).options(selectinload(owner.things)))
            found = {repr(one.id): sorted(child.id for child in one.things) for one in owners}
        async with AsyncSession(engine, sync_session_class=OwnSession) as session:
            asked = select(thing).options(selectinload(thing.owner)).order_by(thing.id)
            return found, [(o.id, o.owner and o.owner.id) for o in await session.scalars(asked)]
    except DBAPIError as error:
        return type(error), re.sub(r"\[SQL.*", "", str(getattr(error.orig, "sqlstate", "")))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", CASES)
async def test_keys_are_found_alike(read_url: str, driver: str, name: str) -> None:
    case = CASES[name]
    engine = engine_of(read_url, driver)
    stock = await _read(engine, case)
    enable_fast_paths(OwnSession)
    statements = statements_of(engine)
    for _ in range(3):
        assert await _read(engine, case) == stock
    await engine.dispose()
    assert any("= ANY" in statement for statement in statements) == case.any_
