"""
What the catalogue says of a table whose rows are changed: who can see in which order?

Asked once a table and connection; DDL of later on is seen by connections opened after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table

from ..catalogue import literal
from ..names import Names
from ..plans import FastPathUnsupportedError

# Of a table, its partitions and those that inherit from it: {0} is the table's name.
_CATALOGUE = """
WITH RECURSIVE
c AS (SELECT * FROM pg_class WHERE oid = to_regclass({0})),
tree AS (SELECT oid FROM c
         UNION SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid),
uniques AS (SELECT x.* FROM pg_index x JOIN tree ON x.indrelid = tree.oid
            WHERE x.indisunique OR x.indisexclusion),
read AS (SELECT u.indrelid AS relation, k.n AS number FROM uniques u, unnest(u.indkey) k(n)
         UNION SELECT f.conrelid, k.n FROM pg_constraint f JOIN tree ON f.conrelid = tree.oid,
               unnest(f.conkey) k(n) WHERE f.contype = 'f'
         UNION SELECT d.refobjid, d.refobjsubid FROM uniques u
         JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = u.indexrelid
          AND d.refclassid = 'pg_class'::regclass AND d.refobjid = u.indrelid),
made AS (SELECT read.relation, d.refobjsubid AS number FROM read
         JOIN pg_attribute a ON a.attrelid = read.relation AND a.attnum = read.number
          AND a.attgenerated <> ''
         JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
         JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
          AND d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid),
domains AS (SELECT y.* FROM pg_type y JOIN pg_attribute a ON a.atttypid = y.oid
            JOIN tree ON a.attrelid = tree.oid WHERE y.typtype = 'd'
            UNION SELECT y.* FROM domains d JOIN pg_type y ON y.oid = d.typbasetype
            WHERE y.typtype = 'd'),
parts AS (SELECT 'pg_attrdef'::regclass AS class, d.oid AS oid
          FROM pg_attrdef d JOIN tree ON d.adrelid = tree.oid
          JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
           AND a.attgenerated <> ''
          UNION ALL SELECT 'pg_class'::regclass, x.indexrelid FROM pg_index x
          JOIN tree ON x.indrelid = tree.oid
          UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k
          WHERE k.contype = 'c' AND k.conrelid IN (SELECT oid FROM tree)
             OR k.contypid IN (SELECT oid FROM domains)),
functions AS (SELECT FROM parts
              JOIN pg_depend p ON p.classid = parts.class AND p.objid = parts.oid
               AND p.refclassid = 'pg_proc'::regclass
              JOIN pg_proc f ON f.oid = p.refobjid
              JOIN pg_language l ON l.oid = f.prolang
              WHERE l.lanname NOT IN ('c', 'internal')
                 OR f.provolatile = 'v')
SELECT c.relkind::text,
       EXISTS (SELECT FROM pg_class p JOIN tree ON tree.oid = p.oid
               WHERE p.relkind NOT IN ('r', 'p')),
       EXISTS (SELECT FROM pg_rewrite r JOIN tree ON r.ev_class = tree.oid),
       EXISTS (SELECT FROM pg_class p JOIN tree ON tree.oid = p.oid WHERE p.relrowsecurity),
       EXISTS (SELECT FROM pg_trigger g JOIN tree ON g.tgrelid = tree.oid
               WHERE NOT g.tgisinternal AND g.tgenabled <> 'D'
                 AND (c.relkind = 'p' OR g.tgtype & 16 <> 0)),
       EXISTS (SELECT FROM functions),
       ARRAY(SELECT DISTINCT CASE WHEN r.number = 0 THEN '*' ELSE a.attname::text END
             FROM (SELECT * FROM read UNION SELECT * FROM made) r
             LEFT JOIN pg_attribute a ON a.attrelid = r.relation AND a.attnum = r.number
             WHERE r.number >= 0)
FROM c
"""

_KNOWN = "async_loader.inserts.changes"


@dataclass(frozen=True, slots=True)
class ChangeFacts:
    """What the catalogue says of one table."""

    table: str
    has_rules: bool
    is_plain: bool  # a table of PostgreSQL's own, or a partitioned one
    shows: str | None  # what shows in which order rows are updated, whatever is set
    # Columns that a unique or exclusion index reads, or by which rows of other tables are locked.
    read: frozenset[str]

    def shows_order_of(self, columns: frozenset[str]) -> str | None:
        """Return what shows the order of rows of which these columns are set."""
        if self.shows:
            return self.shows
        seen = sorted(columns if "*" in self.read else columns & self.read)
        return f"{self.table}.{seen[0]} is read by an index or a foreign key" if seen else None


def facts_of(connection: Any, table: Table) -> ChangeFacts | None:
    """Return what is known of a table, or None where there is no such table."""
    known: dict[str, ChangeFacts | None] = connection.info.setdefault(_KNOWN, {})
    names = Names.of(connection)
    name = names.plain(table)
    if name not in known:
        sql = names.escape(_CATALOGUE.format(literal(name)))
        row = connection.exec_driver_sql(sql).one_or_none()
        known[name] = None if row is None else _facts(name, row)
    return known[name]


def may_be_numbered(connection: Any, table: Table) -> None:
    """Refuse a table whose statements asyncpg cannot be asked to return rows of."""
    if connection.dialect.driver != "asyncpg":
        return
    facts = facts_of(connection, table)
    if facts is None or facts.has_rules or not facts.is_plain:
        raise FastPathUnsupportedError(f"{table.name} has rules, or is not a plain table")


def _facts(name: str, row: Any) -> ChangeFacts:
    kind, foreign, rules, policies, triggers, functions, read = row
    is_plain = kind in {"r", "p"} and not foreign
    reasons = {
        "is not a plain table": not is_plain,
        "has rules": rules,
        "has row-level security": policies,
        "has a trigger that updates fire": triggers,
        "has a check, an index or a column that calls a function of its own": functions,
    }
    return ChangeFacts(
        table=name,
        has_rules=rules,
        is_plain=is_plain,
        shows=next((f"{name} {reason}" for reason, is_so in reasons.items() if is_so), None),
        read=frozenset(read),
    )
