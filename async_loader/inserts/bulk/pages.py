"""INSERT by SQLAlchemy itself, a page of rows at a time: right for whatever it can insert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from .target import Target

PAGE = 1_000  # rows of one executemany


def insert_page(
    connection: Connection,
    target: Target,
    rows: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
) -> None:
    """Insert rows that name the same columns, by column key; nothing is read back."""
    # Not even the key: a row that its writer may not read is no error.
    statement = insert(target.table).inline()
    connection.execute(statement, [*rows], execution_options=options)


def insert_by_orm(session: Session, target: Target, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of a class with several tables, by attribute."""
    session.execute(insert(target.model), [*rows])
