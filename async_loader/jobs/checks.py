"""
What a job is held against before it begins: the select, its key and tables, as the database has
them. Each refusal is one sentence: what, why, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Boolean,
    Connection,
    Integer,
    LargeBinary,
    Numeric,
    Select,
    String,
    Table,
    TypeDecorator,
    Uuid,
    event,
    inspect,
    text,
)
from sqlalchemy import Enum as SqlEnum
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, ORMExecuteState

from ..database.postgresql import first_line
from ..database.sqlalchemy_private import lock_of
from ..errors import AsyncLoaderError, ConfigurationError
from ..failures.classification import sqlstate_of
from .catalog import INTEGERS, NO_KEYS, ColumnFacts, facts_of
from .connections import begin
from .definition import Sessions
from .identity import Target, meaning_of, target_of, translation
from .keyset import Keyset
from .movers import movers_of
from .ordering import KeyTable, Ordering
from .prepare_policy import PreparePolicy
from .rows import read_rows
from .selects import refuse_functions
from .transient import is_cancelled, is_transient
from .uniqueness import Facts, Graph, check_key, tables_of
from .versions import give_version


@dataclass(frozen=True, slots=True)
class Examined:
    """A job's pages as the database orders them, and what tells its run from another."""

    keyset: Keyset | None
    target: Target
    selected: str


async def examine(
    sessions: Sessions,
    keyset: Keyset | None,
    *,
    named: bool,
    preparing: PreparePolicy | None = None,
) -> Examined:
    """
    Return what a job is in this database, as its sessions see it; `named`: it has arguments.

    Raises `ConfigurationError` for a select of which rows would be lost or read twice.
    """
    keys = None
    async with sessions() as session:
        connection = await begin(session)
        target = await connection.run_sync(_examine, keyset, named)
        if keyset is not None:
            keys = await _try(session, keyset)
            if preparing is not None:
                await give_version(session, keyset, preparing.compare)
        await session.rollback()
    return Examined(keyset, target, meaning_of(keys))


def _examine(connection: Connection, keyset: Keyset | None, named: bool) -> Target:
    """Order the keyset, and return the target."""
    translate = translation(connection, keyset.select if keyset else None)
    if keyset is None:
        return target_of(connection, (), translate)
    refuse_functions(connection, keyset.select)
    mappers = list(_mappers(keyset))
    reads = [*keyset.only_keys.get_final_froms(), *(m.persist_selectable for m in mappers)]
    facts = facts_of(connection, {table for read in reads for table in tables_of(read)}, translate)
    if not named:
        _refuse_secured(connection, [found.name for found in facts.values()])
    graph = Graph.of(keyset.only_keys, facts)
    columns = check_key(graph, keyset.elements)
    for column in columns:
        if column.type in NO_KEYS:
            raise ConfigurationError(
                f"the key's column {column.name} is of type {column.type}, whose text is another "
                "under other settings: page by another"
            )
    keyset.ordered(Ordering(tuple(columns), connection.dialect.name == "sqlite"))
    for mapper in mappers:
        _check_identity(mapper, Graph(facts))
    if keyset.entities:
        places = list(map(graph.place, keyset.identity))
        keyset.one_each = not graph.missing([place for place in places if place is not None])
        keyset.doubtful = not all(
            place is not None and _leads_back(graph.column(place), column)
            for place, column in zip(places, keyset.identity, strict=True)
        )
    keyset.tables = tuple(_key_tables(keyset, graph, facts))
    keyset.movers = movers_of(connection, [table.quoted for table in keyset.tables])
    return target_of(connection, (table.name for table in keyset.tables), translate)


def _key_tables(keyset: Keyset, graph: Graph, facts: Facts) -> Iterator[KeyTable]:
    """Yield each table of the key's columns, and which columns these are."""
    columns: dict[Table, list[Any]] = {}
    for element in keyset.elements:
        (table,) = tables_of(graph.leaf_of(element).from_)
        columns.setdefault(table, []).append(element)
    for table, own in columns.items():
        moved_by = facts[table].moved_by
        if any(column.onupdate or column.server_onupdate for column in own):
            moved_by = moved_by or "the column's onupdate"
        names = frozenset(column.name for column in own)
        yield KeyTable(table, facts[table].name, names, moved_by)


def _mappers(keyset: Keyset) -> Iterator[Mapper[Any]]:
    """Yield the mappers of the objects that rows are, or contain."""
    for description in keyset.select.column_descriptions:
        entity = description.get("entity")
        if entity is not None and description.get("expr") is entity:
            yield inspect(entity).mapper


def _check_identity(mapper: Mapper[Any], graph: Graph) -> None:
    """Refuse a class of which two rows are one object: its key is not the table's."""
    graph.add(mapper.persist_selectable)
    try:
        check_key(graph, mapper.primary_key)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{mapper.class_.__name__} is not told apart by its mapper's primary key: {error}"
        ) from error


def _leads_back(column: ColumnFacts, mapped: Any) -> bool:
    """
    Return whether each value of a column is another in Python, and finds its row again.

    Raises `ConfigurationError` where it is known that they do not.
    """
    type_ = mapped.type
    if isinstance(type_, TypeDecorator) or not type(type_).__module__.startswith("sqlalchemy."):
        return False
    if isinstance(type_, Numeric) and column.type == "numeric":
        if type_.asdecimal:
            return type_.precision is None  # else what is sent is rounded to its digits
        raise ConfigurationError(
            f"the key's column {column.name} is numeric in the database and a float in Python, "
            "where other numbers are the same: map it as Numeric(asdecimal=True), or select columns"
        )
    return any(column.type in names and isinstance(type_, kind) for names, kind in _EXACT) or (
        column.enumerated and isinstance(type_, SqlEnum)
    )


_EXACT: tuple[tuple[tuple[str, ...], type], ...] = (
    ((*INTEGERS, "INTEGER", "BIGINT"), Integer),
    (("text", "varchar", "TEXT", "VARCHAR"), String),
    (("uuid",), Uuid), (("bool",), Boolean), (("bytea",), LargeBinary),
)  # fmt: skip


def _refuse_secured(connection: Connection, tables: Sequence[str]) -> None:
    """Refuse tables of which somebody else sees other rows, where nothing tells the runs apart."""
    if connection.dialect.name != "postgresql":
        return
    secured = connection.scalars(_SECURED, {"names": list(tables)}).all()
    if secured:
        raise ConfigurationError(
            f"{secured[0]} has row-level security, so that each role or tenant sees other rows, "
            "and one's run would be taken for another's: name whose rows they are in the run's "
            "arguments (tenant=...), or run the job as a role that sees all"
        )


_SECURED = text(
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname || '.' || c.relname = ANY(CAST(:names AS text[]))"
    " AND c.relrowsecurity AND row_security_active(c.oid)"
)


async def _try(session: AsyncSession, keyset: Keyset) -> Select[Any]:
    """
    Run the select for one row: what is wrong with it is no row's fault.

    Return the select of the keys, as the session executes it: an application's own listeners
    may add a tenant's conditions.
    """
    executed: list[Any] = []

    def see(state: ORMExecuteState) -> None:
        executed.append(state.statement)  # and then those that load what belongs to it

    event.listen(session.sync_session, "do_orm_execute", see)
    await _read_one(session, keyset)
    return keyset.only_keys_of(executed[0]) if executed else keyset.only_keys


async def _read_one(session: AsyncSession, keyset: Keyset) -> None:
    try:
        if lock_of(keyset.select) is not None:  # what may not be locked says so of no row
            await session.execute(keyset.rows(None, None)[0].limit(0))
        await session.run_sync(lambda _: read_rows(session, keyset, (keyset.one_row(), {})))
    except InvalidRequestError as error:
        why = f"a job's select cannot be read: {first_line(error)}"
        raise ConfigurationError(why) from error
    except DBAPIError as error:
        if is_transient(error) or is_cancelled(error):
            raise
        raise ConfigurationError(f"a job's select does not run: {first_line(error)}") from error
    except SQLAlchemyError as error:  # a value that is missing, a hint that nobody knows
        raise ConfigurationError(f"a job's select does not run: {first_line(error)}") from error
    except AsyncLoaderError:
        raise
    except Exception as error:  # SQLAlchemy 2.0 passes some of asyncpg's on as they are
        if sqlstate_of(error) is not None or is_transient(error):
            raise
        # A value that its type cannot read: the row's fault, found again as that of any other.
