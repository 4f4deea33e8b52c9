"""
The flush with batching: the actions are SQLAlchemy's own, in SQLAlchemy's own order, and only
those that insert new objects are done here.

A `before_flush` listener replaces `execute` and `finalize_flush_changes` of that one
UOWTransaction. So everything happens inside the unit of work: after all listeners and
cascades, in the right order with updates and deletes, and under the same rollback.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from async_loader.inserts._sqlalchemy import (
    SaveUpdateAll,
    SaveUpdateState,
    UOWTransaction,
    generate_actions,
    save_obj,
    topological,
)
from async_loader.inserts.persistent import register_persistent
from async_loader.inserts.plans import NotUnderstoodError
from async_loader.inserts.save import Save


def before_flush(session: Session, uow: UOWTransaction, objects: Any) -> None:
    """Session event: make this unit of work a batching one."""
    if session._new and "execute" not in uow.__dict__:
        BatchingUnitOfWork(uow).attach()


class BatchingUnitOfWork:
    """What one UOWTransaction does instead."""

    def __init__(self, uow: UOWTransaction) -> None:
        self.uow = uow
        self.save = Save(uow)

    def attach(self) -> None:
        """Replace the two methods, on this one instance."""
        self.uow.execute = self.execute  # type: ignore[method-assign]
        self.uow.finalize_flush_changes = self.finalize  # type: ignore[method-assign]

    def execute(self) -> None:
        """Do all actions in their order."""
        uow = self.uow
        actions = generate_actions(uow)
        if uow.cycles:
            for subset in topological.sort_as_subsets(uow.dependencies, actions):
                rest = set(subset)
                while rest:
                    self._execute_aggregate(rest.pop(), rest)
        else:
            for action in topological.sort(uow.dependencies, actions):
                if type(action) is SaveUpdateAll:
                    self._save(
                        action.mapper,
                        list(uow.states_for_mapper_hierarchy(action.mapper, False, False)),
                    )
                else:
                    action.execute(uow)

    def _execute_aggregate(self, action: Any, rest: set[Any]) -> None:
        if type(action) is SaveUpdateState:
            mapper = action.mapper
            same = [
                other for other in rest if type(other) is SaveUpdateState and other.mapper is mapper
            ]
            rest.difference_update(same)
            self._save(mapper, [action.state, *(other.state for other in same)])
        elif type(action) is SaveUpdateAll:
            states = self.uow.states_for_mapper_hierarchy(action.mapper, False, False)
            self._save(action.mapper, list(states))
        else:
            action.execute_aggregate(self.uow, rest)

    def _save(self, mapper: Any, states: list[Any]) -> None:
        pending = [state for state in states if state.key is None]
        if pending and len(pending) == len(states):
            pending.sort(key=lambda state: state.insert_order)
            try:
                self.save.insert(mapper, pending)
                return
            except NotUnderstoodError:
                pass
        save_obj(mapper, states, self.uow)

    def finalize(self) -> None:
        """Make the inserted objects persistent; the rest is SQLAlchemy's."""
        register_persistent(self.uow, self.save.inserted)
