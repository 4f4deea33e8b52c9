"""
Every private name of SQLAlchemy that batching touches, in one place.

2.1 gave many of these an underscore that they lacked in 2.0, and added values that the ORM itself
supplies (`Mapper._insert_orm_defaults`). Everything else in the package imports from here, so
that a new release of SQLAlchemy is read against one page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy.orm import (
    Session,
    attributes,
    dependency,
    identity,
    persistence,
    unitofwork,
)
from sqlalchemy.orm.base import NO_VALUE
from sqlalchemy.orm.unitofwork import UOWTransaction
from sqlalchemy.sql.schema import CallableColumnDefault
from sqlalchemy.util import topological

__all__ = [
    "NO_VALUE",
    "NO_VALUES",
    "RELATIONSHIP_ATTRIBUTES",
    "ManyToMany",
    "ManyToOne",
    "OneToMany",
    "SaveUpdateAll",
    "SaveUpdateState",
    "ScalarAttributeImpl",
    "UOWTransaction",
    "WeakInstanceDict",
    "collect_insert_commands",
    "connections_for_states",
    "emit_insert_statements",
    "finalize_insert_update",
    "generate_actions",
    "has_one_bind",
    "ignores_context",
    "organize_states_for_save",
    "orm_defaults",
    "save_obj",
    "states_of",
    "topological",
]


def _name(module: Any, name: str) -> Any:
    """Return the attribute as 2.1 calls it, or as 2.0 did."""
    found = getattr(module, f"_{name}", None)
    return found if found is not None else getattr(module, name)


SaveUpdateAll: Any = _name(unitofwork, "SaveUpdateAll")
SaveUpdateState: Any = _name(unitofwork, "SaveUpdateState")
OneToMany: Any = _name(dependency, "OneToManyDP")
ManyToOne: Any = _name(dependency, "ManyToOneDP")
ManyToMany: Any = _name(dependency, "ManyToManyDP")
ScalarAttributeImpl: Any = _name(attributes, "ScalarAttributeImpl")
RELATIONSHIP_ATTRIBUTES = frozenset(
    {
        _name(attributes, "CollectionAttributeImpl"),
        _name(attributes, "ScalarObjectAttributeImpl"),
    }
)
WeakInstanceDict: Any = _name(identity, "WeakInstanceDict")
save_obj: Callable[..., None] = _name(persistence, "save_obj")

collect_insert_commands: Any = persistence._collect_insert_commands
connections_for_states: Any = persistence._connections_for_states
emit_insert_statements: Any = persistence._emit_insert_statements
finalize_insert_update: Any = persistence._finalize_insert_update_commands
organize_states_for_save: Any = persistence._organize_states_for_save

# What `committed_state` holds where an attribute had no value before.
NO_VALUES = frozenset(map(id, (NO_VALUE, getattr(attributes, "NEVER_SET", NO_VALUE))))


class OrmDefault(NamedTuple):
    """A value that the ORM supplies for an unset attribute (2.1: dataclass defaults)."""

    key: str
    column: Any
    value: Any


def has_one_bind(session: Any) -> bool:
    """Tell whether every mapper of a session is served by the same connection."""
    by_mapper = session.binds if hasattr(session, "binds") else session._Session__binds
    plain = type(session).get_bind is Session.get_bind and session.bind is not None
    return plain and not by_mapper


def orm_defaults(mapper: Any, table: Any) -> Sequence[OrmDefault]:
    """Return what the ORM itself puts into an insert for unset attributes; none in 2.0."""
    by_table = getattr(mapper, "_insert_orm_defaults", None)
    return [OrmDefault(*row) for row in by_table[table]] if by_table else []


def states_of(uow: Any, base_mapper: Any) -> list[Any]:
    """Return what a flush saves of one hierarchy."""
    return list(uow.states_for_mapper_hierarchy(base_mapper, False, False))


def generate_actions(uow: Any) -> list[Any]:
    """Run the presort and return the actions of a flush, in SQLAlchemy's stable order."""
    actions: Any = uow._generate_actions()
    return sorted(actions, key=lambda action: action.sort_key)


# Column defaults that take no argument are wrapped by a lambda that drops the context; there
# are two places that do it, and whatever has other code wants a context.
_WRAPPERS = {
    CallableColumnDefault(function).arg.__code__  # type: ignore[attr-defined]  # always a lambda
    for function in (lambda: None, dict)
}


def ignores_context(default: Any) -> bool:
    """Tell whether a callable column default takes no execution context."""
    return getattr(default.arg, "__code__", None) in _WRAPPERS
