"""
The state's tables in the hands of whoever owns the schema: printed, or made by a migration.

Who runs jobs then needs no right to make anything.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, create_mock_engine, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.mock import MockConnection
from sqlalchemy.schema import CreateSchema

from ...errors import ConfigurationError
from .. import layout
from ..states import SCHEMA
from ..tables import Tables, make, tables_of

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's


def create_state_tables(
    connection: Connection | MockConnection, *, state_schema: str = SCHEMA
) -> None:
    """
    Make the jobs' state tables, or bring those of an earlier version up to date.

    For a migration of your own: `create_state_tables(op.get_bind())`, in its transaction; what
    is there already stays as it is. In a script that Alembic writes (`--sql`) they are made, and
    none of an earlier version is brought up to date. Raises `JobError` while runs or workers of an
    earlier version are not over, `ConfigurationError` for another's tables.
    """
    if isinstance(connection, MockConnection):
        if connection.dialect.name != "postgresql":
            raise ConfigurationError("only PostgreSQL's can be written down: migrate connected")
        _write(connection, tables_of("postgresql", state_schema))
    elif isinstance(connection, Connection):
        make(connection, tables_of(connection.dialect.name, state_schema))
    else:
        raise ConfigurationError("create_state_tables takes a connection, as op.get_bind() is")


def ddl(state_schema: str = SCHEMA, *, role: str | None = None) -> str:
    """
    Return the statements that make the tables, and those that let a role run jobs on them.

    All of them in one transaction: whatever executes them makes all or nothing.
    """
    if role is not None and not (role and role.isprintable()):
        raise ConfigurationError("a role's name is one line of printable characters")
    statements: list[str] = []

    def keep(statement: Any, *_: Any, **__: Any) -> None:
        statements.append(str(statement.compile(dialect=_DIALECT)).strip())

    tables = tables_of("postgresql", state_schema)
    mock = create_mock_engine("postgresql+asyncpg://", keep)
    _write(mock, tables)
    granted = grants(tables, role) if role else []
    return ";\n\n".join(["BEGIN", *statements, *granted, "COMMIT"]) + ";\n"


def grants(tables: Tables, role: str) -> list[str]:
    """Return what a role needs to run jobs, beside what its jobs do."""
    quoted, schema = _DIALECT.identifier_preparer.quote(role), tables.metadata.schema
    others = (tables.run, tables.partition, tables.worker, tables.error)
    return [
        f"GRANT USAGE ON SCHEMA {schema} TO {quoted}",
        f"GRANT SELECT ON {tables.layout.fullname} TO {quoted}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(t.fullname for t in others)}"
        f" TO {quoted}",
    ]


def _write(connection: MockConnection, tables: Tables) -> None:
    assert tables.metadata.schema is not None
    connection.execute(CreateSchema(tables.metadata.schema, if_not_exists=True))
    tables.metadata.create_all(connection, checkfirst=False)
    version = f"INSERT INTO {tables.layout.fullname} (version) VALUES ({layout.VERSION})"
    connection.execute(text(version))
