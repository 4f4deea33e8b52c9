"""Whatever a flush does, it leaves the same rows, objects and errors as SQLAlchemy's own."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, inspect, literal, select, update
from sqlalchemy.orm import Session

from tests.integration.inserts import models
from tests.integration.inserts.differential import differential, look
from tests.integration.inserts.models import (
    Always,
    Animal,
    Arrays,
    Base,
    Boat,
    ByDefault,
    Car,
    Cat,
    Child,
    Circle,
    Colour,
    Composite,
    Defaults,
    Deferred,
    Dog,
    Eager,
    EagerKid,
    Lazy,
    Long,
    Node,
    Parent,
    Person,
    Plain,
    Post,
    Quoted,
    Shape,
    Tag,
    Total,
    Types,
    Vehicle,
    Versioned,
)

Scenario = Callable[[Session], Any]


def flushed(session: Session, *objects: Any) -> list[Any]:
    """Add, flush, and look at the objects before and after the commit."""
    session.add_all(objects)
    session.flush()
    seen = look(*objects)
    session.commit()
    return seen + look(*objects)


def every_other(i: int, **values: Any) -> dict[str, Any]:
    """Attributes for objects with odd numbers, none for even ones."""
    return values if i % 2 else {}


def plain(session: Session) -> Any:
    return flushed(session, *(Plain(name=f"n{i}", value=i) for i in range(50)))


def one(session: Session) -> Any:
    return flushed(session, Plain(name="only"))


def preset_keys(session: Session) -> Any:
    return flushed(session, *(Plain(id=100 - i, name=f"n{i}") for i in range(10)))


def mixed_keys(session: Session) -> Any:
    mixed = [Plain(id=100 + i if i % 3 else None, name=f"n{i}") for i in range(20)]
    return flushed(session, *mixed)


def unset_and_none(session: Session) -> Any:
    return flushed(
        session, *(Plain(name=f"n{i}", **({"value": None} if i % 2 else {})) for i in range(6))
    )


def families(session: Session) -> Any:
    parents = [
        Parent(name=f"p{i}", children=[Child(name=f"c{i}{j}") for j in range(i)]) for i in range(5)
    ]
    children = [child for parent in parents for child in parent.children]
    seen = flushed(session, *parents)
    return seen, look(*children), [child.parent.name for child in children]


def eager_families(session: Session) -> Any:
    parents = [Eager(name=str(i), kids=[EagerKid(), EagerKid()]) for i in range(3)]
    seen = flushed(session, *parents)
    return seen, look(*(kid for parent in parents for kid in parent.kids))


def many_to_one(session: Session) -> Any:
    parents = [Parent(name=f"p{i}") for i in range(3)]
    children = [Child(name=f"c{i}", parent=parents[i % 3]) for i in range(9)]
    return flushed(session, *children, *parents)


def to_persistent_parent(session: Session) -> Any:
    parent = Parent(name="old")
    session.add(parent)
    session.commit()
    parent.children.append(Child(name="appended"))
    session.flush()
    session.expire(parent)
    return flushed(session, *(Child(name=f"c{i}", parent=parent) for i in range(3)))


def by_foreign_key(session: Session) -> Any:
    parent = Parent(name="p")
    session.add(parent)
    session.flush()
    return flushed(session, *(Child(name=f"c{i}", parent_id=parent.id) for i in range(3)))


def parent_none_over_key(session: Session) -> Any:
    return flushed(session, Child(name="c", parent_id=5, parent=None))


def many_to_many(session: Session) -> Any:
    tags = [Tag(name=f"t{i}") for i in range(4)]
    posts = [Post(title=f"p{i}", tags=tags[: i + 1]) for i in range(4)]
    tags[0].posts.append(Post(title="backwards"))
    return flushed(session, *posts)


def tree(session: Session) -> Any:
    nodes = [Node(name="0")]
    for i in range(1, 8):
        nodes.append(Node(name=str(i), parent=nodes[(i - 1) // 2]))
    for i in range(8, 31):
        child = Node(name=str(i))
        nodes[(i - 1) // 2].children.append(child)
        nodes.append(child)
    return flushed(session, *reversed(nodes))


def tree_below_persistent(session: Session) -> Any:
    root = Node(name="root")
    session.add(root)
    session.commit()
    return flushed(session, *(Node(name=str(i), parent=root) for i in range(4)))


def forest_with_preset_keys(session: Session) -> Any:
    nodes = [Node(id=1000 + i, name=str(i)) if i % 2 else Node(name=str(i)) for i in range(10)]
    for i in range(2, 10):
        nodes[i].parent = nodes[i - 2]
    return flushed(session, *nodes)


def rows_refer_by_key(session: Session) -> Any:
    return flushed(
        session,
        Node(id=5, name="root"),
        Node(name="between"),
        Node(id=6, name="leaf", parent_id=5),
    )


def circle(session: Session) -> Any:
    first, second = Node(name="a"), Node(name="b")
    first.parent, second.parent = second, first
    return flushed(session, first, second)


def post_update(session: Session) -> Any:
    first, second = Person(name="a"), Person(name="b")
    first.favourite, second.favourite = second, first
    return flushed(session, first, second)


def joined(session: Session) -> Any:
    fleet = [
        Vehicle(name=str(i))
        if i % 3 == 0
        else Car(name=str(i), doors=i)
        if i % 3 == 1
        else Boat(name=str(i), length=i / 2)
        for i in range(12)
    ]
    return flushed(session, *fleet), [
        type(v) for v in session.scalars(select(Vehicle).order_by(Vehicle.id))
    ]


def single_table(session: Session) -> Any:
    zoo = [
        Animal(name=str(i))
        if i % 4 == 0
        else Dog(name=str(i))
        if i % 4 == 1
        else Cat(name=str(i))
        if i % 4 == 2
        else Cat(name=str(i), lives=i)
        for i in range(16)
    ]
    return flushed(session, *zoo)


def concrete(session: Session) -> Any:
    return flushed(
        session, *(Circle(name=str(i), radius=i) if i % 2 else Shape(name=str(i)) for i in range(6))
    )


def defaults(session: Session) -> Any:
    models.counter = itertools.count(1)
    return flushed(
        session,
        *(
            Defaults(
                name=str(i),
                **({"server": "given"} if i % 2 else {}),
                **({"called": -i} if i % 3 == 0 else {}),
            )
            for i in range(12)
        ),
    )


def lazy_defaults(session: Session) -> Any:
    objects = [Lazy(name=str(i), **({"server": "x"} if i % 2 else {})) for i in range(6)]
    return flushed(session, *objects), [one.server for one in objects]


def expressions(session: Session) -> Any:
    names = [
        func.lower(f"ABC{i}") if i % 3 == 1 else literal(f"a{i}") + "b" if i % 3 == 2 else f"n{i}"
        for i in range(12)
    ]
    objects = [Plain(name=name) for name in names]
    seen = flushed(session, *objects)
    return seen, [one.name for one in objects]


def select_as_value(session: Session) -> Any:
    objects = [
        Plain(name=f"n{i}", value=select(func.count(Plain.id)).scalar_subquery()) for i in range(4)
    ]
    seen = flushed(session, *objects)
    return seen, [one.value for one in objects]


def always(session: Session) -> Any:
    return flushed(session, *(Always(name=str(i)) for i in range(5)))


def identity_by_default(session: Session) -> Any:
    return flushed(
        session, *(ByDefault(name=str(i), **({"state": "x"} if i % 2 else {})) for i in range(6))
    )


def composite(session: Session) -> Any:
    return flushed(session, *(Composite(left=i, right=str(i), note=None) for i in range(5)))


def versioned(session: Session) -> Any:
    objects = [Versioned(name=str(i)) for i in range(3)]
    seen = flushed(session, *objects)
    objects[0].name = "changed"
    session.flush()
    session.commit()
    return seen, look(*objects)


def types(session: Session) -> Any:
    full = Types(
        small=1,
        big=2**40,
        number=Decimal("12.345"),
        real=0.1,
        flag=True,
        words="w" * 1000,
        short="s",
        data=b"\x00\xff",
        day=date(2020, 2, 29),
        hour=time(12, 30, 1, 5),
        moment=datetime(2020, 1, 1, 12, tzinfo=UTC),
        naive=datetime(2020, 1, 1, 12, 0, 0, 7),
        lasting=timedelta(days=3, seconds=7, microseconds=9),
        colour=Colour.BLUE,
        loose="b",
        document={"a": [1, None, "ü"]},
        binary_document=[{"b": 2}],
        key=uuid.UUID(int=7),
        shouted="loud",
    )
    empty = [Types(), Types(document=None, binary_document=None), Types(document={})]
    seen = flushed(session, full, *empty)
    session.expire_all()
    return (
        seen,
        look(full, *empty),
        [(one.document, one.binary_document, one.shouted, one.number) for one in (full, *empty)],
    )


def arrays(session: Session) -> Any:
    return flushed(
        session,
        *(Arrays(numbers=[i] * (i % 3), **({"state": "x"} if i % 2 else {})) for i in range(8)),
    )


def quoted(session: Session) -> Any:
    return flushed(
        session, *(Quoted(value=f"%s {i}", **({"other": "o"} if i % 2 else {})) for i in range(6))
    )


def long_names(session: Session) -> Any:
    return flushed(
        session, *(Long(name=str(i), **({"state": "o"} if i % 2 else {})) for i in range(6))
    )


def read_only(session: Session) -> Any:
    objects = [Total(amount=i) for i in range(4)]
    return flushed(session, *objects), [one.plains for one in objects]  # type: ignore[attr-defined]  # added later


def deferred_constraint(session: Session) -> Any:
    seen = look(*(objects := [Deferred(place=1), Deferred(place=1)]))
    session.add_all(objects)
    session.flush()
    objects[1].place = 2
    session.commit()
    return seen, look(*objects)


def deferred_violation(session: Session) -> Any:
    session.add_all([Deferred(place=1), Deferred(place=1)])
    session.commit()


def rename_and_reuse(session: Session) -> Any:
    first = Plain(name="a")
    session.add(first)
    session.commit()
    first.name = "b"
    second = Plain(name="a")
    return flushed(session, second), look(first)


def with_updates_and_deletes(session: Session) -> Any:
    old = [Parent(name=f"old{i}", children=[Child(name="c")]) for i in range(3)]
    session.add_all(old)
    session.commit()
    old[0].name = "changed"
    session.delete(old[1])
    old[2].children.append(Child(name="late"))
    new = Parent(name="new", children=[Child(name="n"), old[0].children[0]])
    return flushed(session, new), look(old[0], old[2], *old[2].children)


def delete_and_replace(session: Session) -> Any:
    old = Plain(id=1, name="same")
    session.add(old)
    session.commit()
    session.delete(old)
    return flushed(session, Plain(id=1, name="same", value=3))


def duplicate_of_persistent(session: Session) -> Any:
    kept = Plain(id=1, name="first")
    session.add(kept)
    session.flush()
    session.add(Plain(id=2, name="first"))
    session.flush()


def merged(session: Session) -> Any:
    session.add(Plain(id=1, name="kept"))
    session.commit()
    objects = [session.merge(Plain(id=i, name=f"m{i}")) for i in (1, 2, 3)]
    session.flush()
    session.commit()
    return look(*objects)


def autoflushed(session: Session) -> Any:
    session.add_all([Plain(name=f"n{i}") for i in range(5)])
    found = session.scalars(select(Plain.name).order_by(Plain.id)).all()
    session.execute(update(Plain).values(value=1))
    session.commit()
    return found


def rolled_back(session: Session) -> Any:
    objects = [Plain(name=f"n{i}") for i in range(5)]
    session.add_all(objects)
    session.flush()
    session.rollback()
    return look(*objects), len(session.new), session.scalar(select(func.count(Plain.id)))


def savepoint(session: Session) -> Any:
    kept, lost = Plain(name="kept"), [Plain(name=f"n{i}") for i in range(3)]
    session.add(kept)
    with session.begin_nested() as nested:
        session.add_all(lost)
        session.flush()
        nested.rollback()
    session.add(Plain(name="after"))
    session.commit()
    return look(kept, *lost)


def error_in_savepoint(session: Session) -> Any:
    session.add(Plain(name="kept"))
    session.flush()
    wrong = [Plain(name="x"), Plain(name="x")]
    try:
        with session.begin_nested():
            session.add_all(wrong)
            session.flush()
    except Exception as error:
        seen = type(error), session.is_active, look(*wrong)
    session.commit()
    return seen


def _failing(session: Session, objects: list[Any]) -> Any:
    session.add_all(objects)
    try:
        session.flush()
    except Exception as error:
        from tests.integration.inserts.differential import described

        before = session.is_active, len(session.new)
        session.rollback()
        return described(error), before, look(*objects), session.is_active
    return "no error"


def duplicate_in_row_500(session: Session) -> Any:
    objects = [Plain(name=f"n{i if i != 500 else 499}") for i in range(1000)]
    return _failing(session, objects)


def too_long(session: Session) -> Any:
    return _failing(session, [Types(short="toolong") for _ in range(3)])


def not_null(session: Session) -> Any:
    return _failing(session, [Plain(name="a"), Plain(value=1)])


def out_of_range(session: Session) -> Any:
    return _failing(session, [Types(small=1), Types(small=2**20)])


def wrong_type(session: Session) -> Any:
    return _failing(session, [Plain(name="a", value="one")])


def list_for_text(session: Session) -> Any:
    return _failing(session, [Plain(name=["a", "b"]), Plain(name=["c", "d"])])


def wrong_enum(session: Session) -> Any:
    return _failing(session, [Types(loose="z")])


def decorator_raises(session: Session) -> Any:
    return _failing(session, [Types(shouted="a"), Types(shouted="!")])


def missing_parent(session: Session) -> Any:
    return _failing(session, [Child(name="c", parent_id=12345)])


def child_fails(session: Session) -> Any:
    parent = Parent(name="p", children=[Child(name="good"), Child()])
    return _failing(session, [parent]), look(*parent.children)


def tree_fails(session: Session) -> Any:
    root = Node(name="root")
    bad = Node(parent=root)
    session.add(root)
    with pytest.raises(Exception, match="null value"):
        session.flush()
    session.rollback()
    bad.name = "now good"
    root.id, bad.id = 50, 51  # the failed flush may have used up other numbers
    session.add(root)
    session.commit()
    return [one.name for one in root.children]


def orphan(session: Session) -> Any:
    return _failing(session, [Child(name="nobody's")])


def nothing_makes_the_key(session: Session) -> Any:
    return _failing(session, [Composite(left=1, note="no right")])


def flush_twice(session: Session) -> Any:
    first = flushed(session, *(Plain(name=f"a{i}") for i in range(3)))
    return first + flushed(session, *(Plain(name=f"b{i}") for i in range(3)))


def only_some(session: Session) -> Any:
    given, kept = Plain(name="a"), Plain(name="b")
    session.add_all([given, kept])
    session.flush()
    return look(given, kept), inspect(given).persistent


DIRECT = [
    plain,
    one,
    preset_keys,
    mixed_keys,
    unset_and_none,
    families,
    eager_families,
    many_to_one,
    to_persistent_parent,
    by_foreign_key,
    many_to_many,
    tree,
    tree_below_persistent,
    forest_with_preset_keys,
    rows_refer_by_key,
    joined,
    single_table,
    concrete,
    defaults,
    lazy_defaults,
    expressions,
    always,
    identity_by_default,
    composite,
    versioned,
    types,
    quoted,
    long_names,
    read_only,
    deferred_constraint,
    deferred_violation,
    rename_and_reuse,
    with_updates_and_deletes,
    duplicate_of_persistent,
    merged,
    autoflushed,
    rolled_back,
    savepoint,
    error_in_savepoint,
    duplicate_in_row_500,
    too_long,
    out_of_range,
    wrong_type,
    missing_parent,
    child_fails,
    tree_fails,
    orphan,
    flush_twice,
    only_some,
    post_update,
]
OTHER_WAYS = [
    not_null,
    parent_none_over_key,
    circle,
    select_as_value,
    arrays,
    delete_and_replace,
    list_for_text,
    wrong_enum,
    decorator_raises,
    nothing_makes_the_key,
]


@pytest.mark.parametrize("scenario", DIRECT, ids=lambda scenario: scenario.__name__)
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
async def test_direct(database_url: str, scenario: Scenario) -> None:
    observed = await differential(database_url, Base.metadata, scenario)
    assert observed.batched > 0, "the scenario was left to SQLAlchemy and proves nothing"


@pytest.mark.parametrize("scenario", OTHER_WAYS, ids=lambda scenario: scenario.__name__)
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
async def test_left_to_sqlalchemy(database_url: str, scenario: Scenario) -> None:
    await differential(database_url, Base.metadata, scenario)
