"""The work of a call of `insert_rows`, once its connection is known."""

from __future__ import annotations

from typing import Any

from .calling import Call
from .counts import RowCount, Upserted
from .given import Changes, Progress
from .loading import OrmSender, TableSender, load
from .source import chunks
from .upserts import conflict_of, upsert


def insert(rows: Any, progress: Progress | None, call: Call) -> RowCount:
    """Insert the rows, all or none, and return how many."""
    target, connection = call.target, call.connection
    given = chunks(target, rows)
    known = len(rows) if isinstance(rows, list | tuple) else -1
    sender = (
        TableSender(connection, target, call.options, known)
        if target.is_one_table
        else OrmSender(call.session, target)
    )
    return RowCount(load(connection, given, sender, known, progress))


def upsert_as_said(
    rows: Any,
    progress: Progress | None,
    call: Call,
    *,
    action: Any,
    key: Any,
    changes: Changes | None,
    returning: Any,
    duplicates: str,
) -> Upserted:
    """Insert the rows or change those of their keys, all or none."""
    conflict = conflict_of(
        call.target,
        action,
        key=key,
        changes=changes,
        returning=returning,
        duplicates=duplicates,
    )
    return upsert(call, rows, conflict, progress)
