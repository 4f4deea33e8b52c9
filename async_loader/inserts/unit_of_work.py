"""
The flush with batching: the actions are SQLAlchemy's own, in SQLAlchemy's own order, and only
those that insert, update or delete rows are done here.

A `before_flush` listener replaces `execute` and `finalize_flush_changes` of that one
UOWTransaction. So everything happens inside the unit of work: after all listeners and
cascades, in the right order with updates and deletes, and under the same rollback.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from sqlalchemy.orm import Session

from ._sqlalchemy import (
    DeleteAll,
    DeleteState,
    PostUpdateAll,
    SaveUpdateAll,
    SaveUpdateState,
    UOWTransaction,
    generate_actions,
    post_updates_of,
    save_obj,
    states_of,
    topological,
)
from .changes.flush import Changes
from .flush_order import KeyPropagation, Order, lane, plan_carry
from .keys import Wanted, asks_ahead, draw
from .persistent import register_persistent
from .places import NotSimpleError
from .plans import FastPathUnsupportedError, listens
from .prefetch import insert_regrouped
from .save import Save
from .tree import Tree, tree


@dataclass(slots=True)
class Setting:
    """What of a flush is batched, and how."""

    inserts: bool
    updates: bool
    deletes: bool
    strict_deletes: bool
    reserve: int
    statement_bytes: int


def before_flush(session: Session, uow: UOWTransaction, setting: Setting) -> None:
    """Make this unit of work a batching one; turned on at several places, it is so once."""
    has_new = bool(session._new) and setting.inserts
    if not (has_new or setting.updates or setting.deletes):
        return
    ours = uow.__dict__.get("execute")
    if ours is None:
        BatchingUnitOfWork(uow, setting).attach(with_new=has_new)
    else:
        ours.__self__.add(setting, with_new=has_new)


def _changes(uow: UOWTransaction, setting: Setting) -> Changes | None:
    if not (setting.updates or setting.deletes):
        return None
    return Changes(
        uow,
        updates=setting.updates,
        deletes=setting.deletes,
        strict_deletes=setting.strict_deletes,
    )


def _taken(action: Any, rest: set[Any]) -> list[Any]:
    """Return the objects of an action and of those like it, which are taken from the rest."""
    same = [
        other for other in rest if type(other) is type(action) and other.mapper is action.mapper
    ]
    rest.difference_update(same)
    return [action.state, *(other.state for other in same)]


_SAVED = (False, False)  # neither deleted nor only listed


def _later(_mapper: Any) -> None:
    """Stand in for `_per_mapper_flush_actions` until it is known to be needed."""


class BatchingUnitOfWork:
    """What one UOWTransaction does instead."""

    def __init__(self, uow: UOWTransaction, setting: Setting) -> None:
        self.uow = uow
        self.save = Save(uow, setting.reserve, setting.statement_bytes)
        self.inserts = setting.inserts
        self.changes = _changes(uow, setting)
        self._with_new = False

    def attach(self, *, with_new: bool) -> None:
        """Replace the methods, on this one instance."""
        uow: Any = self.uow
        uow.execute = self.execute
        uow.finalize_flush_changes = self.finalize
        if with_new:
            self._attach_new()

    def add(self, setting: Setting, *, with_new: bool) -> None:
        """Do what another place has turned on as well."""
        self.save.reserve = max(self.save.reserve, setting.reserve)
        self.inserts = self.inserts or setting.inserts
        changes = _changes(self.uow, setting)
        if self.changes is None or changes is None:
            self.changes = self.changes or changes
        else:
            self.changes.add(changes)
        if with_new and not self._with_new:
            self._attach_new()

    def _attach_new(self) -> None:
        """Only the long way needs what this prepares for each mapper."""
        uow: Any = self.uow
        uow._per_mapper_flush_actions = _later
        uow.register_object = self._register
        self._with_new = True

    def _register(self, state: Any, isdelete: bool = False, **kwargs: Any) -> bool:
        """Take a new object into the flush; anything else is for `register_object` itself."""
        uow: Any = self.uow
        if isdelete or kwargs or state.key is not None or state not in uow.session._new:
            return bool(type(uow).register_object(uow, state, isdelete, **kwargs))
        if state not in uow.states:
            uow.mappers[state.manager.mapper].add(state)
            uow.states[state] = _SAVED
        return True

    def execute(self) -> None:
        """Insert, update and delete, the short way if it is known to do the same."""
        uow: Any = self.uow
        self.inserts = self.inserts and not all(map(listens, uow.mappers))
        if self._with_new:
            del uow._per_mapper_flush_actions, uow.register_object
            if self.inserts and self._short_way():
                return
            for mapper in list(uow.mappers):
                uow._per_mapper_flush_actions(mapper)
        if self.inserts or self.changes is not None:
            self._long_way()
        else:
            type(uow).execute(uow)

    def _short_way(self) -> bool:
        uow: Any = self.uow
        if not all(state.key is None and flags == _SAVED for state, flags in uow.states.items()):
            return False
        edges = lane(mapper for mapper, states in uow.mappers.items() if states)
        if edges is None:
            return False
        try:
            carry = plan_carry(uow.session, uow, edges)
            order = edges.order(carry.used)
            trees = self._trees(order, carry)
        except (NotSimpleError, FastPathUnsupportedError):
            return False
        seen_to = {edge.processor for planted, _ in trees.values() for *_, edge in planted.links}
        for base, mappers in order.steps:
            if mappers is None:
                if base not in seen_to:
                    self.save.want_connection(base.mapper)
                    carry.run(uow, base)
            elif base in trees:
                planted, keys = trees[base]
                planted.run(self.save, keys)
            else:
                self._save(base, [state for mapper in mappers for state in uow.mappers[mapper]])
        return True

    def _trees(self, order: Order, carry: KeyPropagation) -> dict[Any, tuple[Tree, list[Any]]]:
        """Check what cannot be left to SQLAlchemy later, and draw all keys at once."""
        if order.tree is None and order.asking < 2:
            return {}
        uow: Any = self.uow
        trees: dict[Any, Tree] = {}
        wanted: list[tuple[Any, Wanted]] = []
        for base, mappers in order.steps:
            if mappers is None:
                continue
            states = [state for mapper in mappers for state in uow.mappers[mapper]]
            if order.tree is not None and base is order.tree.base:
                trees[base] = tree(order.tree, states, carry)
                want = trees[base].prepare(self.save)
            elif any(asks_ahead(mapper) for mapper in mappers):
                want = self._wanted(base, states)
            else:
                continue
            if want is not None:
                wanted.append((base, want))
        drawn: dict[Any, list[Any]] = {}
        if trees or len(wanted) > 1:
            drawn = self._draw(wanted)
        for base, want in wanted:
            if base not in trees and base in drawn:
                self.save.ahead[want.plan.table] = drawn[base]
        return {base: (planted, drawn.get(base, [])) for base, planted in trees.items()}

    def _wanted(self, base: Any, states: list[Any]) -> Wanted | None:
        try:
            return self.save.wanted(base, states)
        except FastPathUnsupportedError:
            return None

    def _draw(self, wanted: list[tuple[Any, Wanted]]) -> dict[Any, list[Any]]:
        drawn: dict[Any, list[Any]] = {}
        by_connection: dict[Any, list[tuple[Any, Wanted]]] = {}
        for base, want in wanted:
            by_connection.setdefault(want.connection, []).append((base, want))
        for same in by_connection.values():
            keys = draw([want for _, want in same], self.save.reserve)
            drawn.update(zip((base for base, _ in same), keys, strict=True))
        return drawn

    def _long_way(self) -> None:
        """Do all actions in the order that SQLAlchemy sorts them."""
        uow: Any = self.uow
        if self.changes is not None:
            self.changes.prepare()
        actions = generate_actions(uow)
        if uow.cycles:
            for subset in topological.sort_as_subsets(uow.dependencies, actions):
                rest = set(subset)
                while rest:
                    self._execute_aggregate(rest.pop(), rest)
        else:
            for action in topological.sort(uow.dependencies, actions):
                self._execute(action)

    def _execute(self, action: Any) -> None:
        uow, changes = self.uow, self.changes
        if type(action) is SaveUpdateAll:
            self._save(action.mapper, states_of(uow, action.mapper))
        elif changes is not None and type(action) is DeleteAll:
            changes.delete(action.mapper, states_of(uow, action.mapper, deleted=True))
        elif changes is not None and type(action) is PostUpdateAll:
            changes.post_update(*post_updates_of(uow, action))
        else:
            action.execute(uow)

    def _execute_aggregate(self, action: Any, rest: set[Any]) -> None:
        uow: Any = self.uow
        if type(action) is SaveUpdateState:
            self._save(action.mapper, _taken(action, rest))
        elif self.changes is not None and type(action) is DeleteState:
            states = [state for state in _taken(action, rest) if uow.states[state][0]]
            self.changes.delete(action.mapper, states)
        elif type(action) in (SaveUpdateAll, DeleteAll, PostUpdateAll):
            self._execute(action)
        else:
            action.execute_aggregate(uow, rest)

    def _save(self, mapper: Any, states: list[Any]) -> None:
        pending = [state for state in states if state.key is None] if self.inserts else []
        if pending and len(pending) == len(states):
            pending.sort(key=attrgetter("insert_order"))
            for way in (self.save.insert, self._insert_regrouped):
                try:
                    way(mapper, pending)
                except FastPathUnsupportedError:
                    continue
                return
        if self.changes is None or len(pending) == len(states):
            save_obj(mapper, states, self.uow)
        else:
            self.changes.save(mapper, states)

    def _insert_regrouped(self, mapper: Any, states: list[Any]) -> None:
        insert_regrouped(self.save, mapper, states)

    def finalize(self) -> None:
        """Make the inserted objects persistent; the rest is SQLAlchemy's."""
        uow: Any = self.uow
        # They tie it, and with it all objects of the flush, into a circle for the collector.
        del uow.execute, uow.finalize_flush_changes
        register_persistent(self.uow, self.save.inserted)
