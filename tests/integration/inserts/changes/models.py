"""Models whose rows are changed and deleted, each with what makes SQLAlchemy send it singly."""

# ruff: noqa: RUF012, A003  # how SQLAlchemy's declarative classes are written

from __future__ import annotations

import enum
import itertools
import uuid
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    DDL,
    JSON,
    Computed,
    DateTime,
    Dialect,
    FetchedValue,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    String,
    Uuid,
    event,
    func,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import UserDefinedType


class Base(DeclarativeBase):
    """All of them."""


class Row(Base):
    __tablename__ = "row"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    b: Mapped[int | None]
    c: Mapped[str | None]
    d: Mapped[int | None]
    e: Mapped[int | None]


class Mood(enum.Enum):
    GLAD = "g"
    SAD = "s"


class Typed(Base):
    __tablename__ = "typed"
    id: Mapped[int] = mapped_column(primary_key=True)
    mood: Mapped[Mood | None]
    price: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    is_on: Mapped[bool | None]
    data: Mapped[Any | None] = mapped_column(JSON)
    short: Mapped[str | None] = mapped_column(String(5))
    half: Mapped[float | None]


class Composite(Base):
    __tablename__ = "composite"
    x: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    y: Mapped[str] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    b: Mapped[int | None]


class Counted(Base):
    __tablename__ = "counted"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    b: Mapped[int | None]
    v: Mapped[int | None] = mapped_column(Integer)
    __mapper_args__ = {"version_id_col": v}


class Quiet(Base):
    __tablename__ = "quiet"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    v: Mapped[int] = mapped_column(Integer)
    __mapper_args__ = {"version_id_col": v, "confirm_deleted_rows": False}


class Token(Base):
    __tablename__ = "token"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    v: Mapped[uuid.UUID] = mapped_column(Uuid)
    __mapper_args__ = {
        "version_id_col": v,
        "version_id_generator": lambda old: uuid.UUID(int=old.int + 1 if old else 1),
    }


class Stamped(Base):
    __tablename__ = "stamped"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    v: Mapped[int] = mapped_column(server_default=text("1"), server_onupdate=FetchedValue())
    __mapper_args__ = {"version_id_col": v, "version_id_generator": False}


class Xid(UserDefinedType[Any]):
    cache_ok = True
    render_bind_cast = True

    def get_col_spec(self, **_: Any) -> str:
        return "XID"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        return None if dialect.driver == "asyncpg" else str


class System(Base):
    __tablename__ = "system"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    v = mapped_column("xmin", Xid, system=True, server_default=FetchedValue())
    __mapper_args__ = {"version_id_col": v, "version_id_generator": False}


class Eager(Base):
    __tablename__ = "eager"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    t: Mapped[int | None] = mapped_column(onupdate=func.length("four"))
    __mapper_args__ = {"eager_defaults": True}


class Touched(Base):
    __tablename__ = "touched"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    t: Mapped[int | None] = mapped_column(server_onupdate=FetchedValue())
    __mapper_args__ = {"eager_defaults": True}


class Clock(Base):
    __tablename__ = "clock"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    b: Mapped[int | None]
    t: Mapped[int | None] = mapped_column(onupdate=func.length("four"))
    g: Mapped[int | None] = mapped_column(Computed("a * 2", persisted=True))


calls = itertools.count(1)


class Called(Base):
    __tablename__ = "called"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    b: Mapped[int | None]
    t: Mapped[int | None] = mapped_column(onupdate=lambda: next(calls))


class Page(Base):
    __tablename__ = "page"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[int | None]
    v: Mapped[int] = mapped_column(Integer)
    __mapper_args__ = {
        "polymorphic_on": "kind",
        "polymorphic_identity": "page",
        "version_id_col": v,
    }


class Article(Page):
    __tablename__ = "article"
    id: Mapped[int] = mapped_column(ForeignKey("page.id"), primary_key=True)
    words: Mapped[int | None]
    lines: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "article"}


class Seat(Base):
    __tablename__ = "seat"
    id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(unique=True)
    a: Mapped[int | None]
    b: Mapped[int | None]


class Slot(Base):
    """Unique by a stored generated column, among those that are open."""

    __tablename__ = "slot"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]
    is_open: Mapped[bool]
    a: Mapped[int | None]
    double: Mapped[int] = mapped_column(Computed("n * 2", persisted=True))
    __table_args__ = (Index("one_open", "double", unique=True, postgresql_where=text("is_open")),)


class Booking(Base):
    __tablename__ = "booking"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]
    b: Mapped[int | None]


class Seen(Base):
    """What the triggers of bookings saw."""

    __tablename__ = "seen"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    n: Mapped[int | None]


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    favourite_id: Mapped[int | None] = mapped_column(
        ForeignKey("item.id", name="favourite", use_alter=True)
    )
    v: Mapped[int] = mapped_column(Integer)
    items: Mapped[list[Item]] = relationship(
        foreign_keys="Item.owner_id", back_populates="owner", cascade="all, delete-orphan"
    )
    favourite: Mapped[Item | None] = relationship(foreign_keys=[favourite_id], post_update=True)
    __mapper_args__ = {"version_id_col": v}


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owner.id"), index=True)
    owner: Mapped[Owner | None] = relationship(foreign_keys=[owner_id], back_populates="items")


class Parent(Base):
    """Its children are left behind, and its pets go with it."""

    __tablename__ = "parent"
    id: Mapped[int] = mapped_column(primary_key=True)
    children: Mapped[list[Child]] = relationship(order_by="Child.n.desc()")
    pets: Mapped[list[Pet]] = relationship(back_populates="owner", cascade="all, delete-orphan")


class Child(Base):
    __tablename__ = "child"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]
    is_hidden: Mapped[bool]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("parent.id"), index=True)


class Pet(Base):
    __tablename__ = "pet"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("parent.id"), index=True)
    owner: Mapped[Parent | None] = relationship(back_populates="pets")


class Node(Base):
    __tablename__ = "node"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("node.id"), index=True)
    nodes: Mapped[list[Node]] = relationship(cascade="all, delete-orphan", back_populates="parent")
    parent: Mapped[Node | None] = relationship(remote_side=[id], back_populates="nodes")


def _trigger(table: str, name: str, when: str, body: str) -> None:
    """Have a table made with a trigger."""
    function = (
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {body} END $$"
    )
    trigger = f"CREATE TRIGGER {name} {when.format(table)} EXECUTE FUNCTION {name}()"
    for sql in (function, trigger):
        made: Any = DDL(sql)  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so
        event.listen(Base.metadata.tables[table], "after_create", made)


_trigger(
    "stamped",
    "stamp",
    "BEFORE UPDATE ON {} FOR EACH ROW",
    "new.v := old.v + 1; RETURN new;",
)
_trigger("touched", "touch", "BEFORE UPDATE ON {} FOR EACH ROW", "new.t := new.id + 5; RETURN new;")
_trigger(
    "booking",
    "see_sum",
    "AFTER UPDATE ON {} FOR EACH ROW",
    "INSERT INTO seen (kind, n) SELECT 'sum', sum(amount) FROM booking; RETURN NULL;",
)
_trigger(
    "booking",
    "see_rows",
    "AFTER UPDATE ON {} REFERENCING NEW TABLE AS changed FOR EACH STATEMENT",
    "INSERT INTO seen (kind, n) SELECT 'rows', count(*) FROM changed; RETURN NULL;",
)
_trigger(
    "booking",
    "see_b",
    "BEFORE UPDATE OF b ON {} FOR EACH ROW",
    "INSERT INTO seen (kind, n) VALUES ('b', new.id); RETURN new;",
)
