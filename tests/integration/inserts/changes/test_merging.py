"""Many objects merged at once: what `merge` of each leaves, from a SELECT a class and level."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from sqlalchemy import DDL, ForeignKey, ForeignKeyConstraint, event, inspect, select
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    attribute_keyed_dict,
    defer,
    mapped_column,
    object_session,
    raiseload,
    relationship,
    selectinload,
)
from sqlalchemy.orm.exc import StaleDataError

from async_loader import enable_batching, merge_all
from async_loader.inserts.changes.merging import merge_all_of
from tests.integration.inserts.differential import differential, look

Scenario = Callable[[Session], Any]


class Base(DeclarativeBase):
    """All of them."""


class Label(Base):
    __tablename__ = "label"
    name: Mapped[str] = mapped_column(CITEXT, primary_key=True)
    n: Mapped[int | None]


class Shelf(Base):
    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    label_name: Mapped[str | None] = mapped_column(ForeignKey("label.name"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("shelf.id"))
    v: Mapped[int] = mapped_column()
    label: Mapped[Label | None] = relationship()
    shelves: Mapped[list[Shelf]] = relationship(order_by="Shelf.id")
    books: Mapped[dict[int, Book]] = relationship(
        collection_class=attribute_keyed_dict("n"), cascade="all, delete-orphan"
    )
    cover: Mapped[Cover | None] = relationship(cascade="all, delete-orphan")
    lazy_books: Mapped[list[Book]] = relationship(lazy="raise", viewonly=True)
    __mapper_args__ = {"version_id_col": v}  # noqa: RUF012  how SQLAlchemy's classes are written


class Book(Base):
    __tablename__ = "book"
    shelf_id: Mapped[int] = mapped_column(ForeignKey("shelf.id"), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str | None]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "book"}  # noqa: RUF012


class Novel(Book):
    __tablename__ = "novel"
    shelf_id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    hero: Mapped[str | None]
    __table_args__ = (ForeignKeyConstraint(["shelf_id", "n"], ["book.shelf_id", "book.n"]),)
    __mapper_args__ = {"polymorphic_identity": "novel"}  # noqa: RUF012


class Cover(Base):
    __tablename__ = "cover"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("shelf.id"), unique=True)
    color: Mapped[str | None]


_extension: Any = DDL("CREATE EXTENSION IF NOT EXISTS citext")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so
event.listen(Base.metadata, "before_create", _extension)


def shelf(n: int, **attributes: Any) -> Shelf:
    """A shelf as an application gets it from outside, with all that belongs to it."""
    books = [
        Novel(n=k, title=f"{n}.{k}", hero="h") if k % 2 else Book(n=k, title=f"{n}.{k}")
        for k in range(n % 4)
    ]
    return Shelf(
        id=n,
        books={book.n: book for book in books},
        cover=Cover(id=n, color="red") if n % 2 else None,
        label=Label(name=f"l{n % 3}", n=n),
        **attributes,
    )


def stored(session: Session) -> None:
    """Twelve shelves of three labels, two of them below each of the first four."""
    session.add_all(Label(name=f"l{n}", n=0) for n in range(3))
    session.flush()
    for n in range(12):
        given = shelf(n, parent_id=n // 3 if n > 3 else None)
        given.label, given.label_name = None, f"l{n % 3}"
        session.add(given)
    session.commit()
    session.expunge_all()


def merged(session: Session, objects: Iterable[Any], **options: Any) -> list[Any]:
    """Merge by what this session has for it, or as `session.merge_all` of 2.1 does."""
    several = list(objects)
    if "merge_all" in session.info:
        return merge_all_of(session, several, **options)
    if session.autoflush:
        session.flush()
    with session.no_autoflush:
        return [session.merge(one, **options) for one in several]


def named(one: Any) -> tuple[str, str]:
    return type(one).__name__, repr(inspect(one).mapper.primary_key_from_instance(one))


def seen(session: Session, objects: Iterable[Any]) -> Any:
    """What can be seen of the merged, of what they hold, and of them all when they are flushed."""
    found = list(objects)
    for one in list(found):
        values = inspect(one).dict
        found += values.get("books", {}).values()
        found += [*values.get("shelves", ()), values.get("cover"), values.get("label")]
    found = list({id(one): one for one in found if one is not None}.values())
    found.sort(
        key=lambda one: (
            type(one).__name__,
            repr(inspect(one).mapper.primary_key_from_instance(one)),
        )
    )
    before = look(*found)
    session.flush()
    after = look(*found)
    session.commit()
    return before, after


def found_and_new(session: Session) -> Any:
    stored(session)
    return seen(session, merged(session, (shelf(n) for n in range(6, 18))))


def changed(session: Session) -> Any:
    stored(session)
    given = [Shelf(id=n, label_name="l1") for n in range(10)]
    return seen(session, merged(session, given))


def with_less_below(session: Session) -> Any:
    stored(session)
    given = [Shelf(id=n, books={}, cover=None, label=None, shelves=[]) for n in range(12)]
    return seen(session, merged(session, given))


def with_others_below(session: Session) -> Any:
    stored(session)
    given = [
        Shelf(
            id=n,
            shelves=[Shelf(id=100 * (n + 1) + k, books={5: Book(n=5)}) for k in range(3)],
            books={2: Book(n=2, title="other"), 7: Novel(n=7, hero="new")},
            cover=None if n % 2 else Cover(id=40 + n),
        )
        for n in range(5)
    ]
    return seen(session, merged(session, given))


def a_tree(session: Session) -> Any:
    stored(session)
    root = Shelf(id=0, shelves=[Shelf(id=n, shelves=[Shelf(id=n + 20)]) for n in range(1, 9)])
    return seen(session, merged(session, [root, Shelf(id=10), Shelf(id=11)]))


def detached(session: Session) -> Any:
    stored(session)
    given = list(session.scalars(select(Shelf).options(selectinload(Shelf.books))))
    session.expunge_all()
    for one in given:
        one.parent_id = 1
        one.books.pop(1, None)
    return seen(session, merged(session, given))


def in_the_session(session: Session) -> Any:
    stored(session)
    present = list(session.scalars(select(Shelf).order_by(Shelf.id)))
    session.expire(present[1])
    session.expire(present[2], ["books", "label_name"])
    present[3].label_name = "l0"
    present[3].books[2].title = "changed"
    session.expunge(present[5])
    given = [*present[:2], *(shelf(n) for n in range(2, 6))]
    return [
        one is other for one, other in zip(merged(session, given), present, strict=False)
    ], seen(session, present[:5])


def an_old_version(session: Session) -> Any:
    stored(session)
    with pytest.raises(StaleDataError, match="Version id '7'"):  # which says at which address
        merged(session, [Shelf(id=n, v=1 if n < 4 else 7) for n in range(6)])
    return seen(session, session.identity_map.values())


def one_key_twice(session: Session) -> Any:
    stored(session)
    given = [Shelf(id=1, label_name="l1"), Shelf(id=1, label_name="l2"), Shelf(id=3)]
    both = merged(session, given)
    return both[0] is both[1], seen(session, both)


def one_new_key_twice(session: Session) -> Any:
    return seen(session, merged(session, [Shelf(id=n) for n in (1, 2, 1)]))


def one_object_twice(session: Session) -> Any:
    one = Shelf(id=1)
    both = merged(session, [one, one, Shelf(id=2)])
    return both[0] is both[1], len(session.new)


def no_keys(session: Session) -> Any:
    given = [Shelf(books={1: Book(n=1)}) for _ in range(4)]
    return seen(session, merged(session, given))


def keys_that_the_database_takes_for_equal(session: Session) -> Any:
    stored(session)
    given = [Label(name=name, n=9) for name in ("L0", "l1", "new", "other", "L2")]
    both = merged(session, given)
    return [inspect(one).persistent for one in both], seen(session, both)


def new_keys_that_may_be_equal(session: Session) -> Any:
    stored(session)
    given = [Label(name=name, n=9) for name in ("l0", "L0", "new")]
    return seen(session, merged(session, given))


def keys_of_another_type(session: Session) -> Any:
    stored(session)
    merged(session, [Shelf(id="3"), Shelf(id=4), Shelf(id=5)])
    given = [Book(shelf_id="3", n="0", title="t"), Book(shelf_id=3, n=2), Book(shelf_id=7, n=0)]
    return seen(session, merged(session, given))


def a_flush_before(session: Session) -> Any:
    stored(session)
    session.add(Shelf(id=30))
    return seen(session, merged(session, [Shelf(id=n, label_name="l1") for n in (30, 31, 32)]))


def no_flush_before(session: Session) -> Any:
    stored(session)
    session.add(Shelf(id=30))
    with session.no_autoflush:
        return seen(session, merged(session, [Shelf(id=n) for n in (1, 2, 31)]))


def nothing_mapped(session: Session) -> Any:
    return merged(session, [Shelf(id=1), Shelf(id=2), object()])


def nothing_is_loaded(session: Session) -> Any:
    return merged(session, [Shelf(id=n) for n in range(4)], load=False)


def with_options(session: Session) -> Any:
    stored(session)
    pairs = ((4, 0), (5, 1), (10, 2))  # which no collection loads
    given = [Shelf(id=n, label_name="l2", shelves=[Shelf(id=below)]) for n, below in pairs]
    return seen(session, merged(session, given, options=[defer(Shelf.label_name)]))


def against_its_options(session: Session) -> Any:
    stored(session)
    return seen(session, merged(session, (shelf(n) for n in range(6)), options=[raiseload("*")]))


def heard(session: Session) -> Any:
    stored(session)
    told: list[Any] = []

    def tell(one: Any, *_: Any) -> None:
        told.append(named(one))

    for cls in (Shelf, Book, Novel, Cover, Label):
        event.listen(cls, "load", tell)
    try:
        given = merged(session, (shelf(n) for n in range(6, 15)))
    finally:
        for cls in (Shelf, Book, Novel, Cover, Label):
            event.remove(cls, "load", tell)
    return sorted(told), seen(session, given)


SCENARIOS = [
    found_and_new, changed, with_less_below, with_others_below, a_tree, detached, in_the_session,
    an_old_version, one_key_twice, one_new_key_twice, one_object_twice, no_keys,
    keys_that_the_database_takes_for_equal, new_keys_that_may_be_equal, keys_of_another_type,
    a_flush_before, no_flush_before, nothing_mapped, nothing_is_loaded, with_options,
    against_its_options, heard,
]  # fmt: skip


def enable(sessions: async_sessionmaker[AsyncSession]) -> None:
    sessions.configure(info={"merge_all": True})
    enable_batching(sessions)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_same_as_merging_each(database_url: str, scenario: Scenario) -> None:
    await differential(database_url, Base.metadata, scenario, enable=enable)


@pytest.mark.parametrize(
    "scenario",
    [
        found_and_new,
        keys_that_the_database_takes_for_equal,
        new_keys_that_may_be_equal,
        keys_of_another_type,
    ],
)
async def test_same_by_psycopg(database_url: str, scenario: Scenario) -> None:
    url = database_url.replace("+asyncpg", "+psycopg")
    await differential(url, Base.metadata, scenario, enable=enable)


async def test_a_select_a_class_and_level(engine: AsyncEngine) -> None:
    statements: list[str] = []
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        await session.run_sync(stored)
        event.listen(
            engine.sync_engine, "before_cursor_execute", lambda *a: statements.append(a[2])
        )
        given = await merge_all(session, [shelf(n) for n in range(40)])
        assert [one.id for one in given] == list(range(40))
        first = [sql for sql in statements if sql.startswith("SELECT")]
        await session.commit()  # from here on all of them are expired
        statements.clear()
        await merge_all(session, [shelf(n) for n in range(40)])
        again = [sql for sql in statements if sql.startswith("SELECT")]
    # Shelves with their books and covers, then books of both classes, covers and labels. One by
    # one some 130, and 250 where they are expired.
    assert len(first) <= 8, first
    assert len(again) <= 8, again


async def test_objects_that_are_expired_are_loaded_together(engine: AsyncEngine) -> None:
    statements: list[str] = []
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        present = [Label(name=f"x{n}", n=n) for n in range(40)]
        session.add_all(present)
        await session.commit()
        event.listen(
            engine.sync_engine, "before_cursor_execute", lambda *a: statements.append(a[2])
        )
        given = [Label(name=f"x{n}", n=n) for n in range(40)]
        assert await merge_all(session, given) == present
    assert len(statements) == 1, statements


async def test_a_get_of_ones_own_is_asked_for_each(engine: AsyncEngine) -> None:
    asked: list[Any] = []

    class Asking(Session):
        def get(self, entity: Any, ident: Any, **options: Any) -> Any:
            asked.append(ident)
            return super().get(entity, ident, **options)

    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine, sync_session_class=Asking) as session:
        given = await merge_all(session, [Shelf(id=n) for n in range(3)])
        assert all(object_session(one) is session.sync_session for one in given)
    assert asked == [(0,), (1,), (2,)]


async def test_a_session_is_as_it_was_afterwards(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine)
    enable_batching(sessions)
    async with sessions() as session:
        await merge_all(session, [Shelf(id=n) for n in range(3)])
        await session.flush()
        assert await session.get(Shelf, 1, populate_existing=True) is not None
        assert "get" not in vars(session.sync_session)
