"""
Children of objects that are deleted, loaded in one statement a relationship.

SQLAlchemy has to know them: they are deleted, too, or lose their parent. It loads them parent by
parent. Here they are loaded for all parents and given to them as if each had been asked, by a
statement that an application's `do_orm_execute` sees as a relationship load, once for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import any_, bindparam
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import RelationshipDirection, attributes
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression

from ..column_types import codec
from ._sqlalchemy import is_eager_back, relationship_select
from .statements import SMALLEST

_LAZY = {"select", "joined", "selectin", "subquery", "raise", "raise_on_sql"}


def load_children(session: Any, states: Iterable[Any]) -> None:
    """Load what SQLAlchemy would load one by one of objects that a flush deletes."""
    for mapper, mine in _by_mapper(states).items():
        if len(mine) >= SMALLEST:
            for prop in _relationships(mapper, session):
                _load(session, mapper, prop, mine, smallest=SMALLEST)


def load_cascades(session: Any, states: Iterable[Any]) -> None:
    """Load what is deleted together with objects, level by level."""
    level = dict.fromkeys(states)
    seen = dict(level)
    while level:
        found: dict[Any, None] = {}
        for mapper, mine in _by_mapper(level).items():
            for prop in _relationships(mapper, session):
                if prop.cascade.delete:
                    _load(session, mapper, prop, mine, smallest=1)
                    found.update(dict.fromkeys(_related(prop, mine)))
        level = {state: None for state in found if state not in seen}
        seen.update(level)


def _by_mapper(states: Iterable[Any]) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    for state in states:
        found.setdefault(state.mapper, []).append(state)
    return found


def _relationships(mapper: Any, session: Any) -> Iterator[Any]:
    """Yield the relationships whose load is as plain as it can be: by one column of children."""
    for prop in mapper.relationships:
        if prop.direction is not RelationshipDirection.ONETOMANY or prop.viewonly:
            continue
        if not prop.uselist:  # a single child is not always asked for
            continue
        if prop.passive_deletes or prop.lazy not in _LAZY or is_eager_back(prop):
            continue
        join = prop.primaryjoin
        is_plain = isinstance(join, BinaryExpression) and join.operator is operators.eq
        if not is_plain or len(prop.local_remote_pairs) != 1 or not prop.entity.is_mapper:
            continue
        ((_, remote),) = prop.local_remote_pairs
        dialect = session.get_bind(mapper=prop.mapper).dialect
        way = codec(remote.type, dialect) if dialect.name == "postgresql" else None
        if way is not None and not way.foreign and way.element:
            yield prop


def _load(session: Any, mapper: Any, prop: Any, states: list[Any], *, smallest: int) -> None:
    ((local, remote),) = prop.local_remote_pairs
    key = mapper.get_property_by_column(local).key
    lacking = [state for state in states if _lacks(state, prop.key, key)]
    if len(lacking) < smallest:
        return
    statement, options = relationship_select(mapper, prop, remote)
    parents = bindparam("parents", type_=ARRAY(remote.type))
    rows = session.execute(
        statement.where(remote == any_(parents)),
        {"parents": [state.dict[key] for state in lacking]},
        execution_options=options,
    )
    children: dict[Any, list[Any]] = {}
    for child, parent in rows.unique():
        children.setdefault(parent, []).append(child)
    for state in lacking:
        mine = children.get(state.dict[key], [])
        attributes.set_committed_value(state.obj(), prop.key, mine)


def _lacks(state: Any, key: str, local: str) -> bool:
    """Tell whether children are not loaded, and their load is the same as any other parent's."""
    values = state.dict
    if key in values or state.load_options or state.key is None or not state.session_id:
        return False
    return (
        values.get(local) is not None
        and local not in state.committed_state
        and key not in state.expired_attributes
        and key not in state.callables
    )


def _related(prop: Any, states: list[Any]) -> Iterator[Any]:
    for state in states:
        value = state.dict.get(prop.key)
        if value is not None:
            impl = state.manager[prop.key].impl
            for child, _ in impl.get_all_pending(state, state.dict):
                if child is not None:
                    yield child
