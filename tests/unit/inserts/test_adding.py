"""`add_all` of a session that batches leaves what `Session.add_all` leaves."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, event, inspect
from sqlalchemy.exc import SAWarning
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    make_transient_to_detached,
    mapped_column,
    relationship,
    sessionmaker,
)

from async_loader.inserts import enable_batch_inserting
from async_loader.inserts.adding import add_all
from tests.integration.inserts.models import Child, Parent, Plain

Script = Callable[[Session], Any]


class Base(DeclarativeBase):
    """What the shared models lack: a part that does not know its owner."""


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    parts: Mapped[list[Part]] = relationship(cascade="all, delete-orphan")


class Part(Base):
    __tablename__ = "part"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owner.id"))


def named(name: str) -> Plain:
    return Plain(name=name)


def look(session: Session, *objects: Any) -> list[Any]:
    """Everything that adding changes about objects and their session."""
    return [
        [state.obj() for state in session._new],
        session.in_transaction(),
        *(
            (
                state.insert_order,
                state.session is session,
                state.pending,
                state.key,
                state.modified,
                state._strong_obj is one,
                state._orphaned_outside_of_session,
            )
            for one in objects
            if (state := inspect(one, raiseerr=False)) is not None
        ),
    ]


def observed(session: Session, script: Script) -> Any:
    try:
        result = script(session)
    except Exception as error:
        result = type(error)
    return result


def names(seen: Any) -> Any:
    """Replace the objects by their names, which both sessions share."""
    if isinstance(seen, list | tuple):
        return [names(one) for one in seen]
    return getattr(seen, "name", seen)


def plain(session: Session) -> Any:
    objects = [named(name) for name in "abc"]
    session.add_all(objects)
    return look(session, *objects)


def nothing(session: Session) -> Any:
    session.add_all([])
    return look(session)


def any_iterable(session: Session) -> Any:
    objects = [named(name) for name in "abc"]
    session.add_all(iter(objects[:2]))
    session.add_all({objects[2]: None})
    return look(session, *objects)


def twice(session: Session) -> Any:
    objects = [named(name) for name in "ab"]
    session.add_all([*objects, objects[0]])
    session.add_all(objects)
    return look(session, *objects)


def added_before(session: Session) -> Any:
    objects = [named(name) for name in "abc"]
    session.add(objects[1])
    session.add_all(objects)
    return look(session, *objects)


def without_a_change(session: Session) -> Any:
    one = Plain()
    session.add_all([one])
    return look(session, one)


def expunged(session: Session) -> Any:
    objects = [named(name) for name in "ab"]
    session.add_all(objects)
    session.expunge(objects[0])
    session.add_all(objects)
    return look(session, *objects)


def detached(session: Session) -> Any:
    one = Plain(id=1, name="a")
    make_transient_to_detached(one)
    session.add_all([named("b"), one])
    return look(session, one), one in session.identity_map.values()


def with_relationships(session: Session) -> Any:
    parent = Parent(name="p", children=[Child(name="x"), Child(name="y")])
    session.add_all([parent, named("a")])
    return look(session, parent, *parent.children)


def an_orphan(session: Session) -> Any:
    part = Part()
    owner = Owner(parts=[part])
    owner.parts.remove(part)
    session.add_all([part])
    return look(session, part)[1:]


def of_another_session(session: Session) -> Any:
    objects = [named(name) for name in "abc"]
    with Session() as other:
        other.add(objects[1])
        with pytest.raises(Exception, match="already attached to session"):
            session.add_all(objects)
        return look(session, *objects)


def not_mapped(session: Session) -> Any:
    one = named("a")
    with pytest.raises(Exception, match="is not mapped"):
        session.add_all([one, object()])
    return look(session, one)


def without_state(session: Session) -> Any:
    one = named("a")
    with pytest.raises(Exception, match="is not mapped"):
        session.add_all([one, Plain.__new__(Plain)])
    return look(session, one)


def shared_state(session: Session) -> Any:
    one = named("a")
    session.add_all([copy.copy(one)])
    return look(session, one)


def an_iterable_that_fails(session: Session) -> Any:
    one = named("a")

    def some() -> Iterator[Plain]:
        yield one
        raise KeyError

    with pytest.raises(KeyError):
        session.add_all(some())
    return look(session, one)


def an_iterable_that_rolls_back(session: Session) -> Any:
    objects = [named(name) for name in "ab"]

    def some() -> Iterator[Plain]:
        yield objects[0]
        session.rollback()
        yield objects[1]

    session.add_all(some())
    return look(session, *objects)


@pytest.mark.parametrize(
    "script",
    [
        plain,
        nothing,
        any_iterable,
        twice,
        added_before,
        without_a_change,
        expunged,
        detached,
        with_relationships,
        an_orphan,
        of_another_session,
        not_mapped,
        without_state,
        shared_state,
        an_iterable_that_fails,
        an_iterable_that_rolls_back,
    ],
)
def test_the_same_as_stock(script: Script) -> None:
    batching = sessionmaker()
    enable_batch_inserting(batching)
    with Session() as stock, batching() as ours:
        expected = names(observed(stock, script))
        assert names(observed(ours, script)) == expected


@pytest.mark.parametrize("name", ["before_attach", "after_attach", "transient_to_pending"])
def test_who_listens_hears(name: str) -> None:
    batching = sessionmaker()
    enable_batch_inserting(batching)
    with batching() as session:
        heard: list[str] = []
        event.listen(session, name, lambda _session, one: heard.append(one.name))
        session.add_all([named("a"), named("b")])
        assert heard == ["a", "b"]


def test_during_a_flush_it_warns() -> None:
    batching = sessionmaker()
    enable_batch_inserting(batching)
    with batching() as session:
        session._warn_on_events = True  # what a flush sets
        with pytest.warns(SAWarning, match=r"Session.add_all\(\)"):
            session.add_all([named("a")])
        assert len(session.new) == 1


def test_an_object_nobody_else_holds_stays() -> None:
    batching = sessionmaker()
    enable_batch_inserting(batching)
    with batching() as session:
        session.add_all(named(name) for name in "ab")
        gc.collect()
        assert {one.name for one in session.new} == {"a", "b"}


def test_the_application_s_own_add_is_kept() -> None:
    class Own(Session):
        def add(self, instance: object, *, _warn: bool = True) -> None:
            raise KeyError

    batching = sessionmaker(class_=Own)
    enable_batch_inserting(batching)
    with batching() as session, pytest.raises(KeyError):
        session.add_all([named("a")])


def test_other_classes_keep_theirs() -> None:
    stock = Session.add_all
    batching = sessionmaker()
    enable_batch_inserting(batching)
    enable_batch_inserting(Session())
    assert Session.add_all is stock
    assert sessionmaker().class_.add_all is stock
    assert batching.class_.add_all is add_all
