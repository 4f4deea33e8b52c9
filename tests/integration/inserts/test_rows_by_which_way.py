"""COPY where it gives what INSERT gives, and INSERT where the table or the connection differs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import Column, Enum, ForeignKey, MetaData, Table, event, insert, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from async_loader.inserts import explain, insert_rows
from async_loader.inserts.bulk import catalogue, copying, loading


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    total: Mapped[int | None]


class Logged(Base):
    __tablename__ = "logged"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]


class Document(Base):
    __tablename__ = "document"
    id: Mapped[int] = mapped_column(primary_key=True)
    data = mapped_column(JSONB)


class Stated(Base):
    __tablename__ = "stated"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str | None] = mapped_column(server_default="new")


class Parent(Base):
    __tablename__ = "parent"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("parent.id"))


@pytest.fixture(autouse=True)
def even_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a list of few rows, too, be looked at for COPY."""
    monkeypatch.setattr(loading, "FEW", 0)


@pytest.fixture(params=["asyncpg", "psycopg_async"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def engine(driver: str, database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(make_url(database_url).set(drivername=f"postgresql+{driver}"))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as session:
        yield session


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each COPY."""
    seen: list[int] = []

    def watched(connection: Any, table: str, columns: list[str], records: Any) -> None:
        copying.copy(connection, table, columns, records)
        seen.append(len(records))

    monkeypatch.setattr(loading, "copy", watched)
    return seen


BODY = "RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} END $$"
LOG = "INSERT INTO logged (what) SELECT TG_OP || count(*) FROM item; RETURN NEW;"
COUNTING = (
    "CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM item'"
)
PARTS = [
    "DROP TABLE item",
    "CREATE TABLE item (id serial, name text, total int) PARTITION BY LIST (total)",
    "CREATE TABLE item_1 PARTITION OF item DEFAULT",
]


def trigger(when: str, body: str = LOG, on: str = "item") -> list[str]:
    return [
        f"CREATE FUNCTION noticed() {BODY.format(body)}",
        f"CREATE TRIGGER noticing {when} INSERT ON {on} {{}} EXECUTE FUNCTION noticed()",
    ]


ROW, STATEMENT = "FOR EACH ROW", "FOR EACH STATEMENT"
TABLES: dict[str, tuple[list[str], bool]] = {
    "plain": ([], True),
    "partitioned": (PARTS, True),
    "unlogged": (["ALTER TABLE item SET UNLOGGED"], True),
    "update_trigger": (
        [
            f"CREATE FUNCTION noticed() {BODY.format(LOG)}",
            "CREATE TRIGGER noticing AFTER UPDATE ON item EXECUTE FUNCTION noticed()",
        ],
        True,
    ),
    "after_row": ([s.format(ROW) for s in trigger("AFTER")], False),
    "before_row": ([s.format(ROW) for s in trigger("BEFORE")], False),
    "statement": ([s.format(STATEMENT) for s in trigger("AFTER")], False),
    "partition_trigger": (PARTS + [s.format(ROW) for s in trigger("AFTER", on="item_1")], False),
    "rule": (
        ["CREATE RULE r AS ON INSERT TO item DO ALSO INSERT INTO logged (what) VALUES (NEW.name)"],
        False,
    ),
    "instead_rule": (["CREATE RULE r AS ON INSERT TO item DO INSTEAD NOTHING"], False),
    "view": (
        ["ALTER TABLE item RENAME TO items", "CREATE VIEW item AS SELECT * FROM items"],
        False,
    ),
    "instead_of": (
        [
            "DROP TABLE item",
            "CREATE VIEW item AS SELECT 1 AS id, ''::text AS name, 1 AS total",
            *(
                s.format(ROW)
                for s in trigger(
                    "INSTEAD OF", "INSERT INTO logged (what) VALUES (NEW.name); RETURN NEW;"
                )
            ),
        ],
        False,
    ),
    "check": ([COUNTING, "ALTER TABLE item ADD CHECK (total < 5 - counted())"], False),
    "default": ([COUNTING, "ALTER TABLE item ALTER id SET DEFAULT counted()"], False),
    "clock": (["ALTER TABLE item ALTER name SET DEFAULT now()::text"], True),
    "hidden_default": (
        [COUNTING, "ALTER TABLE item ADD hidden bigint DEFAULT counted()"],
        False,
    ),
    "citext": (["CREATE EXTENSION citext", "ALTER TABLE item ALTER name TYPE citext"], False),
}


async def everything(session: AsyncSession) -> list[list[str]]:
    found = []
    for name in ("item", "logged"):
        rows = await session.execute(text(f"SELECT t::text FROM {name} t"))
        found.append(list(rows.scalars()))
    return found


@pytest.mark.parametrize("kind", TABLES)
async def test_tables_that_show_how_rows_came(
    session: AsyncSession, copies: list[int], kind: str
) -> None:
    statements, by_copy = TABLES[kind]
    for statement in statements:
        await session.execute(text(statement))
    await session.execute(text("SAVEPOINT made"))
    rows = [{"name": f"n{i}", "total": i} for i in range(3)]
    seen = []
    for write in (
        lambda: session.execute(insert(Item), rows),
        lambda: insert_rows(session, Item, rows),
    ):
        await write()
        seen.append(await everything(session))
        await session.execute(text("ROLLBACK TO made"))
        await session.execute(
            text("SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'")
        )
    assert seen[1] == seen[0]
    assert copies == ([3] if by_copy else [])


async def test_row_level_security(session: AsyncSession, copies: list[int]) -> None:
    """Rows that a policy allows go in, even those that their writer may not see."""
    name = f"writer_{await session.scalar(text('SELECT pg_backend_pid()'))}"
    for statement in (
        f"CREATE ROLE {name}",
        f"GRANT INSERT ON item TO {name}",
        f"GRANT USAGE ON SEQUENCE item_id_seq TO {name}",
        "ALTER TABLE item ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY i ON item FOR INSERT WITH CHECK (total < 5)",
        f"SET LOCAL ROLE {name}",
    ):
        await session.execute(text(statement))
    assert await insert_rows(session, Item, [{"name": "a", "total": 1}]) == 1
    with pytest.raises(ProgrammingError, match="row-level security policy"):
        async with session.begin_nested():
            await insert_rows(session, Item, [{"name": "b", "total": 1}, {"total": 7}])
    await session.execute(text("RESET ROLE"))
    assert (await session.scalars(select(Item.name))).all() == ["a"]
    assert copies == []
    assert "row-level security" in explain(Item, session)


async def test_few_rows_are_not_worth_a_question(
    session: AsyncSession, copies: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "FEW", 3)
    asked: list[Any] = []
    ask = catalogue.ask

    def asking(*arguments: Any) -> Any:
        asked.append(arguments)
        return ask(*arguments)

    monkeypatch.setattr(catalogue, "ask", asking)
    await insert_rows(session, Item, [{"name": "a"}] * 3)
    assert (copies, len(asked)) == ([], 0)
    await insert_rows(session, Item, [{"name": "a"}] * 4)
    assert (copies, len(asked)) == ([4], 1)
    await insert_rows(session, Item, [{"name": "a"}, {"total": 1}, {"name": None}])
    assert (copies, len(asked)) == ([4, 3], 2)
    assert (await session.scalars(select(Item.name))).all() == [*"aaaaaaaa", None, None]


async def test_a_trigger_made_between_two_calls(session: AsyncSession, copies: list[int]) -> None:
    await insert_rows(session, Item, [{"name": "a"}])
    for statement in TABLES["after_row"][0]:
        await session.execute(text(statement))
    await insert_rows(session, Item, [{"name": "b"}, {"name": "c"}])
    assert (await session.scalars(select(Logged.what))).all() == ["INSERT2", "INSERT3"]
    assert copies == [1]


async def test_rows_in_order_where_the_server_fills_some(
    session: AsyncSession, copies: list[int]
) -> None:
    """The keys are in the order of the rows, in two COPYs whatever their number."""
    rows = [{"state": f"s{i}"} if i % 2 else {} for i in range(1000)]
    assert await insert_rows(session, Stated, [*rows, {"id": 5000, "state": "x"}]) == 1001
    found = (await session.scalars(select(Stated.state).order_by(Stated.id))).all()
    assert found == [f"s{i}" if i % 2 else "new" for i in range(1000)] + ["x"]
    assert sorted(copies) == [500, 501]


async def test_keys_that_may_not_be_drawn(session: AsyncSession, copies: list[int]) -> None:
    await session.execute(text("ALTER TABLE stated ALTER id SET DEFAULT -nextval('stated_id_seq')"))
    await insert_rows(session, Stated, [{"state": "a"}, {}, {"state": "b"}])
    found = (await session.scalars(select(Stated.state).order_by(Stated.id.desc()))).all()
    assert found == ["a", "new", "b"]
    assert copies == []


async def test_a_column_whose_type_changes(
    engine: AsyncEngine, driver: str, copies: list[int]
) -> None:
    """Four bytes of an integer are not read as those of a real on a connection that knew it."""
    async with AsyncSession(engine) as session:
        await insert_rows(session, Item, [{"total": 1}])
        await session.commit()
        for new, stored in (("real", "2"), ("bigint", "2"), ("text", "2"), ("integer", "2")):
            async with engine.begin() as migration:
                await migration.execute(
                    text(f"ALTER TABLE item ALTER total TYPE {new} USING total::{new}")
                )
            assert await insert_rows(session, Item, [{"total": 2}]) == 1
            last = text("SELECT total::text FROM item ORDER BY id DESC LIMIT 1")
            assert await session.scalar(last) == stored
            await session.commit()
    assert copies == [1, 1]


@pytest.mark.parametrize("way", ["binary", "text"])
async def test_a_codec_of_the_application(database_url: str, copies: list[int], way: str) -> None:
    engine = create_async_engine(database_url, json_serializer=lambda value: json.dumps([value]))

    def encode(value: str) -> Any:
        sealed = json.dumps({"sealed": value})
        return sealed if way == "text" else b"\x01" + sealed.encode()

    @event.listens_for(engine.sync_engine, "connect")
    def registers(connection: Any, _record: Any) -> None:
        connection.run_async(
            lambda driver: driver.set_type_codec(
                "jsonb", encoder=encode, decoder=bytes, schema="pg_catalog", format=way
            )
        )

    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    seen = []
    for write in (
        lambda session: session.execute(insert(Document), [{"data": 1}, {"data": None}]),
        lambda session: insert_rows(session, Document, [{"data": 1}, {"data": None}]),
    ):
        async with AsyncSession(engine) as session:
            await write(session)
            seen.append((await session.scalars(text("SELECT data::text FROM document"))).all())
    await engine.dispose()
    assert seen[1] == seen[0]
    assert seen[0][0] == '{"sealed": "[1]"}'
    assert copies == ([2] if way == "binary" else [])


async def test_enums_of_a_translated_schema(engine: AsyncEngine, copies: list[int]) -> None:
    metadata = MetaData(schema="per_tenant")
    kind = Enum("a", "b", name="kind", metadata=metadata)
    table = Table("kinds", metadata, Column("kind", kind), Column("kinds", ARRAY(kind)))
    moved = engine.execution_options(schema_translate_map={"per_tenant": "tenant"})
    async with moved.begin() as connection:
        await connection.execute(text("CREATE SCHEMA tenant"))
        await connection.run_sync(metadata.create_all)
    async with AsyncSession(moved) as session:
        assert await insert_rows(session, table, [{"kind": "a"}, {"kind": "b"}]) == 2
        assert (await session.scalars(select(table.c.kind))).all() == ["a", "b"]
    assert copies == [2]
