"""Whatever a flush changes or deletes, it leaves rows, objects and errors as SQLAlchemy's own."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.orm import Session

from async_loader import enable_batching
from tests.integration.inserts.changes import models
from tests.integration.inserts.changes.models import (
    Article,
    Base,
    Booking,
    Called,
    Clock,
    Composite,
    Counted,
    Eager,
    Item,
    Mood,
    Owner,
    Page,
    Quiet,
    Row,
    Seat,
    Slot,
    Stamped,
    System,
    Token,
    Touched,
    Typed,
)
from tests.integration.inserts.differential import differential, look, observe

Scenario = Callable[[Session], Any]
COUNT = 30


def stored(session: Session, cls: type[Any], **values: Callable[[int], Any]) -> list[Any]:
    """Return objects whose rows are there, keys from 1, stored from the last to the first."""
    numbers = range(COUNT, 0, -1)
    session.add_all(cls(id=n, **{key: make(n) for key, make in values.items()}) for n in numbers)
    session.commit()
    session.expunge_all()
    return list(session.scalars(select(cls).order_by(cls.id)))


def flushed(session: Session, objects: list[Any]) -> list[Any]:
    """Flush, and look at the objects before and after the commit."""
    session.flush()
    seen = look(*objects)
    session.commit()
    return seen + look(*objects)


def alternating(session: Session) -> Any:
    rows = stored(session, Row)
    for row in rows:
        if row.id % 2:
            row.a = row.id
        else:
            row.b = None if row.id % 3 else row.id
            row.c = f"50% of {row.id} $1"
    return flushed(session, rows)


def subsets(session: Session) -> Any:
    rows = stored(session, Row)
    rng = random.Random(7)
    for row in rows:
        for key in "abde":
            if rng.random() < 0.5:
                setattr(row, key, row.id)
    return flushed(session, rows)


def types(session: Session) -> Any:
    rows = stored(session, Typed)
    values: list[dict[str, Any]] = [
        {"mood": Mood.SAD, "price": Decimal("1.50"), "half": 0.5},
        {"at": datetime(2020, 1, 2, tzinfo=UTC), "is_on": False, "mood": None},
        {"mood": Mood.GLAD, "is_on": True},
        {"short": "12345", "price": None, "half": 2.0},
    ]
    for row in rows:
        for key, value in values[row.id % len(values)].items():
            setattr(row, key, value)
    seen = flushed(session, rows)
    for row in rows:
        setattr(row, ("data", "short")[row.id % 2], {"n": row.id} if not row.id % 2 else "x")
    return seen + flushed(session, rows)


def too_long(session: Session) -> Any:
    rows = stored(session, Typed)
    for row in rows:
        setattr(row, ("is_on", "short")[row.id % 2], True if not row.id % 2 else "x" * 6)
    return flushed(session, rows)


def composite_keys(session: Session) -> Any:
    session.add_all(Composite(x=n % 3, y=f"y{n}") for n in range(COUNT))
    session.commit()
    rows = list(session.scalars(select(Composite)))
    for n, row in enumerate(rows):
        setattr(row, "ab"[n % 2], n)
    return flushed(session, rows)


def versions(session: Session) -> Any:
    seen = []
    makers: list[tuple[type[Any], dict[str, Any]]] = [
        (Counted, {}),
        (Token, {}),
        (Stamped, {}),
        (Quiet, {}),
    ]
    for cls, values in makers:
        rows = stored(session, cls, **values)
        for row in rows:
            row.a = row.id
        seen += flushed(session, rows)
        for row in rows:
            row.a = -row.id
        seen += flushed(session, rows)
        for row in rows[::2]:
            session.delete(row)
        seen += flushed(session, rows)
    return seen


def versions_by_turns(session: Session) -> Any:
    rows = stored(session, Counted)
    for row in rows:
        setattr(row, "ab"[row.id % 2], row.id)
    return flushed(session, rows)


def versions_of_the_system(session: Session) -> Any:
    rows = stored(session, System)
    for row in rows:
        row.a = row.id
    session.flush()
    found = {row.id: str(row.xmin) for row in session.execute(text("SELECT id, xmin FROM system"))}
    return [str(row.v) == found[row.id] for row in rows]


def made_by_the_server(session: Session) -> Any:
    seen = []
    for cls in (Eager, Touched, Clock):
        rows = stored(session, cls)
        for row in rows:
            row.a = row.id
        seen += flushed(session, rows)
    return seen


def made_by_the_server_in_turns(session: Session) -> Any:
    rows = stored(session, Clock)
    for row in rows:
        setattr(row, "ab"[row.id % 2], row.id)
    return flushed(session, rows)


def expressions(session: Session) -> Any:
    rows = stored(session, Clock, a=lambda n: n)
    for row in rows:
        row.a = Clock.a + row.id
    seen = flushed(session, rows)
    for row in rows:
        row.a = Clock.a + 1 if row.id % 2 else 7
    seen += flushed(session, rows)
    for row in rows:
        row.b = func.coalesce(Clock.b, row.id) if row.id % 2 else func.abs(-row.id)
    return seen + flushed(session, rows)


def selects_as_values(session: Session) -> Any:
    rows = stored(session, Row)
    for row in rows:
        highest = select(func.coalesce(func.max(Row.a), 0) + 1).scalar_subquery()
        row.a = highest if row.id % 2 else row.id
    return flushed(session, rows)


def inherited(session: Session) -> Any:
    rows = stored(session, Article, name=lambda n: n)
    for row in rows:
        if row.id % 3:
            row.name = -row.id
        if row.id % 3 != 1:
            setattr(row, ("words", "lines")[row.id % 2], row.id)
    seen = flushed(session, rows)
    for row in rows[::2]:
        session.delete(row)
    return seen + flushed(session, rows)


def several_classes(session: Session) -> Any:
    session.add_all((Page if n % 2 else Article)(id=n) for n in range(1, COUNT))
    session.commit()
    rows = list(session.scalars(select(Page).order_by(Page.id)))
    for row in rows:
        row.name = row.id
    return flushed(session, rows)


def favourites(session: Session) -> Any:
    owners = [Owner(id=n, items=[Item(id=n), Item(id=1000 + n)]) for n in range(1, COUNT)]
    session.add_all(owners)
    session.flush()
    for owner in owners:
        owner.a = owner.id
        owner.favourite = owner.items[0]
    seen = flushed(session, owners)
    for owner in owners:
        session.delete(owner)
    return seen + flushed(session, owners)


def places_move(session: Session) -> Any:
    rows = stored(session, Seat, place=lambda n: n)
    for row in rows:
        row.place -= 1
        setattr(row, "ab"[row.id % 2], 1)
    return flushed(session, rows)


def places_are_handed_over(session: Session) -> Any:
    rows = stored(session, Seat, place=lambda n: n)
    for row in rows:
        if row.id % 2:
            row.place = 1000 + row.id
        else:
            row.place, row.a = row.id - 1, 1
    rows[0].a = 5
    session.add_all(Seat(place=n) for n in (2, 4, 6))
    return flushed(session, rows)


def slots_are_handed_over(session: Session) -> Any:
    """No column that is set is in the index: it reads one made of `n`."""
    rows = stored(session, Slot, n=lambda n: n, is_open=lambda n: True)
    for row in rows:
        if row.id % 2:
            row.n = row.id - 1  # the next one's, of an earlier row that sets more
        else:
            row.n, row.a = 1000 + row.id, 1
    return flushed(session, rows)


def slots_are_closed(session: Session) -> Any:
    """Nor is one in its columns that only says which rows are in it."""
    rows = stored(session, Slot, n=lambda n: (n + 1) // 2, is_open=lambda n: n % 2 == 0)
    for row in rows:
        if row.id % 2:
            row.is_open = True  # once the one before, of its number, is closed
        else:
            row.is_open, row.a = False, 1
    return flushed(session, list(reversed(rows)))


def order_that_triggers_see(session: Session) -> Any:
    rows = stored(session, Booking, amount=lambda n: 0)
    for row in rows:
        row.amount = 1
        if row.id % 2:
            row.b = 1
    return flushed(session, rows)


def all_in_one_flush(session: Session) -> Any:
    rows = stored(session, Counted)
    for row in rows[:10]:
        setattr(row, "ab"[row.id % 2], 1)
    for row in rows[10:20]:
        session.delete(row)
    new = [Counted(id=100 + n, a=n) for n in range(10)]
    session.add_all(new)
    return flushed(session, rows + new)


def rows_switched(session: Session) -> Any:
    rows = stored(session, Counted)
    for row in rows:
        session.delete(row)
    new = [Counted(id=n, a=n) for n in range(1, COUNT)]
    session.add_all(new)
    return flushed(session, rows + new)


def keys_change(session: Session) -> Any:
    rows = stored(session, Row)
    for row in rows:
        row.id += 1000
        row.a = 1
    return flushed(session, rows)


def types_that_arrays_lack(session: Session) -> Any:
    rows = stored(session, Token)
    for row in rows:
        row.v = uuid.UUID(int=row.id) if row.id % 2 else row.v
        row.a = 1
    return flushed(session, rows)


def too_large(session: Session) -> Any:
    rows = stored(session, Row)
    for row in rows:
        setattr(row, "ab"[row.id % 2], 1 << (40 if row.id == 20 else 4))
    return flushed(session, rows)


def gone(*keys: int, cls: type[Any] = Row, sql: str = "DELETE FROM {}") -> Scenario:
    """Return what changes rows of which some are there no more, or are not as they were."""

    def change(session: Session) -> Any:
        rows = stored(session, cls)
        found = f"{sql.format(cls.__tablename__)} WHERE id IN ({', '.join(map(str, keys))})"
        session.execute(text(found))
        for row in rows:
            if cls is Row and row.id <= 12:  # neighbours that SQLAlchemy sends at once
                row.d = 1
            else:
                setattr(row, "ab"[row.id % 2] if cls is Row else "a", row.id)
        return flushed(session, rows)

    return change


def gone_from_deletes(session: Session) -> Any:
    seen = []
    for cls in (Quiet, Counted):
        rows = stored(session, cls)
        session.execute(text(f"UPDATE {cls.__tablename__} SET v = 77 WHERE id = 5"))
        for row in rows:
            session.delete(row)
        session.flush()
        seen.append(session.execute(text(f"SELECT id FROM {cls.__tablename__}")).scalars().all())
    return seen


def no_version(session: Session) -> Any:
    rows = stored(session, Counted)
    session.execute(text("UPDATE counted SET v = NULL WHERE id = 5"))
    session.expire(rows[4])
    for row in rows:
        row.a = row.id
    return flushed(session, rows)


def no_version_to_delete(session: Session) -> Any:
    rows = stored(session, Counted)
    session.execute(text("UPDATE counted SET v = NULL WHERE id = 5"))
    session.expire(rows[4])
    for row in rows:
        session.delete(row)
    return flushed(session, rows)


def told_to_listeners(session: Session) -> Any:
    heard: list[Any] = []

    def hear(name: str) -> Any:
        return lambda *given: heard.append((name, *map(_said, given)))

    names = ("before_update", "after_update", "before_delete", "after_delete")
    listeners = [(cls, name, hear(name)) for cls in (Counted, Row) for name in names]
    listeners += [(Counted, "refresh_flush", hear("refresh_flush"))]
    rows = [*stored(session, Counted), *stored(session, Row)]
    for one in listeners:
        event.listen(*one)
    try:
        for row in rows:
            setattr(row, "ab"[row.id % 2], row.id)
        session.flush()
        for row in rows:
            session.delete(row)
        session.flush()
    finally:
        for one in listeners:
            event.remove(*one)
    return heard


def _said(one: Any) -> Any:
    if isinstance(one, Row | Counted):
        return type(one).__name__, one.id
    return list(one) if isinstance(one, list | set) else type(one).__name__


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize(
    "scenario",
    [
        alternating,
        subsets,
        types,
        too_long,
        composite_keys,
        versions,
        versions_by_turns,
        made_by_the_server,
        made_by_the_server_in_turns,
        expressions,
        selects_as_values,
        inherited,
        several_classes,
        favourites,
        places_move,
        places_are_handed_over,
        slots_are_handed_over,
        slots_are_closed,
        order_that_triggers_see,
        all_in_one_flush,
        rows_switched,
        keys_change,
        types_that_arrays_lack,
        too_large,
        pytest.param(gone(5), id="gone-silently"),
        pytest.param(gone(20), id="gone"),
        pytest.param(gone(5, 20), id="gone-both"),
        pytest.param(gone(5, cls=Counted, sql="UPDATE {} SET v = 77"), id="stale"),
        pytest.param(gone(5, cls=Eager), id="gone-eager"),
        gone_from_deletes,
        no_version,
        no_version_to_delete,
        told_to_listeners,
    ],
)
async def test_same_changes(database_url: str, driver: str, scenario: Scenario) -> None:
    url = database_url.replace("+asyncpg", f"+{driver}")
    await differential(url, Base.metadata, scenario, enable=enable_batching)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_versions_of_the_system(database_url: str, driver: str) -> None:
    """They are the transaction's number, so no two runs have the same."""
    url = database_url.replace("+asyncpg", f"+{driver}")
    script = versions_of_the_system
    observed = await observe(url, Base.metadata, script, enable=enable_batching, listening=True)
    assert observed.result == [True] * COUNT


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_functions_are_called_once_a_row(database_url: str, driver: str) -> None:
    """In the rows' order, and each object has what its row has: SQLAlchemy's has the first's."""

    def change(session: Session) -> Any:
        models.calls = iter(range(1, 1000))  # type: ignore[assignment]
        rows = stored(session, Called)
        for row in rows:
            setattr(row, "ab"[row.id % 2], row.id)
        session.flush()
        held = [row.__dict__["t"] for row in rows]
        for row in rows:
            row.a = 9
        session.flush()
        held += [row.__dict__["t"] for row in rows]
        session.commit()
        return held

    url = database_url.replace("+asyncpg", f"+{driver}")
    metadata = Base.metadata
    observed = await observe(url, metadata, change, enable=enable_batching, listening=True)
    assert observed.error is None
    assert observed.result == list(range(1, 2 * COUNT + 1))
    rows = [int(row.split(", ")[3].rstrip(")")) for row in observed.rows["called"]]
    assert sorted(rows) == list(range(COUNT + 1, 2 * COUNT + 1))
