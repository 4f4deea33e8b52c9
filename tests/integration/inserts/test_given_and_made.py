"""Values that objects bring beside those that are made for them, as SQLAlchemy leaves both."""

from __future__ import annotations

from typing import Any
from uuid import UUID
from warnings import catch_warnings, simplefilter

import pytest
from sqlalchemy import (
    ARRAY,
    DDL,
    JSON,
    Column,
    ForeignKey,
    Identity,
    Integer,
    Sequence,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    event,
    func,
    insert,
    inspect,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from tests.integration.inserts.differential import differential, look


class Base(DeclarativeBase):
    pass


class Basket(Base):
    __tablename__ = "given_basket"
    id = mapped_column(Uuid, primary_key=True, server_default=func.gen_random_uuid())
    name: Mapped[str]
    labels = mapped_column(ARRAY(String), default=list)


PAGES = Sequence("given_page", metadata=Base.metadata)


class Setting(Base):
    __tablename__ = "given_setting"
    id: Mapped[int] = mapped_column(primary_key=True)
    options = mapped_column(JSON, default=dict)


class Receipt(Base):
    __tablename__ = "given_receipt"
    id: Mapped[int] = mapped_column(Sequence("given_receipt_own"), primary_key=True)
    name: Mapped[str]


class Chapter(Base):
    __tablename__ = "given_chapter"
    id: Mapped[int] = mapped_column(primary_key=True)
    number = mapped_column(Integer, server_default=text("nextval('given_page')"))
    name = mapped_column(String(5), unique=True)


class Album(Base):
    __tablename__ = "given_album"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Brand(Base):
    __tablename__ = "given_brand"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Cover(Base):
    __tablename__ = "given_cover"
    id: Mapped[int] = mapped_column(primary_key=True)
    brand_id: Mapped[int] = mapped_column(ForeignKey("given_brand.id"))
    brand: Mapped[Brand] = relationship()
    albums: Mapped[list[Album]] = relationship(secondary="given_cover_album")


Table(
    "given_cover_album",
    Base.metadata,
    Column("cover_id", ForeignKey("given_cover.id"), primary_key=True),
    Column("album_id", ForeignKey("given_album.id"), primary_key=True),
)


class Weight(Base):
    """A table that refuses nothing."""

    __tablename__ = "given_weight"
    id: Mapped[int] = mapped_column(primary_key=True)
    grams: Mapped[int | None]
    label = mapped_column(Text)
    unit: Mapped[str] = mapped_column(server_default="g")


class Note(Base):
    """Another such table."""

    __tablename__ = "given_note"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(server_default="plain")
    body = mapped_column(JSONB)


CALLS: list[str] = []


class Remembered(TypeDecorator[str]):
    """A type that can tell in which order it was asked."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        CALLS.append(f"bound {value}")
        return value


def _numbered() -> str:
    CALLS.append("called")
    return f"number {len(CALLS)}"


class Ticket(Base):
    """Its keys go round, so that sorted they say nothing."""

    __tablename__ = "given_ticket"
    id: Mapped[int] = mapped_column(
        Identity(minvalue=1, maxvalue=900, cycle=True), primary_key=True
    )
    seat = mapped_column(Remembered)
    number = mapped_column(String, default=_numbered)


class Log(Base):
    __tablename__ = "given_log"
    n: Mapped[int] = mapped_column(primary_key=True)
    said: Mapped[str]


_FUNCTION = """
CREATE OR REPLACE FUNCTION given_logged() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
INSERT INTO given_log (said) VALUES (TG_TABLE_NAME); RETURN NULL; END $$
"""


@pytest.fixture(scope="module", autouse=True)
def _triggers() -> None:
    """Have tables log how many statements insert into them."""
    for model in (Setting, Receipt):
        table: Table = model.__table__  # type: ignore[assignment]  # declared with a name
        event.listen(table, "after_create", _ddl(_FUNCTION))
        trigger = (
            "CREATE OR REPLACE TRIGGER given BEFORE INSERT ON %(table)s FOR EACH STATEMENT EXECUTE "
        )
        event.listen(table, "after_create", _ddl(f"{trigger}FUNCTION given_logged()"))


def _ddl(sql: str) -> DDL:
    return DDL(sql)  # type: ignore[no-untyped-call]  # SQLAlchemy's


def settings_without_options(session: Session) -> Any:
    """A default that is not called yet is no value."""
    made = [Setting(options={"a": 1}), Setting(), Setting(options=None)]
    session.add_all(made)
    session.commit()
    return look(*made)


def receipts(session: Session) -> Any:
    """Keys of a sequence that the model names ascend, so one statement inserts them."""
    made = [Receipt(name=name) for name in "abc"]
    session.add_all(made)
    session.commit()
    return look(*made)


def baskets_given_none(session: Session) -> Any:
    """A default in place of the None that was given has nothing to do with it any more."""
    made = [
        Basket(id=UUID(int=97), name="x", labels=None),
        Basket(id=UUID(int=98), name="y", labels=["z"]),
    ]
    made += [
        Basket(id=UUID(int=99), name=func.lower("Z"), labels=None),
        Basket(id=UUID(int=100), name="y"),
    ]
    return flushed(session, made)


def baskets_without_keys(session: Session) -> Any:
    made = [Basket(name="x", labels=None), Basket(name="y", labels=["z"])]
    return flushed(session, made)[0]


def baskets_of_a_key_that_is_there(session: Session) -> Any:
    """The rows before the one that fails have what SQLAlchemy came to give them."""
    session.execute(insert(Basket).values(id=UUID(int=107), name="first"))
    made = [Basket(name="x", labels=None), Basket(id=UUID(int=107), name="y"), Basket(name="z")]
    told, *rest = flushed(session, made)
    return told, [sorted(one.__dict__.keys() - {"_sa_instance_state"}) for one in made], rest[0][1:]


def numbered_before_one_is_refused(session: Session) -> Any:
    """What the server counts is told as far as SQLAlchemy came, and with its numbers."""
    made = [Chapter(name="a"), Chapter(id=901, name="b"), Chapter(name="a")]
    return flushed(session, made)


def carried_before_another_table_is_refused(session: Session) -> Any:
    """Covers come after their brands, and albums after what is carried in between."""
    brand = Brand(id=7)
    made = [brand, Cover(brand=brand), Cover(brand=brand), Album(id=1), Album(id=1)]
    with catch_warnings():
        simplefilter("ignore")  # of the identity that two albums share
        return flushed(session, made)


def weights_of_which_one_is_too_large(session: Session) -> Any:
    """Those that went before have their keys, and what the server made of them."""
    return flushed(session, [Weight(grams=1), Weight(grams=2**40, unit="t"), Weight(grams=2)])


def weights_with_a_label_that_is_no_text(session: Session) -> Any:
    made = [Weight(grams=1), Weight(label="a\0", unit="t"), Weight(grams=2), Weight(unit="kg")]
    return flushed(session, made)


def notes_that_the_server_does_not_take(session: Session) -> Any:
    made = [Note(body=[1]), Note(body=["\0"], kind="odd"), Note(body=[2]), Note(kind="odd")]
    return flushed(session, made)


def weights_with_a_key_that_is_there(session: Session) -> Any:
    session.execute(insert(Weight).values(id=107))
    return flushed(session, [Weight(grams=1), Weight(id=107, grams=3), Weight(grams=2)])


def tickets(session: Session) -> Any:
    """Defaults of all are called before a type is asked, though rows go one by one."""
    CALLS.clear()
    made = [Ticket(seat="a"), Ticket(seat="b"), Ticket(seat="c", number="own"), Ticket(seat="d")]
    return flushed(session, made), CALLS[:]


def flushed(session: Session, made: list[Any]) -> Any:
    seen: list[Any] = []
    event.listen(session, "after_flush", lambda *_: seen.extend(map(committed, made)))
    session.add_all(made)
    try:
        session.flush()
    except DBAPIError as error:
        return type(error), look(*made)
    return seen, look(*made)


def committed(one: Any) -> list[str]:
    state: Any = inspect(one)
    return sorted(state.committed_state)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize(
    "script",
    [
        settings_without_options,
        receipts,
        baskets_given_none,
        baskets_without_keys,
        baskets_of_a_key_that_is_there,
        numbered_before_one_is_refused,
        carried_before_another_table_is_refused,
        weights_of_which_one_is_too_large,
        weights_with_a_label_that_is_no_text,
        notes_that_the_server_does_not_take,
        weights_with_a_key_that_is_there,
        tickets,
    ],
)
async def test_as_sqlalchemy_has_it(database_url: str, driver: str, script: Any) -> None:
    url = database_url.replace("+asyncpg", f"+{driver}")
    await differential(url, Base.metadata, script)
