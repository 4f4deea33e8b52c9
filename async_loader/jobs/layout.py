"""
The layout of the state tables: which version is there, and from an earlier one to ours.

A column that is added may be null or has a server default: then `bring_up_to_date` adds it, and
nothing that a job has written is lost. Version 1 had no table that says so; version 2 counted no
rows that were prepared.
"""

from __future__ import annotations

from sqlalchemy import Connection, Inspector, MetaData, Table, delete, insert, inspect, select, text
from sqlalchemy.schema import AddConstraint, CreateColumn, CreateIndex, DropIndex

from ..errors import ConfigurationError, JobError
from .states import ACTIVE

VERSION = 3
KEYS_SINCE = 2  # runs of earlier versions have keys that we cannot read
_OURS = ("job", "arguments", "state", "round", "started_at")  # of every version's runs
# Whose it is, only where this snapshot sees it: a name is resolved by what is committed.
_THERE = text(
    "SELECT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = to_regclass(:run) AND {} > ("
    "SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped"
    " AND a.attname IN ({}))),"
    " to_regclass(:run) IS NOT NULL, to_regclass(:layout) IS NOT NULL".format(
        len(_OURS), ", ".join(f"'{name}'" for name in _OURS)
    )
)
_TAKEN = text(
    "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(:schema)"
    " AND relname = ANY(CAST(:names AS text[])) ORDER BY 1"
)
_OTHERS = "is somebody else's: give the jobs' state another schema than {} (state_schema)"


def version_there(connection: Connection, run: Table, layout: Table) -> int | None:
    """
    Return the version of the tables that are there; None where there are none.

    Raises `ConfigurationError` where another's table has a name of ours.
    """
    if connection.dialect.name == "postgresql":  # one statement, and none that is compiled
        names = {"run": run.fullname, "layout": layout.fullname}
        others, *there = connection.execute(_THERE, names).one()
        if others:
            raise ConfigurationError(f"{run.fullname} {_OTHERS.format(run.schema)}")
    else:
        there = [inspect(connection).has_table(table.name) for table in (run, layout)]
    if not there[0]:
        return None
    if not there[1]:
        return 1
    return int(connection.scalar(select(layout.c.version)) or 1)


def refuse_others_tables(connection: Connection, metadata: MetaData) -> None:
    """Raise `ConfigurationError` where some table has a name of ours, and there is no run's."""
    names = [table.name for table in metadata.sorted_tables]
    taken = connection.scalar(_TAKEN, {"schema": metadata.schema, "names": names})
    if taken is not None:
        raise ConfigurationError(f"{metadata.schema}.{taken} {_OTHERS.format(metadata.schema)}")


def refuse_other(version: int) -> None:
    """Raise `JobError` for tables that are not of our version."""
    if version > VERSION:
        raise JobError(
            f"the jobs' state tables here are of version {version}, this async_loader knows "
            f"version {VERSION}: use the newer one that made them"
        )
    if version < VERSION:
        raise JobError(
            f"the jobs' state tables here are of version {version}, this async_loader's of "
            f"version {VERSION}: the next `job run` brings them up to date"
        )


def refuse_unfinished(connection: Connection, run: Table, version: int) -> None:
    """Raise `JobError` where runs of an earlier version are not over: we cannot read their keys."""
    states = ", ".join(f"'{state}'" for state in ACTIVE)
    query = text(f"SELECT id FROM {_name(connection, run)} WHERE state IN ({states}) ORDER BY id")
    numbers = list(connection.execute(query).scalars())
    if numbers:
        raise JobError(
            f"the jobs' state tables here are of version {version} and this async_loader's of "
            f"version {VERSION}, which cannot go on with what an earlier one began (run "
            f"{', '.join(map(str, numbers))}): finish it there, or give it up with `job cancel`"
        )


def refuse_workers(connection: Connection, worker: Table, version: int) -> None:
    """Raise `JobError` while somebody works who knows only the tables of an earlier version."""
    alive = f"SELECT count(*) FROM {_name(connection, worker)} WHERE fresh_until > now()"
    if connection.dialect.name == "postgresql" and connection.scalar(text(alive)):
        raise JobError(
            f"workers of an earlier async_loader are at work here, on state tables of version "
            f"{version}: once they have ended, the next `job run` brings the tables up to date"
        )


def bring_up_to_date(connection: Connection, tables: list[Table]) -> None:
    """Add columns and references, and make the indexes anew, in which tables differ from ours."""
    inspector = inspect(connection)
    for table in tables:
        _add_columns(connection, inspector, table)
        _add_foreign_keys(connection, inspector, table)
        _remake_indexes(connection, inspector, table)


def note_version(connection: Connection, layout: Table) -> None:
    """Write down that the tables are ours."""
    connection.execute(delete(layout))
    connection.execute(insert(layout).values(version=VERSION))


def _add_columns(connection: Connection, inspector: Inspector, table: Table) -> None:
    there = {column["name"] for column in inspector.get_columns(table.name, table.schema)}
    for column in table.columns:
        if column.name not in there:
            spec = CreateColumn(column).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {_name(connection, table)} ADD COLUMN {spec}"))


def _add_foreign_keys(connection: Connection, inspector: Inspector, table: Table) -> None:
    """Add those that have a name of ours; SQLite can add none."""
    if connection.dialect.name == "postgresql":
        there = {key["name"] for key in inspector.get_foreign_keys(table.name, table.schema)}
        for key in table.foreign_key_constraints:
            if key.name is not None and key.name not in there:
                # Else SQLAlchemy leaves it out of the tables that this process makes later on.
                connection.execute(AddConstraint(key, isolate_from_table=False))


def _remake_indexes(connection: Connection, inspector: Inspector, table: Table) -> None:
    there = {
        index["name"]: index["column_names"]
        for index in inspector.get_indexes(table.name, table.schema)
    }
    for index in table.indexes:
        columns = [column.name for column in index.columns]
        if there.get(index.name) != columns:
            if index.name in there:
                connection.execute(DropIndex(index))
            connection.execute(CreateIndex(index))


def _name(connection: Connection, table: Table) -> str:
    return connection.dialect.identifier_preparer.format_table(table)
