"""
Primary keys asked for before the insert: what the server would have filled in.

One statement draws the keys of any number of tables. The catalogue is asked once per engine and
table what fills the column; every draw also returns the table's object id, so that a table that
was made anew, or another one of that name on another search path, is noticed at the first draw
and not believed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy.engine import Connection, Dialect

from async_loader.inserts.execute import execute
from async_loader.inserts.plans import ColumnPlan, KeySource, NotUnderstoodError, TablePlan
from async_loader.inserts.reserve import ordered, reserve_of
from async_loader.inserts.statements import Translation, table_name


@dataclass(frozen=True, slots=True)
class Wanted:
    """So many keys of one table."""

    plan: TablePlan
    count: int
    connection: Connection
    translation: Translation | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the catalogue says of the column that the server fills."""

    table: str  # as SQL
    oid: int
    source: str  # a SQL expression that makes one key
    sequence: int | None  # the object id of a sequence, whose values are sorted


_FACTS: WeakKeyDictionary[Dialect, dict[tuple[str, str], Facts | str]] = WeakKeyDictionary()

# Server defaults that give each row a value of its own whatever the other rows hold.
_INDEPENDENT = re.compile(r"(gen_random_uuid|uuidv4|uuidv7|(\w+\.)?uuid_generate_v(1|1mc|4))\(\)")
_NEXTVAL = re.compile(r"nextval\('[^']+'::regclass\)")

_CATALOGUE = """
SELECT c.oid, c.relkind::text, c.relhasrules,
       EXISTS (SELECT FROM pg_trigger t
               WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
                 AND t.tgtype & 4 <> 0 AND t.tgtype & 66 <> 0),
       a.attidentity::text, pg_get_expr(d.adbin, d.adrelid),
       has_column_privilege(c.oid, a.attnum, 'INSERT'),
       quote_ident(n.nspname) || '.' || quote_ident(s.relname), s.oid,
       has_sequence_privilege(s.oid, 'USAGE'), q.seqcycle
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = {column}
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
WHERE c.oid = to_regclass({table})
"""


def draw(wanted: Sequence[Wanted], reserve: int = 0) -> list[list[Any]]:
    """Return as many raw keys as wanted, table by table, in the order the rows shall have.

    All are of one connection. With `reserve`, up to that many of a sequence come from a block
    if there is one, and if not, so many are reserved for the next draws. Raises
    NotUnderstoodError when a table's keys can only come from the insert itself.
    """
    connection = wanted[0].connection
    facts = [_facts(connection, want.plan, want.translation) for want in wanted]
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


def _draw(wanted: Sequence[Wanted], facts: Sequence[Facts]) -> list[list[Any]]:
    connection = wanted[0].connection
    blocks = _ask(connection, facts, wanted)
    if blocks is None:
        _FACTS.pop(connection.dialect, None)
        facts = [_facts(connection, want.plan, want.translation) for want in wanted]
        blocks = _ask(connection, facts, wanted)
    if blocks is None:
        raise NotUnderstoodError("its table changes while it is inserted into")
    return [
        keys if fact.sequence is None else ordered(keys)
        for keys, fact in zip(blocks, facts, strict=True)
    ]


def _ask(
    connection: Connection, facts: Sequence[Facts], wanted: Sequence[Wanted]
) -> list[list[Any]] | None:
    """Return the keys, or None when a table is not the one that the facts are of."""
    mark = "${}" if connection.dialect.driver == "asyncpg" else "%s"
    columns = [
        f"CASE WHEN to_regclass({_literal(fact.table)})::oid = {fact.oid} THEN "
        f"ARRAY(SELECT {fact.source} FROM generate_series(1, {mark.format(number)}::int)) END"
        for number, fact in enumerate(facts, start=1)
    ]
    sql = f"SELECT {', '.join(columns)}"
    parameters = tuple(want.count for want in wanted)
    (row,) = execute(connection, _escape(sql, connection), parameters).rows
    # A sequence that is gone makes NULLs.
    if any(keys is None or None in keys for keys in row):
        return None
    return [list(keys) for keys in row]


def _escape(sql: str, connection: Connection) -> str:
    if connection.dialect.driver == "asyncpg":
        return sql
    return sql.replace("%", "%%").replace("%%s::", "%s::")


def _plain(name: str, dialect: Dialect) -> str:
    """Undo the doubling of % that SQLAlchemy's quoting does for some drivers."""
    return name if dialect.driver == "asyncpg" else name.replace("%%", "%")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _facts(connection: Connection, plan: TablePlan, translation: Translation | None) -> Facts:
    if plan.generated is None:
        raise NotUnderstoodError(f"{plan.table.name} has no key that the server makes")
    dialect = connection.dialect
    table = _plain(table_name(plan.table, dialect, translation), dialect)
    cache = _FACTS.setdefault(dialect, {})
    key = (table, plan.generated.column.name)
    found = cache.get(key)
    if found is None:
        try:
            found = _look_up(connection, table, plan.generated, translation)
        except NotUnderstoodError as error:
            found = str(error)
        cache[key] = found
    if isinstance(found, str):
        raise NotUnderstoodError(found)
    return found


def _look_up(
    connection: Connection, table: str, column: ColumnPlan, translation: Translation | None
) -> Facts:
    sql = _CATALOGUE.format(column=_literal(column.column.name), table=_literal(table))
    row = connection.exec_driver_sql(_escape(sql, connection)).one_or_none()
    if row is None:
        raise NotUnderstoodError(f"{table} is not there")
    oid, kind, rules, triggers, identity, default, insertable, *of_sequence = row
    sequence, sequence_oid, usable, cycle = of_sequence
    refused = {
        "is not a plain table": kind not in {"r", "p"} or rules,
        "has a trigger before insert": triggers,
        "has a key that is GENERATED ALWAYS": identity == "a",
        "has a key that may not be inserted": not insertable,
    }
    for reason, is_so in refused.items():
        if is_so:
            raise NotUnderstoodError(f"{table} {reason}")
    explicit: Any = column.column.default
    if explicit is not None and explicit.is_sequence and not explicit.optional:
        if translation:
            raise NotUnderstoodError("a Sequence of its own under schema_translate_map")
        preparer: Any = connection.dialect.identifier_preparer
        name = _literal(_plain(preparer.format_sequence(explicit), connection.dialect))
        found = _escape(f"SELECT to_regclass({name})::oid", connection)
        own = connection.exec_driver_sql(found).scalar_one()
        return Facts(table, oid, f"nextval({name})", own or 0)
    if default is not None and _INDEPENDENT.fullmatch(default):
        return Facts(table, oid, default, None)
    if sequence is None or not (identity == "d" or _NEXTVAL.fullmatch(default or "")):
        raise NotUnderstoodError(f"{table} has a key made by {default}")
    if not usable or cycle:
        raise NotUnderstoodError(f"{table} has a sequence that may not be used, or cycles")
    # By name and through to_regclass: a sequence dropped since then is no error but NULL.
    return Facts(table, oid, f"nextval(to_regclass({_literal(sequence)}))", sequence_oid)


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
