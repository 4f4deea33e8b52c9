"""
The steps of a flush that change rows: `_save_obj`, `_post_update` and `_delete_obj` of
SQLAlchemy, step by step, but for how the statements are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from .._sqlalchemy import (
    collect_delete_commands,
    collect_insert_commands,
    collect_post_update_commands,
    collect_update_commands,
    committed_version,
    delete_obj,
    emit_insert_statements,
    fills,
    finalize_insert_update,
    is_autocommit,
    organize_states_for_delete,
    organize_states_for_post_update,
    organize_states_for_save,
    post_update,
    save_obj,
    tables_of,
)
from ..plans import DRIVERS
from .children import load_children
from .deletes import emit_deletes
from .post_updates import PostUpdates
from .statements import SMALLEST
from .updates import Updates

_DELETED = (True, False)  # and not only listed


class Changes:
    """The updates and deletes of one flush."""

    def __init__(self, uow: Any, *, updates: bool, deletes: bool, strict_deletes: bool) -> None:
        self.uow = uow
        self.updates = updates
        self.deletes = deletes
        self.strict_deletes = strict_deletes

    def add(self, other: Changes) -> None:
        """Do what another does as well."""
        self.updates = self.updates or other.updates
        self.deletes = self.deletes or other.deletes
        self.strict_deletes = self.strict_deletes or other.strict_deletes

    def prepare(self) -> None:
        """Load what SQLAlchemy would load one by one of what is deleted."""
        uow = self.uow
        if not self.deletes or uow.session.connection_callable is not None:
            return
        deleted = [state for state, flags in uow.states.items() if flags == _DELETED]
        if len(deleted) >= SMALLEST and serves(uow.transaction.connection(deleted[0].mapper)):
            load_children(uow.session, deleted)

    def save(self, base_mapper: Any, states: Sequence[Any]) -> None:
        """Insert and update objects of one hierarchy."""
        if not (self.updates and self._is_ours(base_mapper, states)):
            save_obj(base_mapper, states, self.uow)
            return
        uow = self.uow
        to_update: list[Any] = []
        to_insert: list[Any] = []
        for (
            state,
            values,
            mapper,
            connection,
            has_identity,
            row_switch,
            version,
        ) in organize_states_for_save(base_mapper, states, uow):
            if has_identity or row_switch:
                to_update.append((state, values, mapper, connection, version))
            else:
                to_insert.append((state, values, mapper, connection))
        for table, mapper in tables_of(base_mapper):
            inserts = collect_insert_commands(table, to_insert)
            updates = collect_update_commands(uow, table, to_update)
            Updates(uow, base_mapper, mapper, table).emit(updates)
            emit_insert_statements(base_mapper, uow, mapper, table, inserts)
        finalize_insert_update(
            base_mapper,
            uow,
            chain(
                ((*row, False) for row in to_insert),
                ((*row[:4], True) for row in to_update),
            ),
        )

    def post_update(self, base_mapper: Any, states: Sequence[Any], columns: Any) -> None:
        """Update the columns of relationships that are written last."""
        uow = self.uow
        if not (self.updates and self._is_ours(base_mapper, states)):
            post_update(base_mapper, states, uow, columns)
            return
        to_update = list(organize_states_for_post_update(base_mapper, states, uow))
        for table, mapper in tables_of(base_mapper):
            rows = (
                (state, values, sub_mapper, connection, committed_version(mapper, state, values))
                for state, values, sub_mapper, connection in to_update
                if fills(sub_mapper, table)
            )
            updates = collect_post_update_commands(base_mapper, uow, table, rows, columns)
            PostUpdates(uow, base_mapper, mapper, table).emit(updates)

    def delete(self, base_mapper: Any, states: Sequence[Any]) -> None:
        """Delete objects of one hierarchy."""
        if not (self.deletes and self._is_ours(base_mapper, states)):
            delete_obj(base_mapper, states, self.uow)
            return
        uow = self.uow
        to_delete = list(organize_states_for_delete(base_mapper, states, uow))
        for table, mapper in reversed(tables_of(base_mapper)):
            if mapper.inherits and mapper.passive_deletes:
                continue
            deletes = collect_delete_commands(base_mapper, uow, table, to_delete)
            emit_deletes(uow, base_mapper, mapper, table, deletes, strict=self.strict_deletes)
        for state, _, mapper, connection, _ in to_delete:
            mapper.dispatch.after_delete(mapper, connection, state)

    def _is_ours(self, base_mapper: Any, states: Sequence[Any]) -> bool:
        """Tell whether rows of a hierarchy may go in another way than SQLAlchemy's."""
        if len(states) < SMALLEST or not base_mapper.batch:
            return False
        if self.uow.session.connection_callable is not None:
            return False
        return serves(self.uow.transaction.connection(base_mapper))


def serves(connection: Any) -> bool:
    """Tell whether a connection is of a kind that is known, and nobody else has a hand in it."""
    dialect = connection.dialect
    if dialect.name != "postgresql" or dialect.driver not in DRIVERS or is_autocommit(connection):
        return False
    return not (connection.dispatch.before_execute or connection.dispatch.after_execute)
