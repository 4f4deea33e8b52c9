"""Rows into the table of a model, through the connection that its session would take."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert as insert_of
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from ...errors import ConfigurationError
from .._sqlalchemy import autoflush
from ..plans import DRIVERS
from .loading import OrmSender, TableSender, load
from .source import chunks
from .target import Target, target_of


def dialect_of(session: Session | Connection, model: Any) -> Any:
    """Return the dialect of the database that rows of the model go to."""
    if isinstance(session, Connection):
        return session.dialect
    return session.get_bind(**_bind_arguments(target_of(model))).dialect


def _bind_arguments(target: Target) -> dict[str, Any]:
    """What `execute` would tell a session that chooses its engine."""
    arguments = {"clause": insert_of(target.model)}
    return arguments if target.mapper is None else {"mapper": target.mapper, **arguments}


def insert(session: Session | Connection, model: Any, rows: Any) -> int:
    """Insert the rows, all or none, and return how many; see `insert_rows`."""
    target = target_of(model)
    dialect = dialect_of(session, model)
    if dialect.name != "postgresql" or dialect.driver not in DRIVERS:
        raise ConfigurationError(
            "insert_rows needs PostgreSQL through asyncpg or psycopg, not "
            f"{dialect.name}+{dialect.driver}"
        )
    given = chunks(target, rows)
    known = len(rows) if isinstance(rows, list | tuple) else -1
    options: dict[str, Any] = {}
    if isinstance(session, Session):
        autoflush(session)
        connection = session.connection(bind_arguments=_bind_arguments(target))
        translation = getattr(session, "execution_options", {}).get("schema_translate_map")
        if translation is not None:
            options = {"schema_translate_map": translation}
    else:
        connection = session
    if target.is_one_table:
        sender = TableSender(connection, target, options, known)
        return load(connection, given, sender, known)
    orm_session = session if isinstance(session, Session) else None
    return load(connection, given, OrmSender(orm_session, target), known)
