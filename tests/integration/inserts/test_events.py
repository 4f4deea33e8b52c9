"""Who listens hears what SQLAlchemy would say, or the mapper is left to SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from async_loader.inserts import explain
from tests.integration.inserts.differential import differential
from tests.integration.inserts.models import Base, Child, Parent, Plain


@contextmanager
def listening(
    target: Any, *names: str, heard: list[Any], say: Callable[..., Any]
) -> Iterator[None]:
    listeners = []
    for name in names:

        def listener(*args: Any, name: str = name) -> None:
            heard.append((name, say(*args)))

        event.listen(target, name, listener)
        listeners.append((name, listener))
    try:
        yield
    finally:
        for name, listener in listeners:
            event.remove(target, name, listener)


SESSION_EVENTS = [
    "before_flush",
    "after_flush",
    "after_flush_postexec",
]


async def test_session_events_see_the_same(database_url: str) -> None:
    def script(session: Session) -> Any:
        heard: list[Any] = []

        def say(told: Session, *_: Any) -> Any:
            return (
                len(told.new),
                len(told.dirty),
                sorted(repr(inspect(one).attrs.name.history) for one in told.new),
            )

        def name(_session: Session, one: Any) -> Any:
            return one.name, inspect(one).persistent

        with (
            listening(session, *SESSION_EVENTS, heard=heard, say=say),
            listening(session, "pending_to_persistent", heard=heard, say=name),
        ):
            session.add_all([Plain(name=f"n{i}") for i in range(3)])
            session.flush()
            parent = Parent(name="p", children=[Child(name="c")])
            session.add(parent)
            session.commit()
        return sorted(map(repr, heard))

    observed = await differential(database_url, Base.metadata, script)
    assert observed.batched == 3


@pytest.mark.parametrize("name", ["before_insert", "after_insert"])
async def test_mapper_events_are_heard(database_url: str, name: str) -> None:
    def script(session: Session) -> Any:
        heard: list[Any] = []

        def say(_mapper: Any, _connection: Any, one: Any) -> Any:
            return one.name, one.id

        with listening(Plain, name, heard=heard, say=say):
            assert explain(Plain).startswith(f"stock: has a{'n' if name[0] == 'a' else ''} {name}")
            session.add_all([Plain(name=f"n{i}") for i in range(3)])
            session.commit()
        return heard

    observed = await differential(database_url, Base.metadata, script)
    assert len(observed.result) == 3
    assert observed.batched == 0


async def test_expiring_is_heard_of_columns_that_only_a_sibling_maps(database_url: str) -> None:
    class Local(DeclarativeBase):
        pass

    class Vehicle(Local):
        __tablename__ = "vehicles"
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "any"}  # noqa: RUF012 - SQLAlchemy reads it once
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        name: Mapped[str]

    class Truck(Vehicle):
        __mapper_args__ = {"polymorphic_identity": "truck"}  # noqa: RUF012 - SQLAlchemy reads it once
        axles: Mapped[int | None] = mapped_column(server_default="2")

    def script(session: Session) -> Any:
        heard: list[Any] = []

        def say(one: Any, keys: Any) -> Any:
            return one.name, keys

        with listening(Vehicle, "expire", heard=heard, say=say):
            reason = explain(Vehicle)
            session.add_all([Vehicle(name="a"), Vehicle(name="b"), Truck(name="c")])
            session.flush()
            told = list(heard)
        session.commit()
        return told, reason

    observed = await differential(database_url, Local.metadata, script)
    assert observed.result[0]
    assert observed.result[1] == "stock: has an expire listener"
    assert observed.batched == 0


async def test_attribute_events_of_carried_keys_are_heard(database_url: str) -> None:
    def script(session: Session) -> Any:
        heard: list[Any] = []

        def say(one: Any, value: Any, _old: Any, _initiator: Any) -> Any:
            return one.name, value

        with listening(Child.parent_id, "set", heard=heard, say=say):
            session.add(Parent(name="p", children=[Child(name="a"), Child(name="b")]))
            session.commit()
        return sorted(heard)

    observed = await differential(database_url, Base.metadata, script)
    assert observed.result
    assert observed.batched == 2


async def test_objects_changed_in_before_flush_are_saved(database_url: str) -> None:
    def script(session: Session) -> Any:
        def rename(told: Session, *_: Any) -> None:
            for one in list(told.new):
                one.name = one.name.upper()
            told.add(Plain(name="added by the listener"))

        event.listen(session, "before_flush", rename, once=True)
        session.add(Plain(name="lower"))
        session.commit()

    observed = await differential(database_url, Base.metadata, script)
    assert observed.batched == 1


async def test_before_execute_leaves_it_to_sqlalchemy(database_url: str) -> None:
    def script(session: Session) -> Any:
        heard: list[str] = []

        def say(_connection: Any, clause: Any, *_: Any) -> Any:
            return type(clause).__name__

        with listening(session.connection(), "before_execute", heard=heard, say=say):
            session.add(Plain(name="n"))
            session.flush()
        session.rollback()
        return heard

    observed = await differential(database_url, Base.metadata, script)
    assert observed.result == [("before_execute", "Insert")]
