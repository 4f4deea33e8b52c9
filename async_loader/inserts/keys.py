"""
Primary keys asked for before the insert: what the server would have filled in.

One statement draws the keys of any number of tables. The catalogue has been asked what fills the
column; every draw also returns the table's object id, so that a table that
was made anew, or another one of that name on another search path, is noticed at the first draw
and not believed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from .catalogue import TableFacts, facts_of, forget, literal, sequence_ascends
from .execute import execute
from .names import Names
from .plans import FastPathUnsupportedError, KeySource, TablePlan
from .reserve import ordered, reserve_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """So many keys of one table."""

    plan: TablePlan
    count: int
    connection: Connection
    names: Names


@dataclass(frozen=True, slots=True)
class Source:
    """What makes the keys of a table."""

    table: str  # as SQL
    oid: int
    sql: str  # makes one key
    sequence: int | None  # the object id of a sequence, whose values are sorted


# Server defaults that give each row a value of its own whatever the other rows hold.
_INDEPENDENT = re.compile(r"(gen_random_uuid|uuidv4|uuidv7|(\w+\.)?uuid_generate_v(1|1mc|4))\(\)")


def draw(wanted: Sequence[Wanted], reserve: int = 0) -> list[list[Any]]:
    """Return as many raw keys as wanted, table by table, in the order the rows shall have.

    All are of one connection. With `reserve`, up to that many of a sequence come from a block
    if there is one, and if not, so many are reserved for the next draws. Raises
    FastPathUnsupportedError when a table's keys can only come from the insert itself.
    """
    connection = wanted[0].connection
    facts = [_source(connection, want.plan, want.names) for want in wanted]
    if not reserve:
        return _draw(wanted, facts)
    kept = reserve_of(connection)
    sequences = [fact.sequence for fact in facts if fact.sequence is not None]
    small = len(sequences) == len(facts) and all(want.count <= reserve for want in wanted)
    # On this connection the names mean these tables: a draw has looked.
    seen: dict[str, int] = connection.info.setdefault("async_loader.inserts.tables", {})
    if small and all(seen.get(fact.table) == fact.oid for fact in facts):
        counts = [want.count for want in wanted]
        taken = kept.take(list(zip(sequences, counts, strict=True)))
        if taken is not None:
            return taken
    drawn = _draw(wanted, facts)
    seen.update((fact.table, fact.oid) for fact in facts)
    if small:
        kept.fill(connection, list(dict.fromkeys(sequences)), reserve)
    return drawn


def _draw(wanted: Sequence[Wanted], facts: Sequence[Source]) -> list[list[Any]]:
    connection = wanted[0].connection
    blocks = _ask(connection, facts, wanted)
    if blocks is None:
        forget(connection)
        facts = [_source(connection, want.plan, want.names) for want in wanted]
        blocks = _ask(connection, facts, wanted)
    if blocks is None:
        raise FastPathUnsupportedError("its table changes while it is inserted into")
    return [
        keys if fact.sequence is None else ordered(keys)
        for keys, fact in zip(blocks, facts, strict=True)
    ]


def _ask(
    connection: Connection, facts: Sequence[Source], wanted: Sequence[Wanted]
) -> list[list[Any]] | None:
    """Return the keys, or None when a table is not the one that the facts are of."""
    mark = "${}" if connection.dialect.driver == "asyncpg" else "%s"
    columns = [
        f"CASE WHEN to_regclass({literal(fact.table)})::oid = {fact.oid} THEN "
        f"ARRAY(SELECT {fact.sql} FROM generate_series(1, {mark.format(number)}::int)) END"
        for number, fact in enumerate(facts, start=1)
    ]
    sql = wanted[0].names.escape(f"SELECT {', '.join(columns)}").replace("%%s::", "%s::")
    parameters = tuple(want.count for want in wanted)
    (row,) = execute(connection, sql, parameters).rows
    # A sequence that is gone makes NULLs.
    if any(keys is None or None in keys for keys in row):
        return None
    return [list(keys) for keys in row]


def _source(connection: Connection, plan: TablePlan, names: Names) -> Source:
    """Return what fills the key that the objects lack, or refuse what only the insert can do."""
    generated = plan.generated
    if generated is None:
        raise FastPathUnsupportedError(f"{plan.table.name} has no key that the server makes")
    facts = facts_of(connection, plan, names)
    if facts is None:
        raise FastPathUnsupportedError(f"{plan.table.name} is not there")
    table, key = facts.table, facts.key
    if not facts.readable:  # else nothing would be read back, and so nothing refused
        raise FastPathUnsupportedError(f"{table} may not be read as a whole by this role")
    if key.identity == "a" or not key.may_be_inserted or facts.key_is_set:
        raise FastPathUnsupportedError(f"{table} has a key that may not be inserted")
    explicit = own_sequence(plan, names)
    if explicit is not None:
        return _of_sequence(connection, facts, literal(explicit), names)
    if key.default is not None and _INDEPENDENT.fullmatch(key.default):
        return Source(table, facts.oid, key.default, None)
    if not key.counts:
        raise FastPathUnsupportedError(f"{table} has a key made by {key.default}")
    if not key.sequence_usable or key.cycles:
        raise FastPathUnsupportedError(f"{table} has a sequence that may not be used, or cycles")
    # By name and through to_regclass: a sequence dropped since then is no error but NULL.
    source = f"nextval(to_regclass({literal(str(key.sequence))}))"
    return Source(table, facts.oid, source, key.sequence_oid)


def own_sequence(plan: TablePlan, names: Names) -> str | None:
    """Return, as SQL, the sequence that SQLAlchemy itself names in the insert."""
    explicit: Any = None if plan.generated is None else plan.generated.column.default
    if explicit is None or not explicit.is_sequence or explicit.optional:
        return None
    return names.sequence(explicit)


def come_sorted(
    connection: Connection, plan: TablePlan, names: Names, facts: TableFacts | None
) -> bool:
    """Tell whether SQLAlchemy is right to sort the keys that come back."""
    name = own_sequence(plan, names)
    if facts is None:
        return True  # there is no such table
    if name is None:
        return facts.keys_come_sorted
    return not facts.key_is_set and sequence_ascends(connection, name, names)


def _of_sequence(connection: Connection, facts: TableFacts, name: str, names: Names) -> Source:
    """Return a sequence of the model's own, which need not be the column's."""
    found = (
        "SELECT seqrelid, seqcycle OR NOT has_sequence_privilege(seqrelid, 'USAGE, UPDATE') "
        f"FROM pg_sequence WHERE seqrelid = to_regclass({name})"
    )
    row = connection.exec_driver_sql(names.escape(found)).one_or_none()
    if row is None or row[1]:
        raise FastPathUnsupportedError(f"the sequence {name} may not be used, or cycles")
    return Source(facts.table, facts.oid, f"nextval({name})", row[0])


def must_ask(plan: TablePlan, rows: int) -> bool:
    """Tell whether rows without a key need it before they are inserted, whatever else."""
    if plan.key_source is not KeySource.SERVER:
        return False
    generated = plan.generated
    return generated is not None and (rows > 1 or generated.column.default is not None)


def asks_ahead(mapper: Any) -> bool:
    """Tell without a connection whether objects of a mapper may need their keys asked for."""
    return bool(mapper._memo("async_loader.inserts.asks_ahead", lambda: _asks_ahead(mapper)))


def _asks_ahead(mapper: Any) -> bool:
    table = mapper.local_table
    if mapper.inherits is not None or len(table.primary_key) != 1:
        return False
    (column,) = table.primary_key
    default = column.default
    return column.server_default is not None or bool(default is not None and default.is_sequence)
