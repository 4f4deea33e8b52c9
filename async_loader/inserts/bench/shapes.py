"""What is inserted: each shape makes the objects, and where it can the plain rows, of a run."""

# ruff: noqa: RUF012, A003  # how SQLAlchemy's declarative classes are written

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ForeignKey, String, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """All tables of all shapes; the connection's search_path says in which schema."""


class Plain(Base):
    """Three columns and a serial key."""

    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    value: Mapped[int]
    score: Mapped[float]


class Parent(Base):
    """A parent with children."""

    __tablename__ = "parent"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    children: Mapped[list[Child]] = relationship(back_populates="parent")


class Child(Base):
    """A child of a parent."""

    __tablename__ = "child"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey(Parent.id), index=True)
    name: Mapped[str]
    parent: Mapped[Parent] = relationship(back_populates="children")


class Vehicle(Base):
    """The base of a joined inheritance."""

    __tablename__ = "vehicle"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}


class Car(Vehicle):
    """One subclass."""

    __tablename__ = "car"
    id: Mapped[int] = mapped_column(ForeignKey(Vehicle.id), primary_key=True)
    doors: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "car"}


class Boat(Vehicle):
    """Another subclass."""

    __tablename__ = "boat"
    id: Mapped[int] = mapped_column(ForeignKey(Vehicle.id), primary_key=True)
    length: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "boat"}


class Node(Base):
    """A node of a tree."""

    __tablename__ = "node"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("node.id"), index=True)
    parent: Mapped[Node | None] = relationship(remote_side=[id])


class Keyed(Base):
    """A key that the server makes, and not by counting."""

    __tablename__ = "keyed"
    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True, server_default=text("gen_random_uuid()")
    )
    name: Mapped[str]
    value: Mapped[int]


class Stated(Base):
    """A server default that half of the objects set themselves."""

    __tablename__ = "stated"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="new")


@dataclass(frozen=True, slots=True)
class Shape:
    """`objects(n)` makes about n objects to add; `rows(n)` the same as dicts, if it can."""

    name: str
    model: type[Any]
    objects: Callable[[int], list[Any]]
    rows: Callable[[int], list[dict[str, Any]]] | None = None
    same_keys: bool = True  # all rows name the same columns


def _plain_rows(count: int) -> list[dict[str, Any]]:
    return [{"name": f"name {i}", "value": i, "score": i / 2} for i in range(count)]


def _family(count: int) -> list[Any]:
    parents = max(1, count // 4)
    return [
        Parent(name=f"parent {i}", children=[Child(name=f"child {n}") for n in range(3)])
        for i in range(parents)
    ]


def _joined(count: int) -> list[Any]:
    return [
        Car(name=f"car {i}", doors=i % 5) if i % 2 else Boat(name=f"boat {i}", length=i)
        for i in range(count)
    ]


def _tree(count: int) -> list[Any]:
    nodes = [Node(name="root")]
    for i in range(1, count):
        nodes.append(Node(name=f"node {i}", parent=nodes[(i - 1) // 2]))
    return nodes


def _keyed_rows(count: int) -> list[dict[str, Any]]:
    return [{"name": f"name {i}", "value": i} for i in range(count)]


def _stated_rows(count: int) -> list[dict[str, Any]]:
    return [{"name": f"name {i}", **({"state": "given"} if i % 2 else {})} for i in range(count)]


def _expressions(count: int) -> list[Any]:
    return [
        Plain(name=func.lower(f"NAME {i}") if i % 2 else f"name {i}", value=i, score=0.5)
        for i in range(count)
    ]


def _objects(
    model: type[Any], rows: Callable[[int], list[dict[str, Any]]]
) -> Callable[[int], list[Any]]:
    return lambda count: [model(**row) for row in rows(count)]


SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("plain", Plain, _objects(Plain, _plain_rows), _plain_rows),
        Shape("family", Parent, _family),
        Shape("joined", Vehicle, _joined),
        Shape("tree", Node, _tree),
        Shape("uuid", Keyed, _objects(Keyed, _keyed_rows), _keyed_rows),
        Shape("defaults", Stated, _objects(Stated, _stated_rows), _stated_rows, same_keys=False),
        Shape("expression", Plain, _expressions),
    )
}
