"""
Programs of reads made up by number: statements with random options, on sessions in any state.

No path comes back to a class: by some options at random, SQLAlchemy itself does not end there.
"""

from __future__ import annotations

from inspect import signature
from itertools import groupby
from random import Random
from typing import Any

from sqlalchemy import event, inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import (
    Session,
    aliased,
    joinedload,
    lazyload,
    raiseload,
    selectin_polymorphic,
    selectinload,
    subqueryload,
    with_loader_criteria,
)

from tests.integration.reads.models import (
    Firm,
    Half,
    Kid,
    Manager,
    Only,
    Pair,
    Parent,
    Person,
    Toy,
    Worker,
)
from tests.integration.reads.shown import shown

ROOTS: list[Any] = [Parent, Kid, Only, Pair, Half, Firm, Person]
LOADERS: list[Any] = [joinedload, subqueryload, lazyload, raiseload]
CRITERIA: dict[Any, Any] = {Kid: Kid.x, Toy: Toy.z, Person: Person.id}
SHAPES, STEPS = 2, 8
CHUNKS = "chunksize" in signature(selectinload).parameters  # since 2.1


class Program:
    """A number's statements and steps; performed anew it does the same."""

    def __init__(self, number: int) -> None:
        self._rng, self._values = Random(number), Random(number)
        self._statements = [one for _ in range(SHAPES) for one in self._twice()]
        self._steps = [self._step() for _ in range(STEPS)]

    async def perform(self, engine: AsyncEngine, cls: type[Session]) -> Any:
        """Return all that could be seen of it, in two sessions after each other."""
        seen: list[Any] = []
        for seed in (1, 2):
            async with AsyncSession(engine, sync_session_class=cls) as session:
                held = _listen(session.sync_session, seen)
                rng = Random(seed)
                for step in self._steps:
                    seen.append(await _performed(step, session, rng))
                await session.rollback()
                held.clear()
        return _without_order_of_rows(seen)

    def _twice(self) -> list[Any]:
        """Statements that are one to the cache, with values of their own."""
        state = self._rng.getstate()
        first = self._statement()
        self._rng.setstate(state)
        return [first, self._statement()]

    def _statement(self) -> Any:
        entity = root = self._rng.choice(ROOTS)
        if self._rng.random() < 0.15:
            entity = aliased(root)
        asked = select(entity).order_by(*[
            getattr(entity, column.key) for column in inspect(root).primary_key
        ]).options(*self._options((root,), entity))  # fmt: skip
        if root is Person and self._rng.random() < 0.5:
            asked = asked.options(selectin_polymorphic(entity, [Manager, Worker]))
        if self._rng.random() < 0.3:
            asked = asked.limit(self._values.randint(1, 6))
        if self._rng.random() < 0.4:
            of = self._rng.choice([*CRITERIA])
            asked = asked.options(
                with_loader_criteria(of, CRITERIA[of] > self._values.randint(0, 4))
            )
        return asked

    def _options(self, trail: tuple[Any, ...], entity: Any) -> list[Any]:
        names = sorted(
            key for key, one in inspect(trail[-1]).relationships.items()
            if one.mapper.class_ not in trail
        )  # fmt: skip
        some = self._rng.sample(names, min(len(names), self._rng.choice([1, 1, 2])))
        return [self._option(trail, getattr(entity, name)) for name in some]

    def _option(self, trail: tuple[Any, ...], attribute: Any) -> Any:
        target: Any = attribute.property.mapper.class_
        reached = target
        if self._rng.random() < 0.1 and target in CRITERIA:
            attribute = attribute.and_(CRITERIA[target] > self._values.randint(0, 3))
        elif self._rng.random() < 0.1:
            reached = self._rng.choice([aliased(target), *([Manager] if target is Person else [])])
            attribute = attribute.of_type(reached)
        if self._rng.random() < 0.25:
            return self._rng.choice(LOADERS)(attribute)
        options: dict[str, Any] = {}
        if CHUNKS and self._rng.random() < 0.2:
            options["chunksize"] = self._rng.choice([1, 3])
        option = selectinload(attribute, **options)
        if self._rng.random() < 0.2:
            columns = sorted(inspect(target).columns.keys())
            option = option.load_only(getattr(reached, self._rng.choice(columns)))
        if len(trail) < 3 and self._rng.random() < 0.6:
            option = option.options(*self._options((*trail, target), reached))
        return option

    def _step(self) -> tuple[str, Any]:
        what = self._rng.choices(
            ["read", "populate", "stream", "expire", "expire_all", "change", "delete", "expunge",
             "refresh", "forget", "flush"],
            [12, 2, 2, 2, 1, 2, 1, 1, 2, 2, 1],
        )[0]  # fmt: skip
        return what, self._rng.choice(self._statements)


def _without_order_of_rows(seen: list[Any]) -> list[Any]:
    """Sort what is loaded between two other things: of rows without ORDER BY any order is right."""
    runs = groupby(seen, key=lambda one: one[:1] == ("loaded",))
    return [one for loads, run in runs for one in (sorted(run, key=str) if loads else run)]


def _listen(session: Session, seen: list[Any]) -> list[Any]:
    """Note events; return what holds all objects, that the identity map does not depend on gc."""
    held: list[Any] = []

    @event.listens_for(session, "do_orm_execute")
    def executed(state: Any) -> None:
        path = state.loader_strategy_path
        steps = [str(step) for step in path.path] if path else None
        seen.append((state.is_relationship_load, steps, len(state.user_defined_options)))

    @event.listens_for(session, "loaded_as_persistent")
    def loaded(_session: Session, one: Any) -> None:
        held.append(one)
        seen.append(("loaded", type(one).__name__, inspect(one).identity))

    return held


async def _performed(step: tuple[str, Any], session: AsyncSession, rng: Random) -> Any:
    what, statement = step
    try:
        if what in {"read", "populate", "stream"}:
            return shown(await _read(what, statement, session))
        known = sorted(session, key=lambda one: str((type(one).__name__, inspect(one).identity)))
        if what == "forget":
            session.expunge_all()
        elif what == "expire_all":
            session.expire_all()
        elif what == "flush":
            await session.flush()
        elif known:
            await _done(what, rng.choice(known), session, rng)
    except SQLAlchemyError as error:
        await session.rollback()
        return type(error).__name__, str(error).partition("\n")[0][:60]
    return what


async def _read(what: str, statement: Any, session: AsyncSession) -> Any:
    options = {"populate_existing": True} if what == "populate" else {}
    if what != "stream":
        found = await session.scalars(statement, execution_options=options)
        return found.unique().all()
    per = {"yield_per": 3}
    return [one async for one in await session.stream_scalars(statement, execution_options=per)]


async def _done(what: str, one: Any, session: AsyncSession, rng: Random) -> None:
    state = inspect(one)
    name = rng.choice(sorted(state.mapper.all_orm_descriptors.keys()))
    if what == "expire":
        session.expire(one, None if rng.random() < 0.3 else [name])
    elif what == "change" and isinstance(one, Kid):
        one.y = "changed"
    elif what == "delete" and isinstance(one, Toy):
        await session.delete(one)
    elif what == "expunge":
        session.expunge(one)
    elif what == "refresh":
        await session.refresh(one, None if rng.random() < 0.5 else [name])
