"""Keys that an inheriting table has from the one above it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Table

from ._sqlalchemy import UOWTransaction, populate
from .plans import MapperPlan
from .rows import Pending

State = Any


def copy_keys_down(
    uow: UOWTransaction,
    table: Table,
    parts: Sequence[tuple[MapperPlan, Pending]],
    done: set[State],
) -> None:
    """Do what `_postfetch` does with equated columns, for all objects but those it was done to."""
    heard: list[tuple[State, Any]] = []
    for plan, pending in parts:
        table_plan = plan.tables.get(table)
        if table_plan is None:
            continue
        mapper: Any = plan.mapper
        states = [state for state in pending.states if state not in done]
        if any(mapper.class_manager[key].dispatch.set for key in plan.identity_keys):
            heard += [(state, mapper) for state in states]
        else:
            _copy(states, table_plan.equated)
    heard.sort(key=lambda pair: pair[0].insert_order)
    for state, mapper in heard:
        for owner, pairs in mapper._table_to_equated[table]:
            populate(state, owner, state, owner, pairs, uow, mapper.passive_updates)


def _copy(states: Sequence[State], equated: Iterable[tuple[str, str]]) -> None:
    for source, target in equated:
        for state in states:
            values = state.dict
            if source != target or not state.modified:
                state.manager[target].impl.set(state, values, values.get(source), None)
            elif target not in state.committed_state:  # all that `set` would do
                state.committed_state[target] = values.get(target)
