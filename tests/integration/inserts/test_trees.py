"""Trees, which SQLAlchemy inserts level by level and we at once: nobody can tell."""

# ruff: noqa: RUF012  # how SQLAlchemy's declarative classes are written

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from sqlalchemy import JSON, Column, ForeignKey, String, Table, TypeDecorator, event, inspect
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from tests.integration.inserts.differential import differential, look

calls: list[str] = []
numbers = count(1)


class Numbered(TypeDecorator[str]):
    """Gives each value that goes in a number."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        calls.append(f"bound {value}")
        return None if value is None else f"{value}#{next(numbers)}"


def called(name: str) -> Callable[[], str]:
    def default() -> str:
        calls.append(f"default of {name}")
        return f"{name}{next(numbers)}"

    return default


class Base(DeclarativeBase):
    pass


class Folder(Base):
    """A table that refuses nothing."""

    __tablename__ = "tree_folder"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str | None]
    stamp = mapped_column(Numbered, default="none")
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("tree_folder.id"))
    parent: Mapped[Folder | None] = relationship(remote_side="Folder.id", back_populates="children")
    children: Mapped[list[Folder]] = relationship(back_populates="parent")
    __mapper_args__ = {
        "polymorphic_on": "kind",
        "polymorphic_identity": "folder",
    }


class Mailbox(Folder):
    __mapper_args__ = {"polymorphic_identity": "mailbox"}


class Letter(Base):
    """An answer to another; its default is made and its type asked at each level."""

    __tablename__ = "tree_letter"
    id: Mapped[int] = mapped_column(primary_key=True)
    stamp = mapped_column(Numbered, default=called("letter"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("tree_letter.id"))
    parent: Mapped[Letter | None] = relationship(remote_side="Letter.id")


class Owner(Base):
    __tablename__ = "tree_owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    said: Mapped[str] = mapped_column(default=called("owner"))


class Pet(Base):
    """After owners, in a round that trees of three levels are not through with."""

    __tablename__ = "tree_pet"
    id: Mapped[int] = mapped_column(primary_key=True)
    said: Mapped[str] = mapped_column(default=called("pet"))
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("tree_owner.id"))
    owner: Mapped[Owner | None] = relationship()


class Page(Base):
    """One whose parent does not know it, and who has an owner, too."""

    __tablename__ = "tree_page"
    id: Mapped[int] = mapped_column(primary_key=True)
    said: Mapped[str] = mapped_column(default=called("page"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("tree_page.id"))
    parent: Mapped[Page | None] = relationship(remote_side="Page.id")
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("tree_owner.id"))
    owner: Mapped[Owner | None] = relationship()


class Person(Base):
    __tablename__ = "tree_person"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    mother_id: Mapped[int | None] = mapped_column(ForeignKey("tree_person.id"))
    mother: Mapped[Person | None] = relationship(remote_side="Person.id")
    friends: Mapped[list[Person]] = relationship(
        secondary="tree_friend",
        primaryjoin="Person.id == tree_friend.c.person_id",
        secondaryjoin="Person.id == tree_friend.c.friend_id",
    )


Table(
    "tree_friend",
    Base.metadata,
    Column("person_id", ForeignKey("tree_person.id"), primary_key=True),
    Column("friend_id", ForeignKey("tree_person.id"), primary_key=True),
    Column("said", String, default=called("friend")),
)


class Branch(Base):
    """A table that refuses a name that is there."""

    __tablename__ = "tree_branch"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    made = mapped_column(String, server_default="now")
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("tree_branch.id"))
    parent: Mapped[Branch | None] = relationship(remote_side="Branch.id", back_populates="children")
    children: Mapped[list[Branch]] = relationship(back_populates="parent")
    leaves: Mapped[list[Leaf]] = relationship(back_populates="branch")


class Sprig(Base):
    """A table that refuses names that are too long, and a type that is particular."""

    __tablename__ = "tree_sprig"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(9))
    mood = mapped_column(JSON)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("tree_sprig.id"))
    parent: Mapped[Sprig | None] = relationship(remote_side="Sprig.id")


class Crate(Base):
    """One that does not know in which it is."""

    __tablename__ = "tree_crate"
    id: Mapped[int] = mapped_column(primary_key=True)
    outer_id: Mapped[int | None] = mapped_column(ForeignKey("tree_crate.id"))
    contents: Mapped[list[Crate]] = relationship()


class Leaf(Base):
    __tablename__ = "tree_leaf"
    id: Mapped[int] = mapped_column(primary_key=True)
    branch_id: Mapped[int] = mapped_column(ForeignKey("tree_branch.id"))
    branch: Mapped[Branch] = relationship(back_populates="leaves")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    calls.clear()


def flushed(session: Session, made: list[Any]) -> Any:
    """Return what a flush leaves of objects, whether or not it fails, and what it called."""
    global numbers  # noqa: PLW0603  # each run counts from one
    numbers = count(1)
    calls.clear()
    session.add_all(made)
    try:
        session.flush()
    except (DBAPIError, StatementError) as error:
        return type(error), look(*made)
    told = look(*made), calls[:]
    session.commit()
    return told


def siblings_in_turns(session: Session) -> Any:
    """A type is asked level by level, of whatever class the objects are."""
    root = Folder(stamp="a")
    low = Mailbox(parent=root)
    return flushed(session, [low, root, Folder(stamp="b"), Mailbox(parent=low, stamp="c")])


def siblings_of_which_one_brings_its_key(session: Session) -> Any:
    """A key is given to who lacks one, though its sibling was added before its parent."""
    root = Folder(id=70, stamp="a")
    return flushed(session, [Mailbox(parent=root, stamp="b"), root])


def beside_the_child_of_one_that_is_there(session: Session) -> Any:
    """SQLAlchemy carries that key first, and inserts the child after those without a parent."""
    there = Page(said="there")
    session.add(there)
    session.flush()
    first, root = Page(said="a", parent=there), Page(said="b")
    return flushed(session, [first, root, Page(said="c", parent=root)])


def some_with_an_owner_that_is_there(session: Session) -> Any:
    """Who has an owner comes with the children of those who have none."""
    owner = Owner(said="here")
    session.add(owner)
    session.flush()
    root = Page(said="a")
    return flushed(
        session, [root, Page(said="b", parent=root), Page(said="c", owner_id=None, owner=owner)]
    )


def some_with_an_owner_that_is_new(session: Session) -> Any:
    owner, root = Owner(said="new"), Page(said="a")
    child = Page(said="b", parent=root)
    return flushed(session, [child, root, Page(said="c", owner=owner), owner])


def beside_another_table(session: Session) -> Any:
    """A pet comes after its owner, and before the grandchildren of pages."""
    owner, root = Owner(said="here"), Page(said="a")
    child = Page(said="b", parent=root)
    return flushed(session, [Pet(owner=owner), Page(parent=child), child, root, owner])


def defaults_and_types_in_turns(session: Session) -> Any:
    """Of each level defaults are called, then its types are asked."""
    top = Letter()
    return flushed(session, [top, Letter(parent=top), Letter(parent=top)])


def friends(session: Session) -> Any:
    """A class that many-to-many connects with itself is no tree, and all its rows go in."""
    one, two, three = (Person(name=name) for name in "abc")
    one.friends = [two, three]
    return flushed(session, [one, two, three])


def friends_of_several_levels(session: Session) -> Any:
    """Rows between two tables are inserted as soon as both ends are there."""
    one, two = Person(name="a"), Person(name="b")
    three = Person(name="c", mother=one)
    one.friends, three.friends = [two], [one, two]
    return flushed(session, [three, two, one])


def leaves_of_two_branches(session: Session) -> Any:
    """The branch that a leaf knows counts, and not the one whose list it was not taken from."""
    made: list[Any] = []
    for number in range(8):
        one, two, leaf = Branch(name=f"{number}"), Branch(name=f"{number}+"), Leaf()
        one.leaves += [leaf, leaf]
        two.leaves.append(leaf)
        made += [one, two, leaf]
    return flushed(session, made)


def crates_in_two_others(session: Session) -> Any:
    """The one that comes later counts."""
    made: list[Any] = []
    for _ in range(8):
        outer, middle, inner = Crate(), Crate(), Crate()
        outer.contents, middle.contents = [inner, middle], [inner]
        made += [inner, middle, outer]
    return flushed(session, made)


def a_grandchild_refused(session: Session) -> Any:
    """The levels above have their keys, the children and leaves those of their parents."""
    root = Branch(name="a", leaves=[Leaf()])
    child, other = Branch(name="b", parent=root, leaves=[Leaf()]), Branch(name="c", parent=root)
    low = Branch(name="a", parent=child, leaves=[Leaf()])
    lowest = Branch(name="d", parent=low)
    leaves = [*root.leaves, *child.leaves, *low.leaves]
    return flushed(session, [lowest, low, child, other, root, *leaves])


def a_child_refused_among_others(session: Session) -> Any:
    root = Branch(name="a")
    rest = [Branch(name=name, parent=root) for name in "bac"]
    return flushed(session, [root, *rest, Branch(name="d", parent=rest[0])])


def a_child_with_a_key_that_is_there(session: Session) -> Any:
    """A table that refuses nothing else refuses that."""
    session.add(Folder(id=9))
    session.flush()
    root = Folder(stamp="a")
    session.expunge_all()
    return flushed(session, [root, Folder(id=9, parent=root), Folder(parent=root)])


def a_reference_that_is_wrong(session: Session) -> Any:
    root = Page(said="a")
    child = Page(said="b", parent=root)
    return flushed(session, [root, child, Page(said="c", parent_id=77), Page(parent=child)])


def a_value_that_its_type_does_not_take(session: Session) -> Any:
    root = Sprig(name="a", mood=["good"])
    child = Sprig(name="b", parent=root, mood={1, 2})
    return flushed(session, [root, child, Sprig(name="c", parent=child)])


def refused_while_somebody_listens(session: Session) -> Any:
    """Carried keys are told once."""
    heard: list[Any] = []

    def hear(target: Any, value: Any, *_: Any) -> None:
        heard.append((inspect(target).class_.__name__, value))

    event.listen(Branch.parent_id, "set", hear)
    try:
        root = Branch(name="a")
        child = Branch(name="b", parent=root)
        return flushed(session, [root, child, Branch(name="a", parent=child)]), heard
    finally:
        event.remove(Branch.parent_id, "set", hear)


def a_second_kind_of_rows_refused(session: Session) -> Any:
    """No tree, but as much told of the rows before: they have their keys."""
    session.add(Owner(id=9, said="x"))
    session.flush()
    session.expunge_all()
    return flushed(session, [Owner(said="a"), Owner(id=9, said="b"), Owner(said="c")])


def a_second_kind_of_rows_that_cannot_be_bound(session: Session) -> Any:
    made = [Sprig(name="a"), Sprig(id=8, name="b", mood={1, 2}), Sprig(name="c")]
    return flushed(session, made)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize(
    "script",
    [
        siblings_in_turns,
        siblings_of_which_one_brings_its_key,
        beside_the_child_of_one_that_is_there,
        some_with_an_owner_that_is_there,
        some_with_an_owner_that_is_new,
        beside_another_table,
        defaults_and_types_in_turns,
        friends,
        friends_of_several_levels,
        leaves_of_two_branches,
        crates_in_two_others,
        a_grandchild_refused,
        a_child_refused_among_others,
        a_child_with_a_key_that_is_there,
        a_reference_that_is_wrong,
        a_value_that_its_type_does_not_take,
        refused_while_somebody_listens,
        a_second_kind_of_rows_refused,
        a_second_kind_of_rows_that_cannot_be_bound,
    ],
)
async def test_a_tree_comes_out_as_sqlalchemys(database_url: str, driver: str, script: Any) -> None:
    url = database_url.replace("+asyncpg", f"+{driver}")
    await differential(url, Base.metadata, script)


async def test_a_tree_is_still_one_statement(database_url: str) -> None:
    seen = await differential(database_url, Base.metadata, siblings_in_turns)
    assert len([sql for sql in seen.statements if sql.startswith("INSERT")]) == 1


async def test_a_tree_that_may_be_refused_is_one_statement(database_url: str) -> None:
    def script(session: Session) -> Any:
        root = Branch(name="a")
        child = Branch(name="b", parent=root)
        return flushed(session, [root, child, Branch(name="c", parent=child)])

    seen = await differential(database_url, Base.metadata, script)
    assert len([sql for sql in seen.statements if sql.startswith("INSERT")]) == 1


async def test_keys_are_carried_before_a_connection_is_wanted(database_url: str) -> None:
    """A savepoint without a transaction is refused; by then a child knows its parent's key."""

    def script(session: Session) -> Any:
        there = Page(said="there")
        session.add(there)
        session.commit()
        session.begin_nested()
        child = Page(said="a", parent=there)
        return flushed(session, [child, Page(said="b", parent=child)])

    options = {"isolation_level": "AUTOCOMMIT"}
    seen = await differential(database_url, Base.metadata, script, engine_options=options)
    assert seen.result[0] is DBAPIError
