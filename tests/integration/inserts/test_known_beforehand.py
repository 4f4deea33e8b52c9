"""What given values say against a batch is known before a key is drawn or a default called."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    DateTime,
    Enum,
    ForeignKey,
    Integer,
    Numeric,
    Sequence,
    String,
    TypeDecorator,
    Uuid,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import DOMAIN
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from async_loader.inserts import enable_batch_inserting

counter = itertools.count(1)


def count() -> int:
    return next(counter)


class Base(DeclarativeBase):
    pass


class Erased(TypeDecorator[str]):
    """Of an application: what it is given never arrives."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> None:
        return None


class Points(TypeDecorator[int]):
    """A domain with something around it."""

    impl = DOMAIN("known_marks", Integer)
    cache_ok = True


class Draft(Base):
    __tablename__ = "known_draft"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("known_draft.id"))
    like: Mapped[str | None] = mapped_column(ForeignKey("known_draft.code"))
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("known_folder.id"))
    kind: Mapped[str] = mapped_column(Enum("a", "b", native_enum=False), default="a")
    children: Mapped[list[Draft]] = relationship(foreign_keys=[parent_id])


class Folder(Base):
    __tablename__ = "known_folder"
    id: Mapped[int] = mapped_column(primary_key=True)
    drafts: Mapped[list[Draft]] = relationship()


class Reply(Base):
    __tablename__ = "known_reply"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    words: Mapped[str]
    to_id: Mapped[int | None] = mapped_column(ForeignKey("known_reply.id"))
    to: Mapped[Reply | None] = relationship(remote_side="Reply.id")


class Animal(Base):
    __tablename__ = "known_animal"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    born = mapped_column(DateTime(timezone=True))
    secret = mapped_column(Erased)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012  # as declarative reads it


class Bird(Animal):
    """Its column has a default that is called for every animal."""

    ring: Mapped[int] = mapped_column(default=count)
    __mapper_args__ = {"polymorphic_identity": "bird"}  # noqa: RUF012  # as declarative reads it


class Lot(Base):
    __tablename__ = "known_lot"
    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=lambda: UUID(int=count()))
    part: Mapped[int] = mapped_column(primary_key=True, default=count, autoincrement=False)
    name: Mapped[str] = mapped_column(String(5))
    sold: Mapped[int]


class Step(Base):
    __tablename__ = "known_step"
    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=lambda: UUID(int=count()))
    note: Mapped[str] = mapped_column(default="none")
    before: Mapped[UUID | None] = mapped_column(ForeignKey("known_step.id"))


class Vehicle(Base):
    __tablename__ = "known_vehicle"
    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: f"v{count()}")
    kind: Mapped[str]
    price = mapped_column(Numeric(10, 2), default=Decimal("0.1"))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "any"}  # noqa: RUF012  # as declarative reads it


class Car(Vehicle):
    __tablename__ = "known_car"
    id: Mapped[str] = mapped_column(ForeignKey("known_vehicle.id"), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "car"}  # noqa: RUF012  # as declarative reads it


class Ticket(Base):
    __tablename__ = "known_ticket"
    id: Mapped[int] = mapped_column(Sequence("known_ticket_own"), primary_key=True)
    owner: Mapped[str]
    draft_id: Mapped[int | None] = mapped_column(ForeignKey("known_draft.id"))
    draft: Mapped[Draft | None] = relationship()


class Grade(Base):
    __tablename__ = "known_grade"
    id: Mapped[int] = mapped_column(Sequence("known_grade_own"), primary_key=True)
    points = mapped_column(DOMAIN("known_points", Integer))


class Mark(Base):
    __tablename__ = "known_mark"
    id: Mapped[int] = mapped_column(Sequence("known_mark_own"), primary_key=True)
    points = mapped_column(Points)


ROLE = (
    "DO $$ BEGIN CREATE ROLE known_clerk; EXCEPTION WHEN duplicate_object THEN END $$",
    "GRANT USAGE ON SCHEMA public TO known_clerk",
    "GRANT ALL ON ALL TABLES IN SCHEMA public TO known_clerk",
)
POLICIES = (
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO known_clerk",
    "ALTER TABLE known_ticket ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY writes ON known_ticket FOR INSERT WITH CHECK (true)",
    "CREATE POLICY reads ON known_ticket FOR SELECT USING (owner = 'me')",
)


@pytest.fixture(params=["asyncpg", "psycopg"])
def url(request: pytest.FixtureRequest, database_url: str) -> str:
    return database_url.replace("+asyncpg", f"+{request.param}")


async def both(url: str, script: Any, *sql: str, **options: Any) -> list[Any]:
    """Return what a script says on SQLAlchemy alone and batched, from the same beginning."""
    global counter  # noqa: PLW0603  # the models' defaults count with it
    said = []
    for batched in (False, True):
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.execute(text("DROP SCHEMA public CASCADE"))
            await connection.execute(text("CREATE SCHEMA public"))
            await connection.run_sync(Base.metadata.create_all)
            for statement in sql:
                await connection.exec_driver_sql(statement)
        counter = itertools.count(1)
        bound = engine.execution_options(**options)
        sessions = async_sessionmaker(bound, expire_on_commit=False)
        if batched:
            enable_batch_inserting(sessions)
        async with sessions() as session:
            said.append(await session.run_sync(script))
        await engine.dispose()
    return said


def error_of(session: Session, *made: Any) -> Any:
    """Flush, and tell an error as a caller can."""
    session.add_all(made)
    try:
        session.flush()
    except Exception as error:
        orig = getattr(error, "orig", None)
        return type(error), type(orig), getattr(orig, "sqlstate", None)
    return None


def a_later_row_of_one_statement(session: Session) -> Any:
    """Such a reference holds at the end of SQLAlchemy's one statement, and row by row does not."""
    first, second = Draft(code="a", like="b"), Draft(code="b")
    return error_of(session, first, second), first.id, second.id


def a_later_row_of_one_level(session: Session) -> Any:
    later = Draft(code="c", like="b")
    session.add(later)
    parent = Draft(code="a", children=[Draft(code="b", like="a"), later])
    return error_of(session, parent), sorted(session.execute(select(Draft.id, Draft.like)).all())


def a_tree_of_another_table(session: Session) -> Any:
    """What is known of a tree beforehand is not yet what its rows get of others."""
    child = Draft(code="b", kind="b")
    folder = Folder(drafts=[Draft(code="a", kind="b", children=[child]), child])
    error = error_of(session, folder)
    rows = select(Draft.id, Draft.code, Draft.kind, Draft.parent_id, Draft.folder_id)
    return error, sorted(session.execute(rows).all())


def zones(session: Session) -> Any:
    times = datetime(2001, 2, 3, tzinfo=UTC), datetime(2001, 2, 3)  # both kinds
    error = error_of(session, *(Animal(born=born) for born in (*times, times[0])))
    return error, session.execute(text("SELECT id, ring FROM known_animal ORDER BY 1")).all()


def a_value_that_is_lost(session: Session) -> Any:
    """Its own type makes None of it, when the default of the other class has been called."""
    session.execute(text("ALTER TABLE known_animal ALTER secret SET NOT NULL"))
    return error_of(session, Animal(secret="a"), Animal(secret="b")), next(counter)


def two_errors(session: Session) -> Any:
    return error_of(
        session,
        *(Lot(name="a", sold=n) for n in range(3)),
        Lot(name="b"),
        Lot(name="too long", sold=1),
    )


def one_row_nobody_may_read(session: Session) -> Any:
    session.execute(text("SET LOCAL ROLE known_clerk"))
    return error_of(session, Ticket(owner="you"))


def a_sequence_nobody_may_use(session: Session) -> Any:
    session.execute(text("SET LOCAL ROLE known_clerk"))
    return error_of(session, Ticket(id=7, owner="me", draft_id=99), Ticket(owner="me"))


def a_domain(session: Session) -> Any:
    return error_of(session, *(Grade(points=n) for n in range(3)))


def a_domain_of_an_application(session: Session) -> Any:
    return error_of(session, *(Mark(points=n) for n in range(3)))


def a_key_that_was_carried(session: Session) -> Any:
    """What was got of the key of a row that is there stays after the error."""
    session.add(Reply(id=5, words="?"))
    session.commit()
    reply = Reply(id=6, to=session.get(Reply, 5))
    return error_of(session, reply), reply.__dict__.get("to_id")


def a_row_that_is_gone(session: Session) -> Any:
    """Made anew with attributes that only its row could tell."""
    draft = Draft(code="a")
    session.add(draft)
    session.commit()
    with session.begin_nested() as nested:
        late = Draft(code="b")
        session.add(late)
        session.flush()
        session.expire(late)
        nested.rollback()
    state: Any = inspect(late)
    told = sorted(state.expired_attributes)
    return told, error_of(session, late, Draft(code="c"))


def a_reference_to_no_row(session: Session) -> Any:
    """SQLAlchemy has the first row in when the second is refused."""
    first = Step(note="first")
    return error_of(session, first, Step(before=UUID(int=99))), first.__dict__.get("id")


def two_rows_of_one_key(session: Session) -> Any:
    """Which is refused first: a key that is there, or a reference to a row that is not?"""
    rows = Reply(id=3, words="a", to_id=9), Reply(id=4, words="b"), Reply(id=3, words="c")
    return error_of(session, *rows)


def a_key_for_the_table_below(session: Session) -> Any:
    """It was copied there as soon as the row was in, though a later one is refused."""
    car = Car(price=None)
    error = error_of(session, car, Vehicle(price=Decimal("1.5")), Car(id="mine", price=True))
    state: Any = inspect(car)
    return error, dict(state.committed_state), car.__dict__.get("id")


def rows_rolled_back(session: Session) -> Any:
    """Added again the other way round, and nothing of them is new: the parent goes first."""
    parent = Reply(id=1, words="?")
    child = Reply(id=2, words="!", to=parent)
    session.add_all([parent, child])
    session.flush()
    session.rollback()
    session.add(child)
    session.add(parent)
    return error_of(session), session.scalars(select(Reply.id).order_by(Reply.id)).all()


@pytest.mark.parametrize(
    ("script", "sql"),
    [
        (a_reference_to_no_row, ()),
        (two_rows_of_one_key, ()),
        (a_key_for_the_table_below, ()),
        (rows_rolled_back, ()),
        (a_later_row_of_one_statement, ()),
        (a_later_row_of_one_level, ()),
        (a_tree_of_another_table, ()),
        (zones, ()),
        (a_value_that_is_lost, ()),
        (two_errors, ()),
        (one_row_nobody_may_read, (*ROLE, *POLICIES)),
        (a_sequence_nobody_may_use, ROLE),
        (a_domain, ()),
        (a_domain_of_an_application, ()),
        (a_key_that_was_carried, ()),
        (a_row_that_is_gone, ()),
    ],
)
async def test_as_sqlalchemy_does_it(url: str, script: Any, sql: tuple[str, ...]) -> None:
    stock, batched = await both(url, script, *sql)
    assert batched == stock


async def test_a_savepoint_that_is_refused_comes_before_keys_are_carried(url: str) -> None:
    def script(session: Session) -> Any:
        draft = Draft(code="a")
        session.add(draft)
        session.flush()
        session.begin_nested()
        ticket = Ticket(owner="me", draft=draft)
        return error_of(session, ticket), ticket.__dict__.get("draft_id")

    stock, batched = await both(url, script, isolation_level="AUTOCOMMIT")
    assert batched == stock
    assert stock[0] is not None
