"""What is left after an error, and what tells how far a flush came: as SQLAlchemy has it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import ForeignKey, Integer, Sequence, String, event, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from async_loader.inserts import enable_batch_inserting, explain


class Base(DeclarativeBase):
    pass


COUNTER = itertools.count(1)
CALLS: list[str] = []


def count(name: str) -> Callable[[], int]:
    def call() -> int:
        CALLS.append(name)
        return next(COUNTER)

    return call


class City(Base):
    __tablename__ = "left_city"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(9), unique=True)
    zone: Mapped[str] = mapped_column(server_default="utc")
    code: Mapped[int] = mapped_column(default=count("city"))


class Street(Base):
    __tablename__ = "left_street"
    id: Mapped[int] = mapped_column(primary_key=True)
    city_id: Mapped[int | None] = mapped_column(ForeignKey("left_city.id"))
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "street"}  # noqa: RUF012  # as declarative reads it


class Bridge(Street):
    __tablename__ = "left_bridge"
    id: Mapped[int] = mapped_column(ForeignKey("left_street.id"), primary_key=True)
    span: Mapped[int] = mapped_column(unique=True)
    __mapper_args__ = {"polymorphic_identity": "bridge"}  # noqa: RUF012  # as declarative reads it


class Visit(Base):
    """Comes before `Zoo` unless an object, or the mapper of one, says otherwise."""

    __tablename__ = "left_visit"
    id: Mapped[int] = mapped_column(primary_key=True, default=count("visit"))
    kind: Mapped[str]
    zoo_id: Mapped[int | None] = mapped_column(ForeignKey("left_zoo.id"))
    zoo: Mapped[BigZoo | None] = relationship()
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "visit"}  # noqa: RUF012  # as declarative reads it


class Zoo(Base):
    __tablename__ = "left_zoo"
    id: Mapped[int] = mapped_column(primary_key=True, default=count("zoo"))
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "zoo"}  # noqa: RUF012  # as declarative reads it


class BigZoo(Zoo):
    __mapper_args__ = {"polymorphic_identity": "big"}  # noqa: RUF012  # as declarative reads it


class Paper(Base):
    __tablename__ = "left_paper"
    id: Mapped[int] = mapped_column(Sequence("left_paper_own"), primary_key=True)
    version = mapped_column(Integer, nullable=False)
    number: Mapped[int] = mapped_column(default=count("paper"))
    __mapper_args__ = {  # noqa: RUF012  # as declarative reads it
        "version_id_col": version,
        "version_id_generator": lambda _: count("version")(),
    }


@pytest.fixture(params=["asyncpg", "psycopg"])
def url(request: pytest.FixtureRequest, database_url: str) -> str:
    return database_url.replace("+asyncpg", f"+{request.param}")


def seen(made: list[Any]) -> list[Any]:
    """Return what objects hold and what they take for unsaved."""
    found = []
    for one in made:
        state: Any = inspect(one)
        held = {
            key: value
            for key, value in sorted(state.dict.items())
            if key not in {"_sa_instance_state", "zoo"}
        }
        found.append((held, sorted(state.committed_state), sorted(state.expired_attributes)))
    return found


def flushed(session: Session, made: list[Any]) -> Any:
    """Flush, and return the error and what is left of the objects."""
    told: Any = None
    session.add_all(made)
    try:
        session.flush()
    except DBAPIError as error:
        told = type(error.orig), getattr(error.orig, "sqlstate", None)
    # After an error, more defaults may have been called than SQLAlchemy came to.
    return told, seen(made), None if told else list(CALLS)


def a_run_in_the_middle(session: Session) -> Any:
    return flushed(
        session,
        [
            City(name="a"),
            City(name="b", code=3),
            City(name="c", zone="cet"),
            City(name="c", zone="cet"),
            City(name="e"),
        ],
    )


def the_first_of_two_errors(session: Session) -> Any:
    return flushed(
        session, [City(name="a"), City(name="a", zone="cet"), City(name="much too long")]
    )


def of_two_kinds(session: Session) -> Any:
    return flushed(
        session,
        [Street(), Street(city_id=99), Bridge(id=7, span=1), Street(id=7), Bridge(span=1)],
    )


def the_inheriting_table(session: Session) -> Any:
    return flushed(session, [Bridge(span=1), Street(), Bridge(id=8, span=2), Bridge(span=1)])


def none_where_there_must_be_a_value(session: Session) -> Any:
    return flushed(session, [City(name="a"), City(name="b", zone="cet"), City(name=None)])


def tables_in_order(session: Session) -> Any:
    return flushed(session, [Zoo(), Visit(), Zoo(), Visit()])


def tables_by_an_object(session: Session) -> Any:
    return flushed(session, [Visit(zoo=BigZoo()), Zoo(), Visit()])


def versions_of_its_own(session: Session) -> Any:
    return flushed(session, [Paper(), Paper(number=5), Paper()])


def nothing_wrong(session: Session) -> Any:
    with session.begin_nested():
        first = flushed(session, [City(name="a"), City(name="b", zone="cet"), City(name="c")])
    second = flushed(session, [City(name="d"), City(name="e", zone="cet")])
    session.commit()
    return first, second, sorted(session.execute(text("SELECT name, zone FROM left_city")).all())


@pytest.mark.parametrize(
    "script",
    [
        a_run_in_the_middle,
        the_first_of_two_errors,
        of_two_kinds,
        the_inheriting_table,
        none_where_there_must_be_a_value,
        tables_in_order,
        tables_by_an_object,
        versions_of_its_own,
        nothing_wrong,
    ],
)
async def test_as_sqlalchemy_leaves_it(url: str, script: Any) -> None:
    stock, batched = [await perform(url, script, batched=batched) for batched in (False, True)]
    assert batched == stock


async def perform(url: str, script: Any, *, batched: bool) -> Any:
    """Return what a script says, from the same beginning each time."""
    global COUNTER  # noqa: PLW0603  # the models' defaults count with it
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
        await connection.run_sync(Base.metadata.create_all)
    COUNTER = itertools.count(1)
    CALLS.clear()
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    if batched:
        enable_batch_inserting(sessions)
    async with sessions() as session:
        said = await session.run_sync(script)
    await engine.dispose()
    return said


async def test_one_error_is_told_once(url: str) -> None:
    heard: list[str] = []
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    event.listen(engine.sync_engine, "handle_error", lambda _: heard.append("error"))
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    enable_batch_inserting(sessions)
    async with sessions() as session:
        await session.run_sync(a_run_in_the_middle)
    await engine.dispose()
    assert heard == ["error"]


def test_explain_says_who_numbers_versions() -> None:
    said = explain(Paper).splitlines()[0]
    assert said == "stock: has a version_id_generator of its own, or the server's"


async def test_savepoints_of_batches_do_not_pile_up(url: str) -> None:
    """The first few stay open; the application's own savepoints go round them as ever."""
    said: list[str] = []
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: said.append(args[2]))
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    enable_batch_inserting(sessions)
    async with sessions() as session:
        for number in range(20):
            async with session.begin_nested() as own:
                session.add_all(
                    City(name=f"{number}-{n}", **({"id": 1000 + number} if n == 1 else {}))
                    for n in range(3)
                )
                await session.flush()
                if number % 2:
                    await own.rollback()
        await session.commit()
        names = set(await session.scalars(text("SELECT name FROM left_city")))
    await engine.dispose()
    assert names == {f"{number}-{n}" for number in range(0, 20, 2) for n in range(3)}
    assert said.count("SAVEPOINT async_loader_batch") == 20
    assert said.count("RELEASE SAVEPOINT async_loader_batch") == 4
