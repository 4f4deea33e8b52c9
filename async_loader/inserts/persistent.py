"""
Pending objects become persistent, in bulk: what `Session._register_persistent` and
`InstanceState._commit_all_states` do object by object.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Mapper

from ._sqlalchemy import UOWTransaction, WeakInstanceDict
from .garbage import gc_paused
from .rows import Pending

State = Any


def register_persistent(uow: UOWTransaction, inserted: dict[Mapper[Any], Pending]) -> None:
    """Do `finalize_flush_changes`, the objects just inserted by the short way."""
    session: Any = uow.session
    if not uow.states:
        return
    slow: set[State] = set()
    count = sum(len(pending.states) for pending in inserted.values())
    if count != len(uow.states):
        ours = {state for pending in inserted.values() for state in pending.states}
        deleted = set()
        for state, (is_delete, _) in uow.states.items():
            if is_delete:
                deleted.add(state)
            elif state not in ours:
                slow.add(state)
        if deleted:
            session._remove_newly_deleted(deleted)
    with gc_paused(count):
        for mapper, pending in inserted.items():
            slow.update(_register(session, mapper, pending))
    if slow:
        session._register_persistent(slow)


def _register(session: Any, mapper: Any, pending: Pending) -> list[State]:
    """Register what has a key of its own; return the states that need a closer look."""
    known = session.identity_map
    if not isinstance(known, WeakInstanceDict):
        return pending.states
    slow: list[State] = []
    registered: list[State] = []
    by_key, reference, new = known._dict, known._wr, session._new
    identity_class = mapper._identity_class
    keys = [prop.key for prop in mapper._identity_key_props]
    only = keys[0] if len(keys) == 1 else None
    for state, values in zip(pending.states, pending.dicts, strict=True):
        if only is not None:
            identity: tuple[Any, ...] = (values.get(only),)
        else:
            identity = tuple([values.get(key) for key in keys])
        key = (identity_class, identity, state.identity_token)
        if None in identity or key in by_key or state not in new:
            slow.append(state)
            continue
        state.key = key
        by_key[key] = state
        state._instance_dict = reference
        _commit(state, values)
        registered.append(state)
    if session._transaction:
        session._transaction._new.update(dict.fromkeys(registered, True))
    listeners = session.dispatch.pending_to_persistent or None
    if listeners is not None:
        for state in registered:
            listeners(session, state)
    if len(registered) == len(new):
        new.clear()
    else:
        for state in registered:
            new.pop(state, None)
    return slow


def _commit(state: State, values: dict[str, Any]) -> None:
    """What `InstanceState._commit_all_states` does to one."""
    attributes = state.__dict__
    state.committed_state.clear()
    if "_pending_mutations" in attributes:
        del attributes["_pending_mutations"]
    if state.expired_attributes:
        state.expired_attributes.difference_update(values)
    state.modified = state.expired = False
    if state._strong_obj is not None:
        state._strong_obj = None
    if state._orphaned_outside_of_session:
        state._orphaned_outside_of_session = False
