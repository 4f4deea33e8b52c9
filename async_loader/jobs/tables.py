"""
The tables of all jobs, in a schema of their own, made on first use and never dropped: which one,
whoever runs a job may say (`state_schema`), and each schema's jobs know nothing of another's.

A key is text: the JSON of `keyset.encode`, which keeps its types. SQLite has no schemas: there
the name of the schema is a prefix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from zlib import crc32

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    event,
    func,
    inspect,
    text,
    true,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.schema import CreateSchema

from ..errors import ConfigurationError
from ..failures.classification import sqlstate_of
from . import layout
from .reader import writing
from .states import ACTIVE, SCHEMA

LOCK_CLASS = 0x41534C4A  # "ASLJ": our half of the two-part advisory lock keys
FENCE = "only_the_job_commits"
_MAKING = 0  # no worker has this id
# A table, a schema, a type or a row of the catalog that is there by now; and a transaction
# that the server has given up over it.
_MADE_MEANWHILE = frozenset(("42P07", "42P06", "42710", "23505", "40001"))
_ATTEMPTS = 10
_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]*")
_LONGEST_SCHEMA = 63
_quote = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]  # SQLAlchemy's

_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up in INTEGER only


class AnyText(TypeDecorator[str]):
    """Text from anywhere: what no server takes, NUL and lone surrogates, is written as escapes."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """Return the text that can be stored."""
        return None if value is None else storable(value)


def storable(value: str) -> str:
    """Return text without what PostgreSQL cannot store, which is escaped."""
    return value.replace("\0", "\\x00").encode(errors="backslashreplace").decode()


def lock_key(worker: int) -> int:
    """Return a worker's half of the advisory lock keys: its number's low bits."""
    return worker & 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class Tables:
    """Runs, the ranges of keys that they are cut into, who works on them, and what failed."""

    metadata: MetaData
    lock_class: int  # our half of advisory lock keys: workers', each schema's
    never: Table | None  # PostgreSQL's alone
    run: Table
    partition: Table
    worker: Table
    error: Table
    layout: Table

    @property
    def chunk_lock_class(self) -> int:
        """The half that chunks' transactions hold, which are found by it when a worker has died."""
        return self.lock_class + 1


@cache
def tables_of(dialect: str, state_schema: str = SCHEMA) -> Tables:
    """
    Return the tables as they are on PostgreSQL, in a schema, or on SQLite.

    Raises `ConfigurationError` for a name that is none for them.
    """
    check_schema(dialect, state_schema)
    schema, prefix = (None, f"{SCHEMA}_") if dialect == "sqlite" else (state_schema, "")
    metadata = MetaData(schema=schema)
    return Tables(
        metadata=metadata,
        lock_class=_lock_class(state_schema),
        never=None if dialect == "sqlite" else _never(metadata),
        run=_run(metadata, prefix),
        partition=_partition(metadata, prefix),
        worker=_worker(metadata, prefix),
        error=_error(metadata, prefix),
        layout=Table(
            f"{prefix}layout",
            metadata,
            Column("version", Integer, primary_key=True, autoincrement=False),
        ),
    )


def check_schema(dialect: str, name: object) -> None:
    """Raise `ConfigurationError` for what is no schema of state tables."""
    if dialect == "sqlite" and name != SCHEMA:
        raise ConfigurationError("SQLite has no schemas: leave state_schema out")
    if not (
        isinstance(name, str) and len(name) <= _LONGEST_SCHEMA
        and _SCHEMA.fullmatch(name) and _quote(name) == name
    ):  # fmt: skip
        raise ConfigurationError(
            f"{name!r} cannot be the state's schema: its name has small letters, digits and _, is "
            "no word of SQL's and does not begin with pg_"
        )


def _lock_class(schema: str) -> int:
    """Return a schema's half of the keys: two schemas count their workers each from one."""
    return LOCK_CLASS if schema == SCHEMA else (crc32(schema.encode()) & 0x3FFFFFFE) | 0x40000000


def _never(metadata: MetaData) -> Table:
    """Define a table that is always empty: what refers to a row of it cannot be committed."""
    return Table("never", metadata, Column("xid", _Number, primary_key=True, autoincrement=False))


def _under_way(metadata: MetaData) -> Column[int]:
    """
    Return the column that keeps a chunk's transaction from being committed half-way.

    The chunk's first statement puts the transaction's number here, its last takes it away. A
    COMMIT in between, whoever says it, fails at the constraint and rolls all back.
    """
    if metadata.schema is None:
        return Column("under_way", _Number)
    reference = ForeignKey(
        f"{metadata.schema}.never.xid", name=FENCE, deferrable=True, initially="DEFERRED"
    )
    return Column("under_way", reference)


def _run(metadata: MetaData, prefix: str) -> Table:
    table = Table(
        f"{prefix}run",
        metadata,
        Column("id", _Number, Identity(), primary_key=True),
        Column("job", Text, nullable=False),
        Column("arguments", Text, nullable=False),  # JSON with sorted names: equal is equal
        Column("target", Text, nullable=False, server_default=text("''")),  # of whom
        Column("key", Text, nullable=False),  # the key's columns, with what orders them
        Column("selected", Text),  # the select, in a form that only its meaning changes
        Column("idempotency_key", Text),  # one run for each, where whoever started it gave one
        Column("state", Text, nullable=False),
        Column("message", AnyText),  # why it failed, who paused it, why done is not all
        Column("round", Integer, nullable=False),  # of `until_empty`; others have one
        Column("total", _Number),  # rows; null where nobody can know
        Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("ended_at", DateTime(timezone=True)),
    )
    active = text("state IN ({})".format(", ".join(f"'{state}'" for state in ACTIVE)))
    Index(
        f"{prefix}one_active_run", table.c.job, table.c.arguments, table.c.target, unique=True,
        postgresql_where=active, sqlite_where=active,
    )  # fmt: skip
    Index(
        f"{prefix}one_run_of_a_key", table.c.job, table.c.target, table.c.idempotency_key,
        unique=True,
    )  # fmt: skip
    return table


def _partition(metadata: MetaData, prefix: str) -> Table:
    """
    Define the partitions: keys in (lower, upper], done up to and including `cursor`.

    `chunk` counts the chunks that were committed, and fences: a worker commits only while it
    is the owner and the number is the one that it knows. `ahead` is the end of the next
    chunk, fixed before it is tried, so that a chunk tried twice is the same range of keys.
    """
    table = Table(
        f"{prefix}partition",
        metadata,
        Column("run", ForeignKey(f"{_qualified(metadata, prefix)}run.id"), primary_key=True),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("round", Integer, nullable=False),
        Column("lower", Text),
        Column("upper", Text),
        Column("cursor", Text),
        Column("ahead", Text),
        Column("chunk", _Number, nullable=False),
        Column("done", Boolean, nullable=False),
        Column("owner", _Number),
        _under_way(metadata),
        *(
            Column(name, _Number, nullable=False, server_default=text("0"))
            for name in ("rows_read", "rows_written", "rows_skipped", "rows_prepared", "retried")
        ),
        Column("busy", Double, nullable=False, server_default=text("0")),  # seconds
    )
    # Room for each chunk's new version on the same page: no index is touched. A statement of
    # its own, as SQLAlchemy 2.0 has no `postgresql_with` for tables.
    room = DDL("ALTER TABLE %(fullname)s SET (fillfactor = 50)")  # type: ignore[no-untyped-call]  # SQLAlchemy types it not
    event.listen(table, "after_create", room.execute_if(dialect="postgresql"))
    return table


def _worker(metadata: MetaData, prefix: str) -> Table:
    """Define the heartbeats, rows of their own: a beat waits for no chunk's transaction."""
    return Table(
        f"{prefix}worker",
        metadata,
        Column("id", _Number, Identity(), primary_key=True),
        Column("run", ForeignKey(f"{_qualified(metadata, prefix)}run.id"), nullable=False),
        Column("tasks", Integer, nullable=False),
        Column("fresh_until", DateTime(timezone=True), nullable=False),  # the lease
        # Whether a lock tells of its life as well; not behind a pooler, where no lock lasts.
        Column("locks", Boolean, nullable=False, server_default=true()),
        Column("throttled", Double, nullable=False, server_default=text("0")),  # seconds
        Column("throttled_why", AnyText),
    )


def _error(metadata: MetaData, prefix: str) -> Table:
    return Table(
        f"{prefix}error",
        metadata,
        Column("run", ForeignKey(f"{_qualified(metadata, prefix)}run.id"), primary_key=True),
        Column("key", Text, primary_key=True),
        Column("partition", Integer, nullable=False),
        Column("chunk", _Number, nullable=False),
        Column("exception", Text, nullable=False),
        Column("sqlstate", Text),
        Column("message", AnyText, nullable=False),
        _under_way(metadata),
        Column("failed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    )


def _qualified(metadata: MetaData, prefix: str) -> str:
    return f"{metadata.schema}." if metadata.schema else prefix


async def make_tables(
    engine: AsyncEngine, state_schema: str = SCHEMA, *, unfinished: bool = False
) -> Tables:
    """
    Return the tables, made if this database has none yet; another may be making them too.

    Those of an earlier version are brought up to date. Raises `JobError` where that cannot be:
    while its workers are at work, or with runs of it that are not over, unless `unfinished`.
    """
    tables = tables_of(engine.dialect.name, state_schema)
    async with engine.connect() as connection:
        if await connection.run_sync(_version, tables) == layout.VERSION:
            return tables
    for attempt in range(_ATTEMPTS):
        try:
            async with writing(engine).begin() as connection:
                await connection.run_sync(make, tables, unfinished=unfinished)
            break
        except DBAPIError as error:
            # Another has made them, and a listener of the engine's has us see what was before.
            if sqlstate_of(error) not in _MADE_MEANWHILE or attempt == _ATTEMPTS - 1:
                raise
    return tables


async def tables_if_any(
    engine: AsyncEngine, state_schema: str = SCHEMA, *, unfinished: bool = False
) -> Tables | None:
    """
    Return the tables where a job has ever run; make nothing.

    Raises `JobError` for those of another version, unless `unfinished` runs of it are looked for.
    """
    tables = tables_of(engine.dialect.name, state_schema)
    async with engine.connect() as connection:
        version = await connection.run_sync(_version, tables)
    if version is not None and not unfinished:
        layout.refuse_other(version)
    return None if version is None else tables


def _version(connection: Connection, tables: Tables) -> int | None:
    return layout.version_there(connection, tables.run, tables.layout)


def make(connection: Connection, tables: Tables, *, unfinished: bool = False) -> None:
    """Make the tables, or bring them up to date, within a transaction."""
    schema = tables.metadata.schema
    if schema is not None:
        # IF NOT EXISTS does not help two at the same time: the second one fails.
        making = f"SELECT pg_advisory_xact_lock({tables.lock_class}, {_MAKING})"
        connection.execute(text(making))
        if not inspect(connection).has_schema(schema):  # to make it takes CREATE on the database
            connection.execute(CreateSchema(schema, if_not_exists=True))
    version = _version(connection, tables)
    if version is None and schema is not None:
        layout.refuse_others_tables(connection, tables.metadata)
    if version is not None:
        _check_earlier(connection, tables, version, unfinished)
    tables.metadata.create_all(connection)
    if version is not None:
        layout.bring_up_to_date(connection, tables.metadata.sorted_tables)
    layout.note_version(connection, tables.layout)


def _check_earlier(connection: Connection, tables: Tables, version: int, unfinished: bool) -> None:
    if version > layout.VERSION:
        layout.refuse_other(version)
    if version < layout.VERSION:
        layout.refuse_workers(connection, tables.worker, version)
        if not unfinished and version < layout.KEYS_SINCE:
            layout.refuse_unfinished(connection, tables.run, version)
