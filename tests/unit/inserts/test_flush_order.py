"""The order of a flush by its mappers alone, against the actions that SQLAlchemy makes of it."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Table, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.orm.unitofwork import UOWTransaction

from async_loader.inserts.flush_order import lane

# ruff: noqa: RUF012  # how SQLAlchemy's declarative classes are written


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    books: Mapped[list[Book]] = relationship(secondary="wrote", back_populates="authors")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "author"}


class Poet(Author):
    __mapper_args__ = {"polymorphic_identity": "poet"}


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    shop_id: Mapped[int | None] = mapped_column(ForeignKey("shop.id"))
    authors: Mapped[list[Author]] = relationship(secondary="wrote", back_populates="books")
    shop: Mapped[Shop | None] = relationship()
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "book"}


class Novel(Book):
    __mapper_args__ = {"polymorphic_identity": "novel"}


class Shop(Base):
    __tablename__ = "shop"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "shop"}


class Stall(Shop):
    __mapper_args__ = {"polymorphic_identity": "stall"}


Table(
    "wrote",
    Base.metadata,
    Column("author_id", ForeignKey("author.id"), primary_key=True),
    Column("book_id", ForeignKey("book.id"), primary_key=True),
)


@pytest.mark.parametrize(
    "classes",
    [
        *permutations([Poet, Novel, Stall]),
        *permutations([Author, Novel]),
        *permutations([Poet, Book]),
        *permutations([Novel, Shop]),
        *permutations([Novel, Stall]),
        *permutations([Author, Poet, Novel]),
    ],
    ids=lambda classes: "-".join(cls.__name__ for cls in classes),
)
def test_relationships_count_as_they_do_for_sqlalchemy(classes: tuple[type[Any], ...]) -> None:
    with Session() as session:
        made = [cls() for cls in classes]
        session.add_all(made)
        uow: Any = UOWTransaction(session)
        for one in made:
            uow.register_object(inspect(one))
        found = lane(list(uow.mappers))
        actions = uow._generate_actions()
    processed = {
        action.dependency_processor
        for action in actions
        if type(action).__name__.endswith("ProcessAll") and not action.isdelete
    }
    assert found is not None
    assert found.reached == processed
