"""Shapes in which the order of rows, values or calls can be seen: batched as SQLAlchemy has it."""

from __future__ import annotations

import enum
import itertools
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    Computed,
    Enum,
    ForeignKey,
    Identity,
    MetaData,
    Numeric,
    Sequence,
    String,
    TypeDecorator,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError, InvalidRequestError, ProgrammingError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    sessionmaker,
)

from async_loader.inserts import enable_batch_inserting


class Base(DeclarativeBase):
    pass


ORDER: list[str] = []
counter = itertools.count(1)


def numbered() -> int:
    """Return the next number, and note that it was asked for."""
    ORDER.append("number")
    return next(counter)


class Noted(TypeDecorator[str]):
    """A type with a memory: it numbers what passes."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        ORDER.append(value)
        return value


class Named(TypeDecorator[str]):
    """A type that only has a name of its own: values pass as they are."""

    impl = String
    cache_ok = True


class Shown(TypeDecorator[str]):
    """A type that changes values on their way out."""

    impl = String
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return f"<{value}>"


class Leaf(Base):
    __tablename__ = "seen_leaf"
    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: f"k{next(counter)}")
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("seen_leaf.id"))
    children: Mapped[list[Leaf]] = relationship()


class Folder(Base):
    __tablename__ = "seen_folder"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("seen_folder.id"))
    children: Mapped[list[Folder]] = relationship()


class Number(Base):
    __tablename__ = "seen_number_of"
    id: Mapped[int] = mapped_column(Sequence("seen_number_own"), primary_key=True)


class Receipt(Base):
    __tablename__ = "seen_receipt"
    id: Mapped[int] = mapped_column(
        Identity(start=500, increment=-1, minvalue=1, maxvalue=500), primary_key=True
    )
    owner: Mapped[str]


class Slip(Base):
    __tablename__ = "seen_slip"
    id: Mapped[int] = mapped_column(Sequence("seen_slip_own"), primary_key=True)
    owner: Mapped[str]


class Parcel(Base):
    __tablename__ = "seen_parcel"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    place: Mapped[str] = mapped_column(server_default="any")
    __mapper_args__ = {"eager_defaults": False}  # noqa: RUF012  # as declarative reads it


class Account(Base):
    __tablename__ = "seen_account"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(Named)
    note: Mapped[str] = mapped_column(server_default="none")
    amount = mapped_column(Numeric(10, 2))
    balance = mapped_column(Numeric(10, 2))


class Shape(Base):
    __tablename__ = "seen_shape"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    number: Mapped[int] = mapped_column(default=numbered)
    first = mapped_column(Noted)
    second = mapped_column(Noted)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "shape"}  # noqa: RUF012  # as declarative reads it


class Circle(Shape):
    radius: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "circle"}  # noqa: RUF012  # as declarative reads it


class Tagged(Base):
    __tablename__ = "seen_tagged"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(default=lambda: next(counter))
    tags = mapped_column(ARRAY(String), server_default="{}")


class Ticket(Base):
    __tablename__ = "seen_ticket"
    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: f"t{next(counter)}")
    kind: Mapped[str]
    price: Mapped[float | None]
    place: Mapped[str] = mapped_column(server_default="any")
    label: Mapped[str | None] = mapped_column(String, Computed("upper(kind)"))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "ticket"}  # noqa: RUF012  # as declarative reads it


class Upgrade(Ticket):
    seat: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "upgrade"}  # noqa: RUF012  # as declarative reads it


class Stamp(Base):
    __tablename__ = "seen_stamp"
    id: Mapped[str] = mapped_column(Shown, primary_key=True, default=lambda: f"s{next(counter)}")
    place: Mapped[str] = mapped_column(server_default="any")


DESCENDING = "ALTER SEQUENCE seen_account_id_seq INCREMENT -1 MINVALUE 1 MAXVALUE 500 RESTART 500"
KEY_BY_TRIGGER = (
    """
CREATE FUNCTION seen_key() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW.id := 1000 - NEW.id; RETURN NEW; END $$""",
    "CREATE TRIGGER seen_key BEFORE INSERT ON seen_account"
    " FOR EACH ROW EXECUTE FUNCTION seen_key()",
)
PARCEL_KEY_BY_TRIGGER = tuple(sql.replace("seen_account", "seen_parcel") for sql in KEY_BY_TRIGGER)
BALANCE = (
    """
CREATE FUNCTION seen_sum() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
NEW.balance := NEW.amount + coalesce((SELECT sum(amount) FROM seen_account), 0);
RETURN NEW; END $$""",
    "CREATE TRIGGER seen_sum BEFORE INSERT ON seen_account"
    " FOR EACH ROW EXECUTE FUNCTION seen_sum()",
)
AUDIT = (
    "CREATE TABLE seen_log (n serial, said text)",
    """
CREATE FUNCTION seen_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
INSERT INTO seen_log (said) VALUES (to_jsonb(NEW) ->> 'owner'); RETURN NEW; END $$""",
    "CREATE TRIGGER seen_row BEFORE INSERT ON seen_account"
    " FOR EACH ROW EXECUTE FUNCTION seen_row()",
    """
CREATE FUNCTION seen_statement() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
INSERT INTO seen_log (said) VALUES ('statement'); RETURN NULL; END $$""",
    "CREATE TRIGGER seen_statement AFTER INSERT ON seen_account"
    " FOR EACH STATEMENT EXECUTE FUNCTION seen_statement()",
)
RECEIPT_AUDIT = tuple(sql.replace("seen_account", "seen_receipt") for sql in AUDIT)
NUMBERED = (
    "CREATE SEQUENCE seen_number",
    "ALTER TABLE seen_ticket ADD number bigint DEFAULT nextval('seen_number')",
)
READS_A_COLUMN = (
    "DO $$ BEGIN CREATE ROLE seen_reader; EXCEPTION WHEN duplicate_object THEN END $$",
    "GRANT USAGE ON SCHEMA public TO seen_reader",
    "GRANT INSERT, SELECT (name) ON seen_folder TO seen_reader",
    "GRANT INSERT ON seen_number_of TO seen_reader",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO seen_reader",
)
POLICY = "ALTER TABLE seen_account ENABLE ROW LEVEL SECURITY"


@pytest.fixture(params=["asyncpg", "psycopg"])
def url(request: pytest.FixtureRequest, database_url: str) -> str:
    return database_url.replace("+asyncpg", f"+{request.param}")


async def both(url: str, script: Any, *sql: str, **options: Any) -> list[Any]:
    """Return what a script says on SQLAlchemy alone and batched, from the same beginning."""
    global counter  # noqa: PLW0603  # the models' defaults count with it
    said = []
    for batched in (False, True):
        engine = create_async_engine(url, **options)
        async with engine.begin() as connection:
            await connection.execute(text("DROP SCHEMA public CASCADE"))
            await connection.execute(text("CREATE SCHEMA public"))
            await connection.run_sync(Base.metadata.create_all)
            for statement in sql:
                await connection.exec_driver_sql(statement)
        counter = itertools.count(1)
        ORDER.clear()
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        if batched:
            enable_batch_inserting(sessions)
        async with sessions() as session:
            try:
                said.append(await session.run_sync(script))
            except Exception as error:
                said.append(
                    (type(error), type(getattr(error, "orig", None)), "secret" in str(error))
                )
        await engine.dispose()
    return said


def a_tree(session: Session) -> Any:
    session.add(Leaf(children=[Leaf(), Leaf(children=[Leaf()])]))
    session.flush()
    rows = session.execute(select(Leaf.id, Leaf.parent_id)).all()
    return sorted(map(str, rows))


def accounts(session: Session) -> Any:
    made = [
        Account(owner=f"o{n}", amount=10**n, **({"note": "x"} if n % 2 else {})) for n in range(4)
    ]
    session.add_all(made)
    session.flush()
    session.expire_all()
    return [(one.id, one.owner, one.balance) for one in made]


def audited(session: Session) -> Any:
    session.add_all([Account(owner=f"o{n}") for n in range(3)])
    session.flush()
    return session.execute(text("SELECT said FROM seen_log ORDER BY n")).scalars().all()


def keys_of_two_tables(session: Session) -> Any:
    receipts, slips = [Receipt(owner="o") for _ in range(3)], [Slip(owner="o") for _ in range(3)]
    session.add_all([*receipts, *slips])
    session.flush()
    return [one.id for one in receipts], [one.id for one in slips]


def siblings(session: Session) -> Any:
    made = [(Shape, Circle)[n % 2](first=f"a{n}", second=f"b{n}") for n in range(6)]
    session.add_all(made)
    session.flush()
    return [one.number for one in made], list(ORDER)


def in_turns(session: Session) -> Any:
    given: list[Any] = [{"number": 7}, {}, {"number": 9}, {}]
    session.add_all([Shape(first=f"a{n}", **one) for n, one in enumerate(given)])
    session.flush()
    return list(ORDER)


def regrouped(session: Session) -> Any:
    made = [Tagged(**({"tags": ["x"]} if n % 2 else {})) for n in range(6)]
    session.add_all(made)
    session.flush()
    return [one.number for one in made]


def mixed_numbers(session: Session) -> Any:
    given: list[Any] = [Decimal("1.5"), 2, True, None]
    session.add_all([Account(owner="m", amount=one) for one in given[:2]])
    session.flush()
    return sorted(session.scalars(select(Account.amount)))


def a_wrong_value(session: Session) -> Any:
    session.add_all([Account(owner="secret of another"), Account(owner=5)])
    session.flush()


def refused_child_first(session: Session) -> Any:
    session.add_all([Leaf(id="b", parent_id="c"), Leaf(id="c")])
    session.flush()


def keys_that_change_on_their_way_out(session: Session) -> Any:
    made = [Stamp() for n in range(3)]
    session.add_all(made)
    session.flush()
    return [(one.id, one.place) for one in made], list(
        session.execute(text("SELECT id, place FROM seen_stamp ORDER BY id")).all()
    )


def counted_siblings(session: Session) -> Any:
    session.add_all([(Ticket, Upgrade)[n % 2](id=f"k{n}") for n in range(6)])
    session.flush()
    return sorted(map(str, session.execute(text("SELECT id, number FROM seen_ticket"))))


def counted_siblings_one_after_another(session: Session) -> Any:
    session.add_all([Upgrade(id=f"k{n}") for n in range(3)])
    session.add_all([Ticket(id=f"j{n}") for n in range(3)])
    session.flush()
    return sorted(map(str, session.execute(text("SELECT id, number FROM seen_ticket"))))


def a_bool_for_a_float(session: Session) -> Any:
    session.add(Ticket(price=True))
    session.flush()


def bools_for_floats(session: Session) -> Any:
    session.add_all([Ticket(price=True), Ticket(price=False)])
    session.flush()


def added_again_with_what_the_server_made(session: Session) -> Any:
    first = [Ticket(id="a"), Ticket(id="b")]
    session.add_all(first)
    session.flush()
    session.rollback()
    later = [Ticket(id="c"), Ticket(id="d", price=1.0)]
    session.add_all([*later, *first])
    try:
        session.flush()
    except ProgrammingError as error:
        return type(error.orig), [
            sorted(one.__dict__.keys() - {"_sa_instance_state"}) for one in later
        ]


def by_one_who_reads_a_column(session: Session) -> Any:
    session.execute(text("SET LOCAL ROLE seen_reader"))
    # The keys of a tree are asked for beforehand, and then nothing would be read.
    session.add(Folder(name="a", children=[Folder(name="b"), Folder(name="c")]))
    session.flush()


def one_row_by_one_who_reads_nothing(session: Session) -> Any:
    session.execute(text("SET LOCAL ROLE seen_reader"))
    session.add(Number())
    session.flush()


def refused_among_rows_sent_singly(session: Session) -> Any:
    made = [Account(owner="a"), Account(owner="b"), Account(owner=None)]
    session.add_all(made)
    try:
        session.flush()
    except IntegrityError as error:
        return type(error.orig), [
            sorted(one.__dict__.keys() - {"_sa_instance_state"}) for one in made
        ]


def refused_among_rows_with_defaults_to_load(session: Session) -> Any:
    made = [Parcel(name="a"), Parcel(name="b"), Parcel(name=None)]
    session.add_all(made)
    with pytest.raises(IntegrityError):
        session.flush()
    return [(sorted(one.__dict__), sorted(inspect(one).expired_attributes)) for one in made]


@pytest.mark.parametrize(
    ("script", "sql"),
    [
        (counted_siblings, NUMBERED),
        (counted_siblings_one_after_another, NUMBERED),
        (a_bool_for_a_float, ()),
        (bools_for_floats, ()),
        (added_again_with_what_the_server_made, ()),
        (by_one_who_reads_a_column, READS_A_COLUMN),
        (one_row_by_one_who_reads_nothing, READS_A_COLUMN),
        (refused_among_rows_sent_singly, KEY_BY_TRIGGER),
        (refused_among_rows_with_defaults_to_load, PARCEL_KEY_BY_TRIGGER),
        (a_tree, ()),
        (accounts, BALANCE),
        (audited, AUDIT),
        (accounts, (POLICY,)),
        (keys_of_two_tables, RECEIPT_AUDIT),
        (siblings, ()),
        (in_turns, ()),
        (regrouped, ()),
        (mixed_numbers, ()),
        (a_wrong_value, ()),
        (refused_child_first, ()),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_as_sqlalchemy_has_it(url: str, script: Any, sql: tuple[str, ...]) -> None:
    stock, batched = await both(url, script, *sql, hide_parameters=True)
    assert batched == stock


async def test_keys_that_change_on_their_way_out(url: str) -> None:
    """SQLAlchemy looks for them as they come back, and finds none."""
    stock, batched = await both(url, keys_that_change_on_their_way_out)
    assert stock[0] is InvalidRequestError
    assert batched[0] == [("s1", "any"), ("s2", "any"), ("s3", "any")]
    assert [tuple(row) for row in batched[1]] == batched[0]


@pytest.mark.parametrize("sql", [(DESCENDING,), KEY_BY_TRIGGER], ids=["descending", "by trigger"])
@pytest.mark.parametrize("value", ["x", func.lower("X")], ids=["plain", "expression"])
async def test_objects_get_the_keys_of_their_rows(
    url: str, sql: tuple[str, ...], value: Any
) -> None:
    def script(session: Session) -> Any:
        made = [Account(owner=f"o{n}", note=value) for n in range(3)]
        session.add_all(made)
        session.flush()
        mine = sorted((one.id, one.owner) for one in made)
        rows = session.execute(text("SELECT id, owner FROM seen_account ORDER BY id"))
        return mine == [tuple(row) for row in rows]

    # Of plain rows SQLAlchemy sorts the keys, which is wrong where they do not ascend.
    assert (await both(url, script, *sql))[1] is True


async def test_what_autocommit_kept_before_a_failing_row(url: str) -> None:
    def script(session: Session) -> Any:
        session.add_all([Account(id=n if n != 4 else 1, owner="o") for n in range(1, 6)])
        try:
            session.flush()
        except Exception:
            session.rollback()
        return session.execute(text("SELECT count(*) FROM seen_account")).scalar()

    stock, batched = await both(url, script, isolation_level="AUTOCOMMIT")
    assert batched == stock


async def test_a_column_whose_type_changed_fails_once(database_url: str) -> None:
    engine = create_async_engine(database_url, pool_size=1, max_overflow=0)
    migration = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine)
    enable_batch_inserting(sessions)
    came: list[str] = []
    for turn in range(4):
        if turn == 1:
            async with migration.begin() as connection:
                await connection.execute(text("ALTER TABLE seen_account ALTER id TYPE bigint"))
        async with sessions() as session:
            session.add_all([Account(owner="a"), Account(owner="b")])
            try:
                await session.commit()
                came.append("ok")
            except Exception as error:
                came.append(type(error).__name__)
    await engine.dispose()
    await migration.dispose()
    assert came == ["ok", "NotSupportedError", "ok", "ok"]


class Mood(enum.Enum):
    happy = "h"
    sad = "s"


HOME = MetaData(schema="home")


class Own(DeclarativeBase):
    metadata = HOME


class Entry(Own):
    __tablename__ = "seen_entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    mood: Mapped[Mood] = mapped_column(Enum(Mood, name="seen_mood", metadata=HOME))


async def test_an_enum_of_a_tenant(database_url: str) -> None:
    engine = create_async_engine(
        database_url, execution_options={"schema_translate_map": {"home": "tenant"}}
    )
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA tenant"))
        await connection.run_sync(HOME.create_all)
    sessions = async_sessionmaker(engine)
    enable_batch_inserting(sessions)
    async with sessions.begin() as session:
        session.add_all([Entry(mood=Mood.happy), Entry(mood=Mood.sad)])
    async with sessions() as session:
        assert set(await session.scalars(select(Entry.mood))) == {Mood.happy, Mood.sad}
    await engine.dispose()


async def test_a_sessionmaker_of_async_sessions(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = sessionmaker(engine, class_=AsyncSession)  # type: ignore[call-overload]  # as older tutorials have it
    enable_batch_inserting(sessions)
    heard: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *given: heard.append(given[2]))
    async with sessions() as session:
        session.add_all([Account(owner="a"), Account(owner="b")])
        await session.commit()
    assert any("INSERT" in one and "unnest(" in one for one in heard)
