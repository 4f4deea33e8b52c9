"""
What the server's catalogue says of a table: can anybody tell in which order its rows came?

Our statements insert many rows at once, like beside like. A trigger, a rule, a policy or a default
that reads the table would see it, so such tables are left to SQLAlchemy. Asked once a table and
connection; DDL of later on is seen by the connections that are opened after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from .names import Names
from .plans import TablePlan


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key of a table to itself; names of columns."""

    columns: tuple[str, ...]
    referred: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What makes the key that objects do not bring."""

    identity: str  # "a" for ALWAYS, "d" for BY DEFAULT, or nothing
    default: str | None  # as SQL
    may_be_inserted: bool
    sequence: str | None  # as SQL
    sequence_oid: int | None
    sequence_usable: bool
    increment: int
    cycles: bool

    @property
    def counts(self) -> bool:
        """Tell whether the column is filled by its sequence and by nothing else."""
        by_sequence = self.identity or _NEXTVAL.fullmatch(self.default or "")
        return self.sequence is not None and bool(by_sequence)

    @property
    def ascends(self) -> bool:
        """Tell whether sorted keys are in the order of the rows that got them."""
        return self.counts and self.increment > 0 and not self.cycles


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What the catalogue says of one table."""

    table: str  # as SQL
    oid: int
    shows: str | None  # what shows how rows came; then SQLAlchemy sends them
    readable: bool  # by this role, in all of its columns
    in_order: bool  # a default counts: rows must go in the order they were added
    key_is_set: bool  # a trigger may set the key: what comes back is in no order
    key: KeyFacts
    own_keys: tuple[ForeignKey, ...]
    refuses: bool  # a constraint or a type may refuse rows, beside NOT NULL
    not_null: frozenset[str]  # names of columns
    never_given: frozenset[str]  # those that only the server fills

    @property
    def keys_come_sorted(self) -> bool:
        """Tell whether returned keys, sorted, are those of the rows as they were sent."""
        return self.key.ascends and not self.key_is_set


_NEXTVAL = re.compile(r"nextval\('[^']+'::regclass\)")

# Values of built-in functions that tell which row came first.
_COUNTING = re.compile(
    r"\b(nextval|currval|lastval|setval|clock_timestamp|statement_timestamp|timeofday|uuidv7"
    r"|uuid_generate_v1\w*)\("
)

_CATALOGUE = """
WITH RECURSIVE
c AS (SELECT * FROM pg_class WHERE oid = to_regclass({table})),
tree AS (SELECT oid FROM c UNION
         SELECT p.relid FROM c, pg_partition_tree(c.oid) p WHERE c.relkind = 'p'),
columns AS (SELECT a.* FROM pg_attribute a JOIN c ON a.attrelid = c.oid
            WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
domains AS (SELECT y.* FROM pg_type y JOIN columns a ON a.atttypid = y.oid WHERE y.typtype = 'd'
            UNION SELECT y.* FROM domains d JOIN pg_type y ON y.oid = d.typbasetype
            WHERE y.typtype = 'd'),
triggers AS (SELECT g.* FROM pg_trigger g JOIN tree ON g.tgrelid = tree.oid
             WHERE NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgtype & 4 <> 0),
parts AS (SELECT 'pg_attrdef'::regclass AS class, d.oid AS oid
          FROM pg_attrdef d JOIN tree ON d.adrelid = tree.oid
          UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k
          WHERE k.contype = 'c' AND k.conrelid IN (SELECT oid FROM tree)
          UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k
          WHERE k.contypid IN (SELECT oid FROM domains)
          UNION ALL SELECT 'pg_type'::regclass, oid FROM domains),
functions AS (SELECT f.*, l.lanname FROM parts
              JOIN pg_depend p ON p.classid = parts.class AND p.objid = parts.oid
               AND p.refclassid = 'pg_proc'::regclass
              JOIN pg_proc f ON f.oid = p.refobjid AND f.provolatile <> 'i'
              JOIN pg_language l ON l.oid = f.prolang)
SELECT c.oid, c.relkind::text, c.relhasrules, c.relrowsecurity,
       EXISTS (SELECT FROM triggers),
       EXISTS (SELECT FROM pg_class p JOIN tree ON tree.oid = p.oid WHERE p.relkind = 'f'),
       EXISTS (SELECT FROM functions WHERE lanname NOT IN ('c', 'internal')),
       EXISTS (SELECT FROM functions WHERE lanname IN ('c', 'internal') AND provolatile = 'v'),
       NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
                   AND NOT a.attisdropped AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT')),
       EXISTS (SELECT FROM pg_index x JOIN tree ON x.indrelid = tree.oid
               WHERE (x.indisunique OR x.indisexclusion) AND NOT x.indisprimary)
        OR EXISTS (SELECT FROM pg_constraint k JOIN tree ON k.conrelid = tree.oid
                   WHERE k.contype IN ('c', 'x')
                      OR k.contype = 'f' AND k.confrelid NOT IN (SELECT oid FROM tree))
        OR EXISTS (SELECT FROM columns a JOIN pg_type y ON y.oid = a.atttypid
                   WHERE a.atttypmod <> -1 OR y.typtype IN ('d', 'e')),
       ARRAY(SELECT attname::text FROM columns WHERE attnotnull),
       ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid
             AND (attgenerated <> '' OR attidentity = 'a')),
       ARRAY(SELECT l.lanname || ':' || f.prosrc FROM triggers g
             JOIN pg_proc f ON f.oid = g.tgfoid JOIN pg_language l ON l.oid = f.prolang
             WHERE g.tgtype & 3 = 3),
       ARRAY(SELECT CASE WHEN a.attidentity <> '' THEN 'nextval()'
                    ELSE COALESCE(pg_get_expr(d.adbin, d.adrelid), '') END
             FROM columns a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid
              AND d.adnum = a.attnum
             WHERE a.attname IS DISTINCT FROM {column}
             UNION ALL SELECT typdefault FROM domains WHERE typdefault IS NOT NULL),
       ARRAY(SELECT array_to_string(ARRAY(
                    SELECT a.attname FROM unnest(k.conkey) WITH ORDINALITY u(n, place)
                    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n
                    ORDER BY place), chr(1)) || chr(2) || array_to_string(ARRAY(
                    SELECT a.attname FROM unnest(k.confkey) WITH ORDINALITY u(n, place)
                    JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n
                    ORDER BY place), chr(1))
             FROM pg_constraint k WHERE k.contype = 'f' AND NOT k.condeferred
              AND k.conrelid IN (SELECT oid FROM tree) AND k.confrelid IN (SELECT oid FROM tree)),
       COALESCE(a.attidentity::text, ''), pg_get_expr(d.adbin, d.adrelid),
       COALESCE(has_column_privilege(c.oid, a.attnum, 'INSERT'), false),
       quote_ident(n.nspname) || '.' || quote_ident(s.relname), s.oid,
       COALESCE(has_sequence_privilege(s.oid, 'USAGE'), false),
       COALESCE(q.seqincrement, 0), COALESCE(q.seqcycle, false)
FROM c
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = {column}
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
LEFT JOIN pg_depend p
       ON p.refclassid = 'pg_class'::regclass AND p.classid = 'pg_attrdef'::regclass
          AND p.objid = d.oid AND p.refobjid <> c.oid AND a.attidentity = ''
LEFT JOIN pg_depend i
       ON i.classid = 'pg_class'::regclass AND i.refclassid = 'pg_class'::regclass
          AND i.refobjid = c.oid AND i.refobjsubid = a.attnum AND i.deptype = 'i'
          AND a.attidentity <> ''
LEFT JOIN pg_class s ON s.oid = COALESCE(p.refobjid, i.objid) AND s.relkind = 'S'
LEFT JOIN pg_namespace n ON n.oid = s.relnamespace
LEFT JOIN pg_sequence q ON q.seqrelid = s.oid
LIMIT 1
"""

_KNOWN = "async_loader.inserts.facts"
_KNOWN_SEQUENCES = "async_loader.inserts.sequences"


def facts_of(connection: Connection, plan: TablePlan, names: Names) -> TableFacts | None:
    """Return what is known of a table, or None where there is no such table."""
    known: dict[str, TableFacts | None] = connection.info.setdefault(_KNOWN, {})
    table = names.plain(plan.table)
    if table not in known:
        known[table] = _look_up(connection, table, plan, names)
    return known[table]


def sequence_ascends(connection: Connection, name: str, names: Names) -> bool:
    """Tell whether a sequence, given as SQL, only counts up; asked once a connection."""
    known: dict[str, bool] = connection.info.setdefault(_KNOWN_SEQUENCES, {})
    if name not in known:
        sql = "SELECT seqincrement > 0 AND NOT seqcycle FROM pg_sequence WHERE seqrelid = "
        sql += f"to_regclass({literal(name)})"
        known[name] = bool(connection.exec_driver_sql(names.escape(sql)).scalar())
    return known[name]


def forget(connection: Connection) -> None:
    """Ask again: a table is not the one that was asked about."""
    connection.info.pop(_KNOWN, None)
    connection.info.pop(_KNOWN_SEQUENCES, None)


def literal(text: str) -> str:
    """Return a SQL string."""
    return "'" + text.replace("'", "''") + "'"


def _look_up(
    connection: Connection, table: str, plan: TablePlan, names: Names
) -> TableFacts | None:
    key = None if plan.generated is None else plan.generated.column.name
    column = "NULL" if key is None else literal(key)
    sql = _CATALOGUE.format(column=column, table=literal(table))
    row = connection.exec_driver_sql(names.escape(sql)).one_or_none()
    if row is None:
        return None
    oid, *shown, refuses, not_null, never_given, before, defaults, own_keys = row[:15]
    kind, rules, policies, triggers, foreign, functions, counting, readable = shown
    reasons = {
        "is not a plain table": kind not in {"r", "p"} or foreign,
        "has rules": rules,
        "has row-level security": policies,
        "has a trigger on INSERT": triggers,
        "has a default or a check that calls a function of its own": functions,
        "may not be read as a whole by this role": not readable,
    }
    return TableFacts(
        table=table,
        oid=oid,
        shows=next((f"{table} {reason}" for reason, is_so in reasons.items() if is_so), None),
        readable=readable,
        in_order=counting or any(_COUNTING.search(default) for default in defaults),
        key_is_set=key is not None and any(_may_set(source, key) for source in before),
        key=KeyFacts(*row[15:]),
        own_keys=tuple(map(_foreign_key, own_keys)),
        refuses=refuses,
        not_null=frozenset(not_null),
        never_given=frozenset(never_given),
    )


def _foreign_key(text: str) -> ForeignKey:
    columns, referred = (tuple(names.split("\x01")) for names in text.split("\x02"))
    return ForeignKey(columns, referred)


# Trigger functions that come with PostgreSQL and set one column that they are told.
_HARMLESS = {
    "c:moddatetime",
    "internal:tsvector_update_trigger_byid",
    "internal:tsvector_update_trigger_bycolumn",
    "internal:suppress_redundant_updates_trigger",
}
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_RETURN = re.compile(r"\breturn\s+(new|old|null)\b")
_FIELD = re.compile(r"\bnew\s*\.\s*(\"[^\"]+\"|\w+)")
# The whole row as an argument, as in to_jsonb(new), unless it may be one that is written to.
_ARGUMENT = re.compile(r"(?<=[(,])\s*new\s*(\.\s*\*\s*)?(?=[),])")
_WRITTEN_TO = re.compile(r"(?<!\binsert)\s+into\b|\bcall\b|\bget\b")


def _may_set(source: str, key: str) -> bool:
    """Tell whether a BEFORE trigger, 'language:source', could set the key of its row.

    Read closely enough only for PL/pgSQL that names the fields of NEW one by one, or hands it to
    functions, and returns it as it is; whatever else it does with NEW may set any column.
    """
    if source in _HARMLESS:
        return False
    language, _, body = source.partition(":")
    if language != "plpgsql":
        return True
    body = _COMMENT.sub(" ", body).lower()
    if {name.strip('"') for name in _FIELD.findall(body)} & {key.lower()}:
        return True
    if not _WRITTEN_TO.search(body):
        body = _ARGUMENT.sub(" ", body)
    rest = _FIELD.sub(" ", _RETURN.sub(" ", body))
    return bool(re.search(r"\bnew\b|\breturn\b|\bexecute\b", rest))


def later_in(rows: Sequence[tuple[Any, ...]], referred: Sequence[tuple[Any, ...]]) -> bool:
    """Tell whether a row refers to one that comes after it.

    `rows` are the values of the foreign key, `referred` those of the key it refers to, row by row.
    """
    places = {key: place for place, key in enumerate(referred) if None not in key}
    return any(None not in row and places.get(row, place) > place for place, row in enumerate(rows))
