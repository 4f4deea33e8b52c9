"""
`Session.add_all` of objects that have no relationships to follow, without the walk.

For each object SQLAlchemy walks all attributes of its mapper for some that cascade, and passes
through nine functions. Where no attribute cascades and nobody listens, what is left is this.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import Session, object_mapper
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.exc import NO_STATE

from .garbage import gc_paused

_stock: Any = Session.add_all


def adds_like_stock(cls: type[Session]) -> bool:
    """Tell whether a class of sessions adds objects as `Session` does, and not in its own way."""
    return cls.add_all is _stock and cls.add is Session.add


def add_all(session: Any, instances: Iterable[object]) -> None:
    """Do what `Session.add_all` does: it is a method of the classes that batch."""
    dispatch = session.dispatch
    if (
        session._warn_on_events
        or dispatch.before_attach
        or dispatch.after_attach
        or dispatch.transient_to_pending
    ):
        _stock(session, instances)
        return
    with gc_paused(len(instances) if isinstance(instances, list) else 0):
        _add_all(session, instances)


def _add_all(session: Any, instances: Iterable[object]) -> None:
    plain: dict[Any, bool] = {}  # by class, for as long as this takes
    new, hash_key = session._new, session.hash_key
    for instance in instances:
        cls = instance.__class__
        if cls not in plain:
            plain[cls] = _has_no_cascade(instance)
        state = _state_of(instance) if plain[cls] else None
        if state is None or state.key is not None or state.session_id:
            session.add(instance, _warn=False)
            continue
        if session._transaction is None:
            session._autobegin_t()
        if state._orphaned_outside_of_session:
            state._orphaned_outside_of_session = False
        obj = state.obj()
        new[state] = obj
        state.insert_order = len(new)
        state.session_id = hash_key
        if state.modified and state._strong_obj is None:
            state._strong_obj = obj


def _state_of(instance: object) -> Any:
    """Return the state of an object, or None: what is not mapped is left to `Session.add`."""
    try:
        return instance_state(instance)
    except NO_STATE:
        return None


def _has_no_cascade(instance: object) -> bool:
    """Tell whether adding an object adds no other one."""
    if _state_of(instance) is None:
        return False
    mapper: Any = object_mapper(instance)
    return not any(
        prop.cascade and "save-update" in prop.cascade for prop in mapper._props.values()
    )
