"""What `insert_rows` is given: sessions and connections of any kind, rows of any kind."""

# ruff: noqa: RUF012  # how SQLAlchemy's declarative classes are written

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    String,
    Table,
    TypeDecorator,
    create_engine,
    event,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    scoped_session,
    sessionmaker,
)

from async_loader.errors import ConfigurationError
from async_loader.inserts import insert_rows
from async_loader.inserts.bulk import source
from tests.integration.inserts.conftest import DRIVERS, engine_with


class Upper(TypeDecorator[str]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if value == "!":
            raise ValueError("nothing to shout")
        return None if value is None else value.upper()


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str | None] = mapped_column("name of it")
    parts: Mapped[list[Part]] = relationship(back_populates="item")


class Part(Base):
    __tablename__ = "part"
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    shouted = mapped_column(Upper)
    item: Mapped[Item | None] = relationship(back_populates="parts")


class Beast(Base):
    __tablename__ = "beast"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "beast"}


class Bird(Beast):
    __mapper_args__ = {"polymorphic_identity": "bird"}


class Joined(Beast):
    __tablename__ = "joined"
    id: Mapped[int] = mapped_column(ForeignKey("beast.id"), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "joined"}


class Selected(Base):
    __table__ = select(Item.id, Item.label).subquery("selected")
    __mapper_args__ = {"primary_key": [__table__.c.id]}


plain = Table(
    "plain",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, key="label"),
    Column("made", Integer, default=5),
)


class Named(NamedTuple):
    label: str


@pytest.fixture(params=DRIVERS)
async def engine(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[AsyncEngine]:
    async with engine_with(Base, database_url, request.param) as engine:
        yield engine


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as session:
        yield session


async def labels(session: AsyncSession) -> list[Any]:
    return list(await session.scalars(select(Item.label).order_by(Item.id)))


async def test_sessions_and_connections(engine: AsyncEngine) -> None:
    rows = [{"label": "a"}]
    async with AsyncSession(engine) as session:
        assert await insert_rows(session, Item, rows) == 1
        assert await insert_rows(session.sync_session, Item, rows) == 1
        assert await session.run_sync(insert_rows, Item, rows) == 1
        assert len(await labels(session)) == 3
        await session.commit()
    scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
    assert await insert_rows(scoped, Item, rows) == 1
    await scoped.commit()
    await scoped.remove()
    async with engine.connect() as connection:
        assert await insert_rows(connection, Item, rows) == 1
        assert await insert_rows(connection, plain, rows) == 1
        await connection.rollback()
        assert await connection.scalar(select(func.count(Item.id))) == 4
        assert await connection.scalar(select(func.count()).select_from(plain)) == 0


def test_without_asyncio(database_url: str) -> None:
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        rows = (
            {"label": f"{item}"} for item in session.scalars(text("SELECT generate_series(1, 5)"))
        )
        assert insert_rows(session, Item, rows) == 5
        session.rollback()
        assert insert_rows(session, Item, [{"label": "a"}] * 3) == 3
        session.commit()
        with pytest.raises(ConfigurationError, match="async iterable with an async session"):
            insert_rows(session, Item, aiter_of([]))
    scoped = scoped_session(sessionmaker(engine))
    assert insert_rows(scoped, Item, [{"label": "b"}]) == 1
    scoped.remove()
    with engine.connect() as connection:
        assert insert_rows(connection, Item, [{"label": "b"}]) == 1
        with pytest.raises(IntegrityError), connection.begin_nested():
            insert_rows(connection, Item, [{"id": 1}, {"id": 1}])
        assert connection.scalar(select(func.count(Item.id))) == 4

    async def awaited() -> int:
        with Session(engine) as session:
            return await insert_rows(session, Item, [{"label": "c"}])

    assert asyncio.run(awaited()) == 1
    engine.dispose()


async def aiter_of(rows: Any) -> AsyncIterator[Any]:
    for row in rows:
        yield row


async def test_a_session_that_chooses_its_engine(engine: AsyncEngine) -> None:
    class Routing(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **_: Any) -> Any:
            if clause is not None and clause.is_dml:
                return engine.sync_engine
            raise AssertionError("not for reading")

    async with AsyncSession(sync_session_class=Routing) as session:
        assert await insert_rows(session, Item, [{"label": "a"}]) == 1
        assert await insert_rows(session, plain, [{"label": "a"}]) == 1


ROWS: dict[str, Callable[[], Any]] = {
    "dicts": lambda: [{"label": "a"}, {"label": "b"}],
    "tuples": lambda: [("a",), (50, "b")],
    "lists": lambda: [["a"], ["b"]],
    "named": lambda: [Named("a"), Named("b")],
    "mixed": lambda: iter([{"label": "a"}, ("b",)]),
    "objects": lambda: [Item(label="a"), Item(label="b", id=9)],
    "async": lambda: aiter_of([{"label": "a"}, {"label": "b"}]),
}


@pytest.mark.parametrize("kind", ROWS)
async def test_rows_of_any_kind(session: AsyncSession, kind: str) -> None:
    assert await insert_rows(session, Item, ROWS[kind]()) == 2
    assert await labels(session) == ["a", "b"]


async def test_rows_of_a_query(session: AsyncSession) -> None:
    found = await session.execute(text("SELECT 'a' AS label, 3 AS id UNION ALL SELECT 'b', 4"))
    assert await insert_rows(session, Item, found) == 2
    found = await session.execute(text("SELECT 'c' AS label, 5 AS id"))
    assert await insert_rows(session, Item, found.mappings()) == 1
    assert await labels(session) == ["a", "b", "c"]


async def test_objects_stay_as_they_are(session: AsyncSession) -> None:
    item = Item(label="a")
    await insert_rows(session, Item, [item])
    assert inspect(item).dict.keys() == {"label", "_sa_instance_state"}
    assert inspect(item).transient
    assert not session.new


async def test_rows_of_a_table(session: AsyncSession) -> None:
    """By column key; None is NULL, and a row need not be like the one before."""
    rows = [{"label": "a"}, {"label": "b", "made": None}, {"id": 9}]
    assert await insert_rows(session, plain, rows) == 3
    found = (await session.execute(select(plain).order_by(plain.c.id))).all()
    assert found == [(1, "a", 5), (2, "b", None), (9, None, 5)]
    with pytest.raises(IntegrityError):
        await insert_rows(session, plain, [{"id": None}])


async def test_an_iterator_that_uses_the_session(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "CHUNK", 3)

    async def rows() -> AsyncIterator[dict[str, Any]]:
        numbers = await session.stream_scalars(text("SELECT generate_series(1, 10)"))
        async for number in numbers:
            async with session.begin_nested():
                there = await session.scalar(select(func.count(Item.id)))
            yield {"label": f"{number}:{there}"}

    assert await insert_rows(session, Item, rows()) == 10
    assert await labels(session) == [f"{n}:{(n - 1) // 3 * 3}" for n in range(1, 11)]


async def test_related_objects_are_refused(session: AsyncSession) -> None:
    part = Part(number=1, item=Item(label="a"))
    with pytest.raises(ConfigurationError, match="row 1 has item, another object"):
        await insert_rows(session, Part, [part])
    kept = Item(label="k")
    session.add(kept)
    with pytest.raises(ConfigurationError, match="row 1 is an Item that a session knows"):
        await insert_rows(session, Item, [kept])
    assert await insert_rows(session, Beast, [Beast(), {"kind": "x"}]) == 2
    with pytest.raises(ConfigurationError, match="row 2 is a Bird, not a Beast"):
        await insert_rows(session, Beast, [Beast(), Bird()])
    assert await insert_rows(session, Bird, [Bird(), {}]) == 2


class Given(NamedTuple):
    session: Any
    model: Any
    rows: Any
    says: str


REFUSED: dict[str, Callable[[AsyncSession], Given]] = {
    "number": lambda s: Given(s, Item, [1, 2], "row 1 is an int: insert_rows takes dicts"),
    "string": lambda s: Given(s, Item, ["abc"], "row 1 is a str"),
    "bytes": lambda s: Given(s, Item, [b"abc"], "row 1 is a bytes"),
    "none": lambda s: Given(s, Item, [{"label": "a"}, None], "row 2 is a NoneType"),
    "no_rows": lambda s: Given(s, Item, 5, "takes an iterable of rows, not an int"),
    "one_dict": lambda s: Given(s, Item, {"label": "a"}, "iterable of rows, not a dict"),
    "one_string": lambda s: Given(s, Item, "abc", "iterable of rows, not a str"),
    "one_object": lambda s: Given(s, Item, Item(), "iterable of rows, not an Item"),
    "key": lambda s: Given(s, Item, [{"name of it": "a"}], "Item has no column attribute name of"),
    "odd_key": lambda s: Given(s, Item, [{1: "a"}], "Item has no column attribute 1"),
    "relationship": lambda s: Given(s, Item, [{"parts": []}], "no column attribute parts"),
    "length": lambda s: Given(s, Item, [(1, 2, 3)], "has 2 values, or 1 without the key"),
    "other_object": lambda s: Given(s, Item, [Beast()], "row 1 is a Beast, not an Item"),
    "object_of_table": lambda s: Given(s, plain, [Item()], "row 1 is an Item, not a plain"),
    "model": lambda s: Given(s, "item", [], "a mapped class or a Table, not a str"),
    "class": lambda s: Given(s, int, [], "a mapped class or a Table, not the class int"),
    "subquery": lambda s: Given(s, Selected, [], "insert Selected: it is not mapped to a table"),
    "statement": lambda s: Given(s, insert(Item), [], "a mapped class or a Table, not an Insert"),
    "engine": lambda s: Given(s.bind, Item, [], "a session or a connection, not an AsyncEngine"),
    "factory": lambda s: Given(async_sessionmaker(), Item, [], "not an async_sessionmaker"),
    "session_class": lambda s: Given(AsyncSession, Item, [], "not the class AsyncSession"),
    "nothing": lambda s: Given(None, Item, [], "a session or a connection, not a NoneType"),
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_what_is_refused_in_a_sentence(session: AsyncSession, kind: str) -> None:
    given = REFUSED[kind](session)
    with pytest.raises(ConfigurationError) as caught:
        await insert_rows(given.session, given.model, given.rows)
    assert given.says in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_several_tables_need_a_session(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        with pytest.raises(ConfigurationError, match="give a session, not a connection"):
            await insert_rows(connection, Joined, [{}])


async def test_other_databases_are_refused() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with AsyncSession(engine) as session:
        with pytest.raises(ConfigurationError, match="not sqlite\\+aiosqlite"):
            await insert_rows(session, Item, [])
    await engine.dispose()


def failing(good: int) -> Iterator[Any]:
    for number in range(good):
        yield {"label": f"{number}"}
    yield {"id": 1}


async def test_autocommit_keeps_all_or_nothing(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "CHUNK", 3)
    automatic = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with AsyncSession(automatic) as session:
        with pytest.raises(IntegrityError):
            await insert_rows(session, Item, failing(10))
        with pytest.raises(ConfigurationError):
            await insert_rows(session, Item, [*({"label": "a"} for _ in range(10)), 5])
        assert await labels(session) == []
        assert await insert_rows(session, Item, ({"label": f"{n}"} for n in range(10))) == 10
        await session.execute(text("BEGIN"))
        await insert_rows(session, Item, ({"label": f"{n}"} for n in range(10)))
        await session.execute(text("ROLLBACK"))
    async with AsyncSession(engine) as other:
        assert len(await labels(other)) == 10


@pytest.mark.parametrize("good", [0, 10])
async def test_nothing_remains_after_an_error(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch, good: int
) -> None:
    monkeypatch.setattr(source, "CHUNK", 3)
    session.add(Item(id=1, label="before"))
    with pytest.raises(IntegrityError):
        async with session.begin_nested():
            await insert_rows(session, Item, failing(good))
    assert await labels(session) == ["before"]


async def test_errors_go_the_way_of_statements(engine: AsyncEngine, session: AsyncSession) -> None:
    told: list[Any] = []

    @event.listens_for(engine.sync_engine, "handle_error")
    def tell(context: Any) -> None:
        told.append((context.statement, type(context.sqlalchemy_exception)))

    with pytest.raises(IntegrityError) as integrity:
        async with session.begin_nested():
            await insert_rows(session, Item, [{"id": number or 1} for number in range(100)])
    assert integrity.value.statement == 'COPY "item" ("id") FROM STDIN'
    with pytest.raises(StatementError, match="nothing to shout"):
        await insert_rows(session, Part, [{"item_id": 1, "number": 1, "shouted": "!"}])
    with pytest.raises(DBAPIError):
        async with session.begin_nested():
            await insert_rows(session, Item, [{"label": "a"}, {"label": object()}])
    assert [kind for _, kind in told][:2] == [IntegrityError, StatementError]
    assert len(told) == 3


async def test_parameters_stay_hidden(database_url: str) -> None:
    engine = create_async_engine(database_url, hide_parameters=True)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        more = ({"label": "more"} for _ in range(100))
        with pytest.raises(DBAPIError) as caught:
            await insert_rows(session, Item, [{"label": "secret"}, {"label": 5}, *more])
    assert "row 2" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "more" not in str(caught.value)
    await engine.dispose()


async def test_a_lost_connection_is_a_lost_connection(database_url: str) -> None:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session, engine.connect() as other:
        backend = await session.scalar(text("SELECT pg_backend_pid()"))

        def rows() -> Iterator[Any]:
            yield {"label": "a"}

        async def cut() -> AsyncIterator[Any]:
            yield {"label": "a"}
            await other.execute(text(f"SELECT pg_terminate_backend({backend}, 5000)"))

        with pytest.raises(DBAPIError) as caught:
            await insert_rows(session, Item, cut())
        assert caught.value.connection_invalidated
        await session.rollback()
        assert await insert_rows(session, Item, rows()) == 1
    await engine.dispose()
