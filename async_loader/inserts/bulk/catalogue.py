"""
What the server says of a table, as far as it decides how rows go in.

Asked once a call, by the statement that also begins the transaction on the server. What another
session changes of the table between this and the last row is not seen, as for any statement that
was planned before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Table, text
from sqlalchemy.engine import Connection, Dialect


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """What fills a column, and what its values look like on the wire."""

    name: str
    type_oid: int
    element_oid: int  # of an array or a range, else 0
    type: str  # as format_type() writes it
    enum: str | None  # the name of an enum
    is_always: bool  # GENERATED ALWAYS: INSERT refuses a value that a row gives
    is_filled: bool  # the server fills it where a row lacks it
    refers_to_itself: bool  # a foreign key to the same table, checked with each statement
    is_statement_made: bool  # its default differs from one statement to the next
    is_in_order: bool  # its default tells which row came first
    draw: str | None  # a SQL expression that makes the next of its values, where that is all


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table of the database; `reason` says why a COPY into it is not what an INSERT is."""

    reason: str | None
    columns: Mapping[str, ColumnFacts]


# Functions in C do not read tables; those of other languages may, and see how rows came.
_OWN = "p.provolatile <> 'i' AND p.prolang NOT IN (12, 13)"
_RANDOM = "'gen_random_uuid', 'uuidv4', 'uuid_generate_v4', 'random', 'gen_random_bytes'"

_QUERY = text(
    rf"""
WITH c AS (
    SELECT c.*, ARRAY(SELECT relid FROM pg_partition_tree(c.oid)) || c.oid::regclass AS tree
    FROM pg_class c WHERE c.oid = to_regclass(CAST(:name AS text))
)
SELECT CASE
        WHEN c.relkind NOT IN ('r', 'p') THEN 'it is not a plain table'
        WHEN row_security_active(c.oid) THEN 'row-level security applies to it'
        WHEN EXISTS (SELECT FROM pg_rewrite w
                     WHERE w.ev_class = c.oid AND w.ev_type = '3' AND w.ev_enabled <> 'D')
            THEN 'it has a rule'
        WHEN EXISTS (SELECT FROM pg_trigger g
                     WHERE g.tgrelid = ANY (c.tree) AND NOT g.tgisinternal
                       AND g.tgenabled <> 'D' AND g.tgtype & 4 <> 0)
            THEN 'it has a trigger'
        WHEN EXISTS (SELECT FROM pg_class f WHERE f.oid = ANY (c.tree) AND f.relkind = 'f')
            THEN 'it has a foreign partition'
        WHEN EXISTS (SELECT FROM pg_constraint k,
                            regexp_matches(k.conbin::text, 'funcid (\d+)', 'g') m
                     JOIN pg_proc p ON p.oid = m[1]::oid
                     WHERE k.conrelid = ANY (c.tree) AND k.contype = 'c' AND {_OWN})
            THEN 'a check of it calls a function'
    END,
    a.attname::text, a.atttypid,
    COALESCE(CASE WHEN t.typcategory = 'A' THEN t.typelem END, r.rngsubtype, 0::oid),
    CASE WHEN t.typtype = 'd' THEN 'domain' ELSE format_type(a.atttypid, a.atttypmod) END,
    CASE WHEN t.typtype = 'e' THEN t.typname::text END,
    a.attidentity = 'a' OR a.attgenerated <> '',
    a.atthasdef OR a.attidentity <> '' OR t.typtype = 'd',
    EXISTS (SELECT FROM pg_constraint k
            WHERE k.contype = 'f' AND k.conrelid = ANY (c.tree) AND k.confrelid = ANY (c.tree)
              AND NOT k.condeferred AND a.attnum = ANY (k.conkey)),
    t.typtype = 'd' OR COALESCE(made.by_statement, false),
    a.attidentity <> '' OR COALESCE(made.in_order, false),
    CASE WHEN a.attidentity <> '' THEN
            (SELECT format('nextval(%L::regclass)', s.name)
             FROM pg_get_serial_sequence(CAST(:name AS text), a.attname::text) AS s(name)
             WHERE has_sequence_privilege(s.name, 'USAGE'))
         WHEN pg_get_expr(d.adbin, d.adrelid) ~ '^(nextval\(''[^'']+''::regclass\)|uuidv7\(\))$'
            THEN pg_get_expr(d.adbin, d.adrelid) END
FROM c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_range r ON r.rngtypid = t.oid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum AND a.attgenerated = ''
LEFT JOIN LATERAL (
    SELECT bool_or(p.proname = 'statement_timestamp' OR {_OWN}) AS by_statement,
           bool_or(p.provolatile = 'v' AND p.proname NOT IN ({_RANDOM})) AS in_order
    FROM regexp_matches(d.adbin::text, 'funcid (\d+)', 'g') m
    JOIN pg_proc p ON p.oid = m[1]::oid
) made ON d.oid IS NOT NULL
ORDER BY a.attnum
"""
)


_SEEN: WeakKeyDictionary[Dialect, WeakKeyDictionary[Table, TableFacts]] = WeakKeyDictionary()


def ask(connection: Connection, table: Table, name: str) -> TableFacts | None:
    """Return what is known of a table by its SQL name, or None when there is none."""
    facts = facts_of(connection, name)
    if facts is not None:
        _SEEN.setdefault(connection.dialect, WeakKeyDictionary())[table] = facts
    return facts


def facts_of(connection: Connection, name: str) -> TableFacts | None:
    """Return what the server says of a table, of whoever it is, or None when there is none."""
    rows = connection.execute(_QUERY, {"name": name}).all()
    if not rows:
        return None
    columns = [ColumnFacts(*row[1:]) for row in rows]
    return TableFacts(rows[0][0], {column.name: column for column in columns})


_KEYS = text(
    """
SELECT c.relkind::text, current_setting('server_version_num')::int / 10000, EXISTS (
    SELECT FROM pg_index i
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
      AND i.indpred IS NULL AND i.indexprs IS NULL
      AND ARRAY(
            SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY AS k(number, place)
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
            WHERE k.place <= i.indnkeyatts
        ) <@ CAST(:columns AS text[]))
    AND (c.relkind = 'p' OR NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid))
FROM pg_class c WHERE c.oid = to_regclass(CAST(:name AS text))
"""
)


class KeyFacts(NamedTuple):
    """What decides how rows are found by a key, and how they are counted."""

    relkind: str
    server: int  # its major version
    is_unique: bool  # an index without conditions says so of these columns, of heirs' rows, too


def ask_key(connection: Connection, name: str, columns: Sequence[str]) -> KeyFacts | None:
    """Return what is known of some columns of a table, or None when there is none."""
    given = {"name": name, "columns": [*columns]}
    row = connection.execute(_KEYS, given).first()
    return KeyFacts(*row) if row is not None else None


def last_seen(dialect: Dialect, table: Table) -> TableFacts | None:
    """Return what was known of a table when rows last went into it through the same engine."""
    tables = _SEEN.get(dialect)
    return tables.get(table) if tables is not None else None


def sql_name(table: Table, translation: Mapping[Any, Any] | None) -> str:
    """Return the quoted name of a table, in the schema that `schema_translate_map` says."""
    schema: Any = table.schema
    if translation and schema in translation:
        schema = translation[schema]
    parts = [table.name] if schema is None else [schema, table.name]
    return ".".join(map(quoted, parts))


def quoted(name: str) -> str:
    """Quote an identifier for SQL that no driver looks for parameters in."""
    return '"' + name.replace('"', '""') + '"'
