"""Parents with children of every kind of relationship, and what of them is there to be read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Table
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    attribute_keyed_dict,
    mapped_column,
    relationship,
)


class Base(DeclarativeBase):
    pass


tagging = Table(
    "tagging",
    Base.metadata,
    Column("parent_id", ForeignKey("parent.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)


class Parent(Base):
    __tablename__ = "parent"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]
    kids: Mapped[list[Kid]] = relationship(back_populates="parent", order_by="Kid.x.desc(), Kid.id")
    only: Mapped[Only | None] = relationship(back_populates="parent", uselist=False)
    tags: Mapped[list[Tag]] = relationship(secondary=tagging, order_by=Tag.id)
    joined: Mapped[list[Kid]] = relationship(viewonly=True, omit_join=False, order_by="Kid.id")
    big: Mapped[list[Kid]] = relationship(
        primaryjoin="and_(Parent.id == foreign(Kid.parent_id), Kid.x > 1)", viewonly=True,
        order_by="Kid.id",
    )  # fmt: skip
    by_id: Mapped[dict[int, Kid]] = relationship(
        viewonly=True, collection_class=attribute_keyed_dict("id")
    )
    as_set: Mapped[set[Kid]] = relationship(viewonly=True)


class Kid(Base):
    __tablename__ = "kid"
    id: Mapped[int] = mapped_column(primary_key=True)
    x: Mapped[int]
    y: Mapped[str | None]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey(Parent.id))
    parent: Mapped[Parent | None] = relationship(back_populates="kids")
    toys: Mapped[list[Toy]] = relationship(order_by="Toy.id")


class Only(Base):
    __tablename__ = "only"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey(Parent.id))
    parent: Mapped[Parent | None] = relationship(back_populates="only")


class Toy(Base):
    __tablename__ = "toy"
    id: Mapped[int] = mapped_column(primary_key=True)
    z: Mapped[int]
    kid_id: Mapped[int | None] = mapped_column(ForeignKey(Kid.id))


class Node(Base):
    __tablename__ = "node"
    id: Mapped[int] = mapped_column(primary_key=True)
    up_id: Mapped[int | None] = mapped_column(ForeignKey("node.id"))
    below: Mapped[list[Node]] = relationship(back_populates="up", order_by="Node.id")
    up: Mapped[Node | None] = relationship(back_populates="below", remote_side=[id])  # noqa: A003


class Deep(Base):
    """A tree that a mapper itself loads two levels of."""

    __tablename__ = "deep"
    id: Mapped[int] = mapped_column(primary_key=True)
    up_id: Mapped[int | None] = mapped_column(ForeignKey("deep.id"))
    below: Mapped[list[Deep]] = relationship(lazy="selectin", join_depth=2, order_by="Deep.id")


class Pair(Base):
    __tablename__ = "pair"
    a: Mapped[int] = mapped_column(primary_key=True)
    b: Mapped[str] = mapped_column(primary_key=True)
    halves: Mapped[list[Half]] = relationship(back_populates="pair", order_by="Half.id")


class Half(Base):
    __tablename__ = "half"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    b: Mapped[str | None]
    pair: Mapped[Pair | None] = relationship(back_populates="halves")
    __table_args__ = (ForeignKeyConstraint(["a", "b"], ["pair.a", "pair.b"]),)


class Firm(Base):
    __tablename__ = "firm"
    id: Mapped[int] = mapped_column(primary_key=True)
    staff: Mapped[list[Person]] = relationship(back_populates="firm", order_by="Person.id")


class Person(Base):
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    firm_id: Mapped[int | None] = mapped_column(ForeignKey(Firm.id))
    firm: Mapped[Firm | None] = relationship(back_populates="staff")
    __mapper_args__: Any = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012  its form


class Manager(Person):
    """In a table of its own."""

    __tablename__ = "manager"
    id: Mapped[int] = mapped_column(ForeignKey(Person.id), primary_key=True)
    level: Mapped[int]
    cars: Mapped[list[Car]] = relationship(order_by="Car.id")
    __mapper_args__: Any = {"polymorphic_identity": "manager"}  # noqa: RUF012  its form


class Worker(Person):
    """In the table of all."""

    skill: Mapped[int | None]
    tools: Mapped[list[Tool]] = relationship(order_by="Tool.id")
    __mapper_args__: Any = {"polymorphic_identity": "worker"}  # noqa: RUF012  its form


class Car(Base):
    __tablename__ = "car"
    id: Mapped[int] = mapped_column(primary_key=True)
    manager_id: Mapped[int] = mapped_column(ForeignKey(Manager.id))


class Tool(Base):
    __tablename__ = "tool"
    id: Mapped[int] = mapped_column(primary_key=True)
    worker_id: Mapped[int] = mapped_column(ForeignKey(Person.id))


def objects() -> list[Any]:
    """Everything, the same each time."""
    tags = [Tag(id=i) for i in range(1, 5)]
    numbers = iter(range(1, 1000))

    def kid(i: int, j: int) -> Kid:
        toys = [Toy(id=next(numbers), z=z) for z in range(j)]
        return Kid(id=next(numbers), x=(i * 7 + j) % 5, y="ab"[j % 2], toys=toys)

    parents = [
        Parent(
            id=i,
            n=i % 4,
            kids=[kid(i, j) for j in range(i % 4)],
            only=Only(id=i) if i % 2 else None,
            tags=tags[: i % 4],
        )
        for i in range(1, 13)
    ]

    def tree(cls: Any) -> Any:
        return cls(id=1, below=[
            cls(id=2, below=[cls(id=4), cls(id=5, below=[cls(id=6)])]), cls(id=3),
        ])  # fmt: skip

    pairs = [
        Pair(a=i, b=c, halves=[Half(id=next(numbers)) for _ in range(i)])
        for i in range(3)
        for c in "xy"
    ]
    firms = [
        Firm(id=i, staff=[
            Manager(id=10 * i + 1, level=i, cars=[Car(id=i)]),
            Worker(id=10 * i + 2, skill=i, tools=[Tool(id=2 * i), Tool(id=2 * i + 1)]),
            Person(id=10 * i + 3),
        ][: i + 1])
        for i in range(3)
    ]  # fmt: skip
    alone = [Kid(id=next(numbers), x=0, parent_id=None), Half(id=next(numbers), a=1)]
    return [*parents, tree(Node), tree(Deep), *pairs, *firms, *alone]
