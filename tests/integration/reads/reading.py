"""Reads of every kind: an async function of a session each, and whether its keys go as an array."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

from sqlalchemy import lambda_stmt, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    aliased,
    defer,
    joinedload,
    selectin_polymorphic,
    selectinload,
    subqueryload,
    with_loader_criteria,
    with_polymorphic,
)

from tests.integration.reads.models import (
    Deep,
    Firm,
    Half,
    Kid,
    Manager,
    Node,
    Only,
    Pair,
    Parent,
    Person,
    Toy,
    Worker,
)
from tests.integration.reads.shown import shown

Reading = Callable[[AsyncSession], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Read:
    """A read, and whether a statement of it has `= ANY` when the fast paths are on."""

    read: Reading
    any_: bool


READS: dict[str, Read] = {}


def read(*, any_: bool) -> Callable[[Reading], Reading]:
    def note(reading: Reading) -> Reading:
        READS[reading.__name__] = Read(reading, any_)
        return reading

    return note


async def everything(session: AsyncSession, statement: Any, **options: Any) -> Any:
    return (await session.scalars(statement, **options)).unique().all()


def options(name: str, statement: Any, *loaded: Any, any_: bool = True) -> None:
    """A read that is a statement with options, and nothing else."""

    async def reading(session: AsyncSession) -> Any:
        return await everything(session, statement.options(*loaded))

    READS[name] = Read(reading, any_)


parents, kids = select(Parent).order_by(Parent.id), select(Kid).order_by(Kid.id)
roots = select(Node).where(Node.up_id.is_(None))
pairs, halves = select(Pair).order_by(Pair.a, Pair.b), select(Half).order_by(Half.id)
firms, people = select(Firm).order_by(Firm.id), select(Person).order_by(Person.id)

options("children_in_their_order", parents, selectinload(Parent.kids))
options("parents_of_children", kids, selectinload(Kid.parent))
options("one_to_one", parents, selectinload(Parent.only))
options("two_levels", parents, selectinload(Parent.kids).selectinload(Kid.toys))
options("there_and_back", parents, selectinload(Parent.kids).selectinload(Kid.parent))
options("a_condition_in_the_join", parents, selectinload(Parent.big), any_=False)
options("dict_and_set", parents, selectinload(Parent.by_id), selectinload(Parent.as_set))
options("secondary", parents, selectinload(Parent.tags), any_=False)
options("joins_the_parent", parents, selectinload(Parent.joined), any_=False)
options("foreign_key_not_loaded", kids, defer(Kid.parent_id), selectinload(Kid.parent), any_=False)
options("load_only", parents, selectinload(Parent.kids).load_only(Kid.x))
options("deferred", parents, selectinload(Parent.kids).defer(Kid.y))
options("raiseload", parents, selectinload(Parent.kids).raiseload(Kid.toys))
options("joined_below", parents, selectinload(Parent.kids).joinedload(Kid.toys))
options("subquery_below", parents, selectinload(Parent.kids).subqueryload(Kid.toys))
options("below_joined", parents.limit(5), joinedload(Parent.kids).selectinload(Kid.toys))
options("below_subquery", parents, subqueryload(Parent.kids).selectinload(Kid.toys))
if "chunksize" in signature(selectinload).parameters:  # since 2.1
    options("chunks", parents, selectinload(Parent.kids, chunksize=5))
options("criteria_in_the_option", parents, selectinload(Parent.kids.and_(Kid.x > 2)), any_=False)
options(
    "several_columns", select(Pair).order_by(Pair.a, Pair.b), selectinload(Pair.halves), any_=False
)
options("several_columns_back", select(Half).order_by(Half.id), selectinload(Half.pair), any_=False)
options("tree", roots, selectinload(Node.below))
options("tree_two_levels", roots, selectinload(Node.below).selectinload(Node.below))
options("tree_to_a_depth", roots, selectinload(Node.below, recursion_depth=2), any_=False)
options("tree_to_the_end", roots, selectinload(Node.below, recursion_depth=-1), any_=False)
options("tree_upwards", select(Node).order_by(Node.id), selectinload(Node.up))
options("tree_by_the_mapper", select(Deep).where(Deep.up_id.is_(None)))
options("subclasses", firms, selectinload(Firm.staff))
options("subclass_alone", firms, selectinload(Firm.staff.of_type(Manager)), any_=False)
options(
    "subclasses_and_theirs", firms,
    selectinload(Firm.staff).options(
        selectin_polymorphic(Person, [Manager, Worker]),
        selectinload(Manager.cars), selectinload(Worker.tools),
    ),
)  # fmt: skip
options(
    "polymorphic", people, selectin_polymorphic(Person, [Manager, Worker]),
    selectinload(Manager.cars), selectinload(Worker.tools), selectinload(Person.firm),
)  # fmt: skip


@read(any_=True)
async def an_alias_of_all_subclasses(session: AsyncSession) -> Any:
    everybody = with_polymorphic(Person, "*", flat=True)
    asked = select(everybody).order_by(everybody.id)
    cars = selectinload(everybody.Manager.cars)
    return await everything(session, asked.options(cars, selectinload(everybody.firm)))


@read(any_=False)
async def children_by_an_alias(session: AsyncSession) -> Any:
    alias = aliased(Kid)
    return await everything(session, parents.options(selectinload(Parent.kids.of_type(alias))))


@read(any_=True)
async def two_entities(session: AsyncSession) -> Any:
    other = aliased(Parent)
    asked = select(Parent, other).join(other, other.id == Parent.id + 1).order_by(Parent.id)
    loaded = asked.options(selectinload(Parent.kids), selectinload(other.kids))
    return [[*row] for row in await session.execute(loaded)]


@read(any_=True)
async def two_entities_with_options_of_their_own(session: AsyncSession) -> Any:
    other = aliased(Parent)
    asked = select(Parent, other).join(other, other.id == Parent.id + 6).order_by(Parent.id)
    toys = selectinload(Parent.kids).selectinload(Kid.toys)
    loaded = asked.options(toys, selectinload(other.kids).load_only(Kid.x))
    return [[*row] for row in await session.execute(loaded)]


@read(any_=True)
async def from_text(session: AsyncSession) -> Any:
    asked = select(Parent).from_statement(text("SELECT * FROM parent ORDER BY id"))
    return await everything(session, asked.options(selectinload(Parent.kids)))


@read(any_=True)
async def from_a_cte(session: AsyncSession) -> Any:
    some = aliased(Parent, select(Parent).where(Parent.id > 3).cte())
    return await everything(
        session, select(some).options(selectinload(some.kids)).order_by(some.id)
    )


@read(any_=True)
async def pages_of_any_size(session: AsyncSession) -> Any:
    asked = parents.options(selectinload(Parent.kids))
    found = []
    for page in (1, 7, 12):
        found += [await everything(session, asked.limit(page))]
        session.expunge_all()
    return found


@read(any_=True)
async def criteria_of_the_statement(session: AsyncSession) -> Any:
    found = []
    for least in (0, 2, 4, 2):
        criteria = with_loader_criteria(Kid, Kid.x > least)
        found += [await everything(session, parents.options(selectinload(Parent.kids), criteria))]
        session.expunge_all()
    return found


@read(any_=True)
async def criteria_of_a_function(session: AsyncSession) -> Any:
    def asked(least: int) -> Any:
        criteria = with_loader_criteria(Kid, lambda cls: cls.x > least)
        return parents.options(selectinload(Parent.kids), criteria)

    found = []
    for least in (0, 2, 4, 2):
        found += [await everything(session, asked(least))]
        session.expunge_all()
    return found


@read(any_=True)
async def criteria_one_level_below(session: AsyncSession) -> Any:
    found = []
    for least in (-1, 0, 1, 0):
        toys = selectinload(Parent.kids).selectinload(Kid.toys.and_(Toy.z > least))
        found += [await everything(session, parents.options(toys))]
        session.expunge_all()
    return found


@read(any_=True)
async def other_options_each_time(session: AsyncSession) -> Any:
    found = []
    for loaded in (
        selectinload(Parent.kids), selectinload(Parent.kids).selectinload(Kid.toys),
        selectinload(Parent.kids).load_only(Kid.x), selectinload(Parent.kids.and_(Kid.x > 1)),
        selectinload(Parent.only),
    ):  # fmt: skip
        found += [await everything(session, parents.options(loaded))]
        session.expunge_all()
    return found


@read(any_=True)
async def populate_existing_in_turns(session: AsyncSession) -> Any:
    asked = parents.options(selectinload(Parent.kids))
    found = []
    with session.no_autoflush:
        kid = (await everything(session, asked))[2].kids[0]
        for options_ in ({}, {"populate_existing": True}) * 2:
            kid.y = "changed"
            await session.scalars(asked, execution_options=options_)
            found += [kid.y]
    return found


@read(any_=True)
async def known_collections_stay(session: AsyncSession) -> Any:
    asked = parents.options(selectinload(Parent.kids))
    with session.no_autoflush:
        parent = (await everything(session, asked))[2]
        parent.kids.append(Kid(id=99, x=99))
        await session.scalars(asked)
        known = len(parent.kids)
        session.expire(parent, ["kids"])
        await session.scalars(asked)
        return known, len(parent.kids)


@read(any_=True)
async def flushed_before_the_children_are_read(session: AsyncSession) -> Any:
    session.add(Kid(id=99, x=77, parent_id=1))
    return await everything(session, parents.options(selectinload(Parent.kids)))


@read(any_=True)
async def get_and_refresh(session: AsyncSession) -> Any:
    loaded = [selectinload(Parent.kids)]
    parent = await session.get_one(Parent, 3, options=loaded)
    before = shown_kids(parent)
    await session.refresh(parent, ["kids"])
    session.expire(parent)
    await session.refresh(parent)
    again = await session.get_one(Parent, 3, populate_existing=True, options=loaded)
    return before, shown_kids(parent), again


def shown_kids(parent: Parent) -> list[int]:
    return [kid.id for kid in parent.kids]


@read(any_=True)
async def streamed(session: AsyncSession) -> Any:
    asked = parents.options(selectinload(Parent.kids))
    found: list[Any] = []
    by_five = asked.execution_options(yield_per=5)
    found.extend([one async for one in await session.stream_scalars(by_five)])
    async for part in (await session.stream(asked)).partitions(4):
        found += [len(part)]
    return found


@read(any_=True)
async def foreign_key_loaded_at_first(session: AsyncSession) -> Any:
    """What is kept is of no use where the key is not there."""
    asked = kids.options(defer(Kid.parent_id), selectinload(Kid.parent))
    known = await everything(session, kids)
    found = [shown(await everything(session, asked)), len(known)]
    session.expunge_all()
    return found, await everything(session, asked)


@read(any_=True)
async def query_and_lambda(session: AsyncSession) -> Any:
    def by_query(sync: Any) -> Any:
        return sync.query(Parent).options(selectinload(Parent.kids)).order_by(Parent.id).all()

    asked = lambda_stmt(lambda: parents.options(selectinload(Parent.kids)))
    least = 3
    asked += lambda q: q.where(Parent.id > least)
    return await session.run_sync(by_query), await everything(session, asked)


@read(any_=True)
async def without_a_compiled_cache(session: AsyncSession) -> Any:
    asked = parents.options(selectinload(Parent.kids))
    return await everything(session, asked, execution_options={"compiled_cache": None})


@read(any_=True)
async def a_warning_for_two_rows_of_one(session: AsyncSession) -> Any:
    session.add(Only(id=99, parent_id=1))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = await everything(session, parents.limit(1).options(selectinload(Parent.only)))
    return found[0].only is not None, [str(one.message) for one in told]


@read(any_=True)
async def of_new_text_each_time(session: AsyncSession) -> Any:
    found = []
    for number in range(3):
        asked = parents.where(literal_column(str(number)) == number)
        found += [await everything(session, asked.options(selectinload(Parent.kids)))]
    return found


@read(any_=False)
async def an_empty_page(session: AsyncSession) -> Any:
    asked = parents.where(Parent.id > 10**6).options(selectinload(Parent.kids))
    return await everything(session, asked)
