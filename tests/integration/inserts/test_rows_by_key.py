"""Rows that are inserted or changed, updated and deleted by a key, in one statement each."""

# ruff: noqa: RUF012  # how SQLAlchemy's declarative classes are written

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

import pytest
from sqlalchemy import (
    JSON,
    ForeignKey,
    Numeric,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.types import TypeDecorator

from async_loader import delete_rows, insert_rows, update_rows
from async_loader.errors import ConfigurationError
from async_loader.inserts.bulk import source
from async_loader.inserts.bulk.counts import Deleted, Updated, Upserted
from tests.integration.inserts.conftest import DRIVERS, engine_with


class Sealed(TypeDecorator[str]):
    """Turned round by the server, on its way in and out."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return func.reverse(bindvalue)

    def column_expression(self, column: Any) -> Any:
        return func.reverse(column)


class Base(DeclarativeBase):
    pass


class Good(Base):
    __tablename__ = "good"
    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str | None] = mapped_column(unique=True)
    price: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    document: Mapped[Any] = mapped_column(JSON, nullable=True)
    made: Mapped[int] = mapped_column(default=7)
    place: Mapped[str] = mapped_column(server_default="there")
    touched: Mapped[int | None] = mapped_column(onupdate=42)
    seal = mapped_column("se%al", Sealed)
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}


class Reading(Base):
    __tablename__ = "reading"
    sensor: Mapped[int] = mapped_column(primary_key=True)
    hour: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float | None]
    seen_at: Mapped[datetime | None] = mapped_column(onupdate=func.now())
    __table_args__ = {"postgresql_partition_by": "LIST (sensor)"}


class Loose(TypeDecorator[str]):
    """Compared in Python's eyes without regard to case; the database has it otherwise."""

    impl = String
    cache_ok = True

    class comparator_factory(TypeDecorator.Comparator):  # type: ignore[type-arg]  # noqa: N801, PLW1641  # SQLAlchemy's name; its hash stays
        def __eq__(self, other: Any) -> Any:
            return func.lower(self.expr) == func.lower(other)


class Tag(Base):
    __tablename__ = "tag"
    name = mapped_column(Loose, primary_key=True)
    place: Mapped[int | None] = mapped_column()
    __table_args__ = (UniqueConstraint("place", deferrable=True),)


class Ledger(Base):
    __tablename__ = "old"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]
    __table_args__ = {"postgresql_partition_by": "LIST (id)"}


class Joined(Good):
    __tablename__ = "joined_good"
    id: Mapped[int] = mapped_column(ForeignKey("good.id"), primary_key=True)


goods: Any = Good.__table__


@pytest.fixture(params=DRIVERS)
async def engine(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[AsyncEngine]:
    async with engine_with(Base, database_url, request.param) as engine:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE reading_1 PARTITION OF reading DEFAULT"))
        yield engine


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as session:
        yield session


async def stored(session: AsyncSession, *columns: str) -> list[Any]:
    names = ", ".join(columns)
    return list(await session.execute(text(f"SELECT {names} FROM good ORDER BY sku")))  # constants


async def upserted(session: Any, rows: Any, **options: Any) -> Any:
    return await insert_rows(session, Good, rows, on_conflict="update", key="sku", **options)


# -- rows that may be there --------------------------------------------------------------------


async def test_new_changed_and_unchanged_rows(session: AsyncSession) -> None:
    first = [{"sku": f"s{n}", "price": n, "document": {"n": n}} for n in range(4)]
    assert await upserted(session, first) == Upserted(4, 0, 0, [])
    again = [{"sku": f"s{n}", "price": n if n % 2 else n + 10} for n in range(6)]
    assert await upserted(session, again) == Upserted(2, 2, 2, [])
    assert await stored(session, "sku", "price", "document", "version") == [
        ("s0", 10, {"n": 0}, 2),
        ("s1", 1, {"n": 1}, 1),
        ("s2", 12, {"n": 2}, 2),
        ("s3", 3, {"n": 3}, 1),
        ("s4", 14, None, 1),
        ("s5", 5, None, 1),
    ]


async def test_the_same_rows_as_sqlalchemy_stores(session: AsyncSession) -> None:
    rows: list[dict[str, Any]] = [
        {"sku": "a", "price": Decimal("1.50"), "document": [1], "seal": "abc"},
        {"sku": "b", "price": None, "document": {"ä": None}, "seal": None},
        {"sku": "c", "price": Decimal("-0.01"), "document": None, "seal": "%s"},
    ]
    said = []
    for ours in (True, False):
        await session.execute(text("DELETE FROM good"))
        for price in (None, Decimal("2.00")):
            given = [row if price is None else row | {"price": price} for row in rows]
            if ours:
                await upserted(session, given)
            else:
                statement = insert(Good)
                values = {name: statement.excluded[name] for name in ("price", "document")}
                values["se%al"] = statement.excluded["se%al"]
                changing = statement.on_conflict_do_update(index_elements=["sku"], set_=values)
                for row in given:
                    await session.execute(changing, [{**row, "version": 1}])
        said.append(await stored(session, "sku", "price", "document", "made", "place", '"se%al"'))
        said.append(list(await session.execute(select(Good.seal).order_by(Good.sku))))
    assert said[0] == said[2]
    assert said[1] == said[3] == [("abc",), (None,), ("%s",)]


async def test_what_a_row_does_not_give_stays(session: AsyncSession) -> None:
    await upserted(session, [{"sku": "a", "made": 1, "place": "here"}])
    given = [{"sku": "a", "place": None, "price": 3}, {"sku": "b", "place": None}]
    assert await upserted(session, given) == Upserted(1, 1, 0, [])
    assert await stored(session, "sku", "price", "made", "place") == [
        ("a", 3, 1, "here"),
        ("b", None, 7, "there"),
    ]


async def test_what_is_changed_is_said(session: AsyncSession) -> None:
    await upserted(session, [{"sku": "a", "price": 1, "made": 1}])
    row = [{"sku": "a", "price": 10, "made": 10}]
    assert await upserted(session, row, set=["made"]) == Upserted(0, 1, 0, [])
    added = {Good.price: goods.c.price + insert(goods).excluded.price}
    assert await upserted(session, row, set=added) == Upserted(0, 1, 0, [])
    assert await stored(session, "price", "made") == [(11, 10)]


async def test_values_and_sql_for_rows_that_are_there(session: AsyncSession) -> None:
    await upserted(session, [{"sku": "a", "price": 1, "touched": 1, "document": [1]}])
    given = {"touched": None, "made": 5, Good.place: func.upper("x"), "price": goods.c.price + 1}
    rows = [{"sku": "a", "price": 9}, {"sku": "b", "price": 9}]
    assert await upserted(session, rows, set=given) == Upserted(1, 1, 0, [])
    assert await stored(session, "price", "touched", "made", "place", "version") == [
        (2, None, 5, "X", 2),
        (9, None, 7, "there", 1),
    ]


async def test_rows_that_are_left_alone(session: AsyncSession) -> None:
    await upserted(session, [{"sku": "a", "price": 1}])
    rows = [{"sku": "a", "price": 2}, {"sku": "b", "price": 2}]
    done = await insert_rows(session, Good, rows, on_conflict="nothing", returning=[Good.sku])
    assert (done.inserted, done.updated, done.unchanged, done.rows) == (1, 0, 1, [("b",)])
    assert await stored(session, "price") == [(1,), (2,)]


async def test_what_comes_back(session: AsyncSession) -> None:
    await upserted(session, [{"sku": "a", "price": 1}, {"sku": "b", "price": 1}])
    rows = [{"sku": name, "price": 2 if name == "a" else 1} for name in "abc"]
    done = await upserted(session, rows, returning=["sku", "version", "seal"])
    assert (done.inserted, done.updated, done.unchanged) == (1, 1, 1)
    assert sorted((row.sku, row.version) for row in done.rows) == [("a", 2), ("c", 1)]


@pytest.mark.parametrize(
    ("rows", "numbers"),
    [
        (["a", "b", "a"], "1 and 3"),
        (["x", "b", "b", "x"], "1 and 4"),
        (["x", "x"], "1 and 2"),  # x is there, and its first row changes nothing
    ],
)
async def test_a_key_that_comes_twice(session: AsyncSession, rows: Any, numbers: str) -> None:
    await upserted(session, [{"sku": "x", "price": 0}])
    given = [{"sku": name, "price": number} for number, name in enumerate(rows)]
    with pytest.raises(ConfigurationError, match=f"rows {numbers} have the same sku"):
        await upserted(session, given)
    assert await stored(session, "sku", "price") == [("x", 0)]
    await upserted(session, given, duplicates="last")
    assert dict(map(tuple, await stored(session, "sku", "price"))) == {
        "x": 0,
        **{name: number for number, name in enumerate(rows)},
    }


async def test_a_key_that_comes_twice_in_rows_of_two_kinds(session: AsyncSession) -> None:
    rows: list[Any] = [{"sku": "a", "price": 1}, {"sku": "a", "made": 2}]
    with pytest.raises(ConfigurationError, match="rows 1 and 2"):
        await upserted(session, rows)
    assert await upserted(session, rows, duplicates="last") == Upserted(1, 0, 0, [])


async def test_a_key_that_is_null_is_nobodys(session: AsyncSession) -> None:
    rows = [{"sku": None, "price": 1}] * 3
    assert await upserted(session, rows) == Upserted(3, 0, 0, [])
    assert await upserted(session, rows, duplicates="last") == Upserted(3, 0, 0, [])


async def test_rows_of_a_partitioned_table(session: AsyncSession) -> None:
    rows = [(n, 1, 0.5, None) for n in range(5)]
    key = ("sensor", "hour")
    done = await insert_rows(session, Reading, rows, on_conflict="update", key=key)
    assert (done.inserted, done.updated) == (5, 0)
    rows = [(n, 1, 0.5 + (n % 2), None) for n in range(6)]
    done = await insert_rows(session, Reading, rows, on_conflict="update", key=key)
    assert (done.inserted, done.updated, done.unchanged) == (1, 2, 3)


async def test_chunks_and_their_progress(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "CHUNK", 4)
    seen: list[int] = []

    async def given() -> AsyncIterator[dict[str, Any]]:
        for number in range(10):
            await upserted(session, [{"sku": "within", "price": number}])  # a stage of its own
            yield {"sku": f"s{number}", "price": number}

    assert (await upserted(session, given(), progress=seen.append)).inserted == 10
    assert seen == [4, 8, 10]
    assert await insert_rows(session, Good, [{"sku": "p"}], progress=seen.append) == 1
    assert seen == [4, 8, 10, 1]


async def test_nothing_remains_of_a_call_that_fails(engine: AsyncEngine) -> None:
    for options in ({}, {"isolation_level": "AUTOCOMMIT"}):
        async with engine.execution_options(**options).connect() as connection:
            await connection.execute(text("DELETE FROM good"))
            await upserted(connection, [{"id": 1, "sku": "a", "price": 1}])
            with pytest.raises(IntegrityError):
                await upserted(connection, [{"sku": "a", "price": 2}, {"id": 1, "sku": "b"}])
            rows = (await connection.execute(text("SELECT sku, price FROM good"))).all()
            assert rows == [("a", 1)]
            await connection.rollback()


async def test_rows_are_taken_in_the_order_of_their_keys(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await upserted(session, [{"sku": name, "price": 0} for name in "abc"])
        await session.commit()
    async with AsyncSession(engine) as first, AsyncSession(engine) as second:
        await first.execute(text("SELECT FROM good WHERE sku = 'b' FOR UPDATE"))
        pid = (await second.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        rows = [{"sku": name, "price": 1} for name in "cba"]
        waiting = asyncio.create_task(upserted(second, rows))
        waits = text("SELECT cardinality(pg_blocking_pids(:pid))")
        while not (await first.execute(waits, {"pid": pid})).scalar_one():
            await asyncio.sleep(0.01)
        free = text("SELECT sku FROM good ORDER BY sku FOR UPDATE SKIP LOCKED")
        assert (await first.execute(free)).scalars().all() == ["b", "c"]  # a is held, c not yet
        await first.rollback()
        assert (await waiting).updated == 3


async def test_through_other_sessions_and_a_table(session: AsyncSession, engine: Any) -> None:
    table: Table = goods
    row = {"sku": "a", "version": 1}
    done = await insert_rows(session, table, [row], on_conflict="update", key="sku")
    assert done == Upserted(1, 0, 0, [])
    assert await update_rows(session, table, [{"sku": "a", "made": 8}], key="sku") == Updated(
        1, 0, 0
    )
    sync = await session.run_sync(
        lambda own: insert_rows(own, Good, [{"sku": "b"}], on_conflict="nothing")
    )
    assert sync.inserted == 1
    await session.commit()
    url = engine.url.set(drivername="postgresql+psycopg")
    plain = create_engine(url)
    with Session(plain) as own:
        assert delete_rows(own, Good, ["a", "b"], key="sku") == Deleted(2, 0)
        own.commit()
    plain.dispose()


async def test_the_schema_that_holds(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA tenant"))
        await connection.execute(text("CREATE TABLE tenant.good (LIKE public.good INCLUDING ALL)"))
    translated = engine.execution_options(schema_translate_map={None: "tenant"})
    async with AsyncSession(translated) as session:
        assert (await upserted(session, [{"sku": "a"}])).inserted == 1
        assert (await update_rows(session, Good, [{"sku": "a", "made": 1}], key="sku")).updated == 1
        count = await session.scalar(text("SELECT count(*) FROM tenant.good"))
        assert count == 1
        assert await delete_rows(session, Good, ["a"], key="sku") == Deleted(1, 0)
        await session.rollback()


# -- changes and deletes -----------------------------------------------------------------------


async def test_changed_unchanged_and_missing_rows(session: AsyncSession) -> None:
    await insert_rows(session, Good, [{"id": n, "sku": f"s{n}", "price": n} for n in range(4)])
    rows: list[Any] = [{"id": 0, "price": 5}, {"id": 1, "price": 1}, {"id": 9, "price": 1}]
    assert await update_rows(session, Good, rows) == Updated(1, 1, 1)
    rows = [{"id": 2, "price": None}, {"id": 3, "seal": "abc", "made": 1}]
    assert await update_rows(session, Good, rows) == Updated(2, 0, 0)
    assert await stored(session, "price", "made", "touched", "version", '"se%al"') == [
        (5, 7, 42, 2, None),
        (1, 7, None, 1, None),
        (None, 7, 42, 2, None),
        (3, 1, 42, 2, "cba"),
    ]


async def test_the_version_that_a_row_names(session: AsyncSession) -> None:
    await insert_rows(session, Good, [{"id": n, "sku": f"s{n}"} for n in range(2)])
    rows = [{"id": 0, "made": 1, "version": 1}, {"id": 1, "made": 1, "version": 9}]
    assert await update_rows(session, Good, rows) == Updated(1, 0, 1)
    assert await stored(session, "made", "version") == [(1, 2), (7, 1)]


async def test_an_onupdate_in_sql(session: AsyncSession) -> None:
    await insert_rows(session, Reading, [(1, 1, 0.5, None), (1, 2, 0.5, None)])
    rows = [{"sensor": 1, "hour": 1, "value": 1.0}, {"sensor": 1, "hour": 2, "value": 0.5}]
    assert await update_rows(session, Reading, rows) == Updated(1, 1, 0)
    seen = await session.scalars(select(Reading.seen_at.is_not(None)).order_by(Reading.hour))
    assert seen.all() == [True, False]


async def test_no_value_for_a_document(session: AsyncSession) -> None:
    """None is what the type makes of it, as in SQLAlchemy's own UPDATE: JSON's null."""
    said = []
    for ours in (True, False):
        await session.execute(text("DELETE FROM good"))
        await insert_rows(session, Good, [{"id": 1, "sku": "a", "document": [1], "price": 1}])
        row = {"id": 1, "document": None, "price": None, "version": 1}
        if ours:
            await update_rows(session, Good, [row])
        else:
            await session.execute(update(Good), [row])
        said.append(await stored(session, "document::text", "price"))
    assert said == [[("null", None)]] * 2


async def test_keys_are_as_equal_as_the_database_has_them(session: AsyncSession) -> None:
    await insert_rows(session, Tag, [("a", 1), ("A", 2)])
    assert await update_rows(session, Tag, [{"name": "a", "place": 3}]) == Updated(1, 0, 0)
    assert await delete_rows(session, Tag, ["A"]) == Deleted(1, 0)
    assert (await session.execute(text("SELECT * FROM tag"))).all() == [("a", 3)]


async def test_a_key_that_rows_of_an_heir_may_have(session: AsyncSession) -> None:
    await session.execute(text("CREATE TABLE heir () INHERITS (good)"))
    with pytest.raises(ConfigurationError, match="no unique index of id"):
        await update_rows(session, Good, [{"id": 1, "made": 1}])


async def test_deleted_and_missing_rows(session: AsyncSession) -> None:
    await insert_rows(session, Reading, [(n, n, 0.5, None) for n in range(5)])
    keys = [(0, 0), {"sensor": 1, "hour": 1}, (1, 0), (0, 0), (None, 2)]
    assert await delete_rows(session, Reading, keys) == Deleted(2, 2)
    left = await session.scalars(select(Reading.sensor).order_by(Reading.sensor))
    assert left.all() == [2, 3, 4]


# -- what is refused ---------------------------------------------------------------------------

insert_any: Any = insert_rows
REFUSED: list[tuple[Any, str]] = [
    (lambda s: insert_any(s, Good, [], key="sku"), "go with on_conflict="),
    (lambda s: insert_any(s, Good, [], on_conflict="x"), "on_conflict is"),
    (lambda s: insert_rows(s, Good, [], on_conflict="update"), "needs key="),
    (lambda s: upserted(s, [], set=["nothing"]), "set= names nothing, which Good does not"),
    (lambda s: upserted(s, [], returning=[Reading.hour]), "returning= names hour"),
    (lambda s: upserted(s, [], duplicates="first"), "duplicates is"),
    (lambda s: insert_rows(s, Joined, [], on_conflict="nothing"), "several tables"),
    (lambda s: insert_rows(s, Good, [{"made": 1}], on_conflict="update", key="made"), "no unique"),
    (lambda s: insert_rows(s, Tag, [("a", 1)], on_conflict="nothing", key="place"), "deferrable"),
    (lambda s: insert_rows(s, Ledger, [(1, 1)], on_conflict="update", key="id"), "is called"),
    (lambda s: upserted(s, [{"skuu": 1}]), "Good has no column attribute skuu"),
    (lambda s: update_rows(s, Good, [{"made": 1}]), "finds rows by id: name it in each"),
    (lambda s: update_rows(s, Good, [{"made": 1}], key="made"), "no unique index of made"),
    (lambda s: update_rows(s, Good, [{"id": 1}, {"id": 1}]), "rows 1 and 2 have the same id"),
    (lambda s: update_rows(s, Joined, []), "several tables"),
    (lambda s: delete_rows(s, Good, [1], key="made"), "no unique index of made"),
    (lambda s: delete_rows(s, Reading, [1]), "has 2 values .sensor, hour., not 1"),
    (lambda s: delete_rows(s, Good, "abc"), "delete_rows takes an iterable of rows"),
    (
        lambda s: delete_rows(cast("Any", None), Good, []),
        "delete_rows takes a session or a",
    ),
    (lambda s: update_rows(s, int, []), "update_rows takes a mapped class or a Table"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED, ids=[words for _, words in REFUSED])
async def test_what_is_refused_in_a_sentence(session: AsyncSession, call: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        await call(session)
    assert "\n" not in str(caught.value)
