"""Mapped classes in the shapes that the tests promise to keep."""

# ruff: noqa: RUF012, A003  # how SQLAlchemy's declarative classes are written

from __future__ import annotations

import enum
import itertools
import uuid
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Computed,
    Enum,
    ForeignKey,
    Identity,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INTERVAL, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship


class Base(DeclarativeBase):
    """All of them."""


counter = itertools.count(1)


class Plain(Base):
    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), unique=True)
    value: Mapped[int | None]


class Parent(Base):
    __tablename__ = "parent"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("'2020-01-01'"))
    children: Mapped[list[Child]] = relationship(
        back_populates="parent", cascade="all, delete-orphan"
    )
    __mapper_args__ = {"eager_defaults": True}


class Child(Base):
    __tablename__ = "child"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id"))
    name: Mapped[str]
    parent: Mapped[Parent] = relationship(back_populates="children")


post_tag = Table(
    "post_tag",
    Base.metadata,
    Column("post_id", ForeignKey("post.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Post(Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    tags: Mapped[list[Tag]] = relationship(secondary=post_tag, back_populates="posts")


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    posts: Mapped[list[Post]] = relationship(secondary=post_tag, back_populates="tags")


class Node(Base):
    __tablename__ = "node"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("node.id"))
    children: Mapped[list[Node]] = relationship(back_populates="parent")
    parent: Mapped[Node | None] = relationship(back_populates="children", remote_side=[id])


class Person(Base):
    """Two persons may be each other's favourite: a circle through post_update."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    favourite_id: Mapped[int | None] = mapped_column(ForeignKey("person.id"))
    favourite: Mapped[Person | None] = relationship(remote_side=[id], post_update=True)


class Vehicle(Base):
    __tablename__ = "vehicle"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}


class Car(Vehicle):
    __tablename__ = "car"
    id: Mapped[int] = mapped_column(ForeignKey("vehicle.id"), primary_key=True)
    doors: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "car"}


class Boat(Vehicle):
    __tablename__ = "boat"
    boat_id: Mapped[int] = mapped_column(ForeignKey("vehicle.id"), primary_key=True)
    length: Mapped[float]
    __mapper_args__ = {"polymorphic_identity": "boat"}


class Animal(Base):
    __tablename__ = "animal"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}


class Dog(Animal):
    tricks: Mapped[int | None] = mapped_column(default=3)
    __mapper_args__ = {"polymorphic_identity": "dog"}


class Cat(Animal):
    lives: Mapped[int | None] = mapped_column(server_default="9")
    __mapper_args__ = {"polymorphic_identity": "cat"}


class Shape(Base):
    __tablename__ = "shape"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Circle(Shape):
    __tablename__ = "circle"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    radius: Mapped[float]
    __mapper_args__ = {"concrete": True}


class Defaults(Base):
    __tablename__ = "defaults"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    scalar: Mapped[int] = mapped_column(default=7)
    called: Mapped[int] = mapped_column(default=lambda: next(counter))
    called_too: Mapped[int] = mapped_column(default=lambda: next(counter))
    server: Mapped[str | None] = mapped_column(server_default="made")
    touched: Mapped[datetime | None] = mapped_column(onupdate=func.now())
    doubled: Mapped[int | None] = mapped_column(Computed("scalar * 2"))


class Eager(Base):
    """Loads what the insert leaves unloaded at once, which gives it its key early."""

    __tablename__ = "eager"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    touched: Mapped[datetime | None] = mapped_column(onupdate=func.now())
    kids: Mapped[list[EagerKid]] = relationship()
    __mapper_args__ = {"eager_defaults": True}


class EagerKid(Base):
    __tablename__ = "eager_kid"
    id: Mapped[int] = mapped_column(primary_key=True)
    eager_id: Mapped[int] = mapped_column(ForeignKey("eager.id"))


class Lazy(Base):
    """Server defaults are expired and loaded when looked at."""

    __tablename__ = "lazy"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    server: Mapped[str | None] = mapped_column(server_default="made")
    __mapper_args__ = {"eager_defaults": False}


class ByContext(Base):
    __tablename__ = "by_context"
    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True, server_default=text("gen_random_uuid()")
    )
    name: Mapped[str]
    upper: Mapped[str] = mapped_column(
        default=lambda context: context.get_current_parameters()["name"].upper()
    )


class WithUuid(Base):
    __tablename__ = "with_uuid"
    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True, server_default=text("gen_random_uuid()")
    )
    name: Mapped[str]


class Always(Base):
    __tablename__ = "always"
    id: Mapped[int] = mapped_column(Identity(always=True, start=10), primary_key=True)
    name: Mapped[str]


class ByDefault(Base):
    __tablename__ = "by_default"
    id: Mapped[int] = mapped_column(BigInteger, Identity(increment=5), primary_key=True)
    name: Mapped[str]
    state: Mapped[str | None] = mapped_column(server_default="new")


class Composite(Base):
    __tablename__ = "composite"
    left: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    right: Mapped[str] = mapped_column(primary_key=True)
    note: Mapped[str | None]


class Versioned(Base):
    __tablename__ = "versioned"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[int] = mapped_column(Integer)
    __mapper_args__ = {"version_id_col": version}


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Shouting(TypeDecorator[str]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        if value == "!":
            raise ValueError("nothing to shout")
        return None if value is None else value.upper()

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else value.lower()


class Types(Base):
    __tablename__ = "types"
    id: Mapped[int] = mapped_column(primary_key=True)
    small: Mapped[int | None] = mapped_column(SmallInteger)
    big: Mapped[int | None] = mapped_column(BigInteger)
    number: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    real: Mapped[float | None]
    flag: Mapped[bool | None]
    words: Mapped[str | None] = mapped_column(Text)
    short: Mapped[str | None] = mapped_column(String(5))
    data: Mapped[bytes | None] = mapped_column(LargeBinary)
    day: Mapped[date | None]
    hour: Mapped[time | None]
    moment: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True))
    naive: Mapped[datetime | None]
    lasting: Mapped[timedelta | None] = mapped_column(INTERVAL)
    colour: Mapped[Colour | None] = mapped_column(Enum(Colour))
    loose: Mapped[str | None] = mapped_column(Enum("a", "b", native_enum=False))
    document: Mapped[Any] = mapped_column(JSON, nullable=True)
    binary_document: Mapped[Any] = mapped_column(JSONB(none_as_null=True), nullable=True)
    key: Mapped[uuid.UUID | None]
    shouted: Mapped[str | None] = mapped_column(Shouting)


class Arrays(Base):
    """A type that only SQLAlchemy sends, and a key from the server: prefetch."""

    __tablename__ = "arrays"
    id: Mapped[int] = mapped_column(primary_key=True)
    numbers: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))
    state: Mapped[str | None] = mapped_column(server_default="new")


class Quoted(Base):
    __tablename__ = 'odd "name" % here'
    id: Mapped[int] = mapped_column("ID of it", primary_key=True)
    value: Mapped[str] = mapped_column("per cent %")
    other: Mapped[str | None] = mapped_column("select", server_default="x")


class Long(Base):
    __tablename__ = "t" * 63
    id: Mapped[int] = mapped_column("i" * 63, primary_key=True)
    name: Mapped[str | None] = mapped_column("n" * 63)
    state: Mapped[str | None] = mapped_column(server_default="x")


class Deferred(Base):
    __tablename__ = "deferred"
    __table_args__ = (UniqueConstraint("place", deferrable=True, initially="DEFERRED"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int]


class Total(Base):
    """A read-only attribute that a SELECT computes."""

    __tablename__ = "total"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


Total.plains = column_property(select(func.count(Plain.id)).scalar_subquery())
