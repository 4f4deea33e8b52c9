"""
Pending objects become persistent, in bulk: what `Session._register_persistent` and
`InstanceState._commit_all_states` do object by object.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Mapper
from async_loader.inserts._sqlalchemy import UOWTransaction, WeakInstanceDict



def register_persistent(
    uow: UOWTransaction, inserted: dict[Mapper[Any], list[tuple[Any, dict[str, Any]]]]
) -> None:
    """Do `finalize_flush_changes`, the objects just inserted by the short way."""
    session: Any = uow.session
    if not uow.states:
        return
    others, deleted = set(), set()
    ours = {state for pending in inserted.values() for state, _ in pending}
    for state, (is_delete, _) in uow.states.items():
        if is_delete:
            deleted.add(state)
        elif state not in ours:
            others.add(state)
    if deleted:
        session._remove_newly_deleted(deleted)
    slow = others
    for mapper, pending in inserted.items():
        slow.update(_register(session, mapper, pending))
    if slow:
        session._register_persistent(slow)


def _register(session: Any, mapper: Any, pending: list[tuple[Any, dict[str, Any]]]) -> list[Any]:
    """Register what has a key of its own; return the states that need a closer look."""
    known = session.identity_map
    if not isinstance(known, WeakInstanceDict):
        return [state for state, _ in pending]
    by_key, reference = known._dict, known._wr
    transaction_new = session._transaction._new if session._transaction else {}
    identity_class = mapper._identity_class
    keys = [prop.key for prop in mapper._identity_key_props]
    slow, registered = [], []
    for state, values in pending:
        try:
            identity = tuple([values[key] for key in keys])
        except KeyError:
            slow.append(state)
            continue
        key = (identity_class, identity, state.identity_token)
        if None in identity or key in by_key or state not in session._new:
            slow.append(state)
            continue
        state.key = key
        by_key[key] = state
        state._instance_dict = reference
        _commit(state, values)
        transaction_new[state] = True
        registered.append(state)
    listeners = session.dispatch.pending_to_persistent or None
    if listeners is not None:
        for state in registered:
            listeners(session, state)
    for state in registered:
        session._new.pop(state, None)
    return slow


def _commit(state: Any, values: dict[str, Any]) -> None:
    """What `InstanceState._commit_all_states` does to one."""
    state.committed_state.clear()
    attributes = state.__dict__
    if "_pending_mutations" in attributes:
        del attributes["_pending_mutations"]
    if state.expired_attributes:
        state.expired_attributes.difference_update(values)
    state.modified = state.expired = False
    state._strong_obj = None
    if state._orphaned_outside_of_session:
        state._orphaned_outside_of_session = False
