"""
What the database says of tables: which sets of columns are unique in them, and how values of a
column are compared. It is asked, not the model: a model may be of another day than its tables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, inspect, text
from sqlalchemy.engine import RowMapping

from ..errors import ConfigurationError

INTEGERS = ("int2", "int4", "int8")
_STRINGS = ("text", "varchar")
# Texts of these are the same whatever a session's settings are, and so need none of ours.
# Whose text, and what it is read as, depends on more than a session's settings that we can fix.
NO_KEYS = ("money", "regclass", "regtype", "regproc", "regprocedure", "regoper", "regoperator",
           "regrole", "regnamespace", "regconfig", "regdictionary", "regcollation")  # fmt: skip
_PLAIN = (
    *INTEGERS,
    *_STRINGS,
    "bpchar",
    "name",
    "char",
    "uuid",
    "numeric",
    "bool",
    "oid",
    "citext",
)


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """
    A column as its database has it.

    `type` is its type's name, that of the base type for a domain; `sql` that name as SQL has it.
    `operators` are those that it is ordered by, where these are no built-in ones: less, less or
    equal, equal, greater or equal, greater. `collation` is one that orders and compares; `exact`:
    values that differ are unequal.
    """

    name: str
    type: str
    sql: str = ""
    required: bool = True
    collation: str = ""
    exact: bool = True
    operators: tuple[str, ...] = ()
    plain: bool = True
    enumerated: bool = False
    generated: bool = False  # by the database, of other columns

    def equals_like(self, other: ColumnFacts) -> bool:
        """Return whether `=` between the two is the equality that both are unique under."""
        if self.type in INTEGERS and other.type in INTEGERS:
            return True
        if self.type in _STRINGS and other.type in _STRINGS and self.exact and other.exact:
            return True
        return (self.sql, self.collation) == (other.sql, other.collation)


@dataclass(frozen=True, slots=True)
class TableFacts:
    """
    A table as its database has it.

    `name` is resolved: schema and table. `unique` are the sets of columns that are unique in all
    that a select of it yields; `short` says of each other unique index why it does not do.
    """

    name: str
    columns: Mapping[str, ColumnFacts] = field(default_factory=dict)
    unique: Sequence[frozenset[str]] = ()
    short: Sequence[str] = ()
    moved_by: str = ""  # what may change a key besides the statements of `apply`


def facts_of(
    connection: Connection, tables: Collection[Table], translate: Mapping[Any, Any]
) -> dict[Table, TableFacts]:
    """
    Return the facts of tables; `translate`: a statement's own map of schemas.

    Raises `ConfigurationError` for a table that is not there.
    """
    look = _on_sqlite if connection.dialect.name == "sqlite" else _on_postgresql
    return {
        table: look(connection, table, _schema(connection, table, translate)) for table in tables
    }


def _schema(connection: Connection, table: Table, translate: Mapping[Any, Any]) -> str | None:
    if table.schema in translate:
        found = translate[table.schema]
        return None if found is None else str(found)
    return connection.schema_for_object(table)


def _missing(table: Table) -> ConfigurationError:
    return ConfigurationError(f"a job's select reads {table.fullname}, which this database has not")


# --- PostgreSQL ----------------------------------------------------------------------------

_TABLE = text(
    "SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,"
    " c.relpersistence::text AS persistence,"
    " c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) AS extended,"
    " EXISTS (SELECT FROM pg_trigger t WHERE (t.tgrelid = c.oid OR t.tgrelid IN"
    "   (SELECT relid FROM pg_partition_tree(c.oid))) AND NOT t.tgisinternal"
    "  AND t.tgenabled <> 'D' AND t.tgtype & 16 <> 0) AS trigger,"
    " EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1') AS rule,"
    " EXISTS (SELECT FROM pg_constraint f WHERE f.conrelid = c.oid AND f.contype = 'f'"
    "  AND f.confupdtype IN ('c', 'd', 'n')) AS cascade"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.oid = CAST(to_regclass(:name) AS oid)"
)
_COLUMNS = text(
    "WITH RECURSIVE base AS ("
    "  SELECT a.attnum, a.atttypid AS type FROM pg_attribute a"
    "  WHERE a.attrelid = CAST(:table AS oid) AND a.attnum > 0 AND NOT a.attisdropped"
    "  UNION ALL SELECT b.attnum, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.type"
    "  WHERE t.typtype = 'd')"
    " SELECT a.attnum::int AS number, a.attname AS name, t.typname AS type,"
    "  quote_ident(n.nspname) || '.' || quote_ident(t.typname) AS sql, t.typtype::text AS kind,"
    "  a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint u WHERE u.conrelid = a.attrelid"
    "   AND u.contype = 'n' AND a.attnum = ANY(u.conkey) AND NOT u.convalidated) AS required,"
    "  a.attgenerated <> '' AS generated,"
    "  coalesce(quote_ident(cn.nspname) || '.' || quote_ident(l.collname), '') AS collation,"
    "  coalesce(l.collisdeterministic, true) AS exact, a.attcollation::bigint AS collation_oid,"
    "  (SELECT array_agg(quote_ident(m.nspname) || '.' || r.oprname ORDER BY p.amopstrategy)"
    "   FROM pg_opclass o JOIN pg_amop p ON p.amopfamily = o.opcfamily"
    "    AND p.amoplefttype = o.opcintype AND p.amoprighttype = o.opcintype"
    "   JOIN pg_operator r ON r.oid = p.amopopr JOIN pg_namespace m ON m.oid = r.oprnamespace"
    "   WHERE o.opcmethod = 403 AND o.opcdefault AND o.opcintype = t.oid"
    "    AND m.nspname <> 'pg_catalog') AS operators"
    " FROM base b JOIN pg_attribute a"
    "   ON a.attrelid = CAST(:table AS oid) AND a.attnum = b.attnum"
    " JOIN pg_type t ON t.oid = b.type AND t.typtype <> 'd'"
    " JOIN pg_namespace n ON n.oid = t.typnamespace"
    " LEFT JOIN pg_collation l ON l.oid = a.attcollation"
    " LEFT JOIN pg_namespace cn ON cn.oid = l.collnamespace"
)
_INDEXES = text(
    "SELECT c.relname AS name, i.indkey::text AS numbers, i.indcollation::text AS collations,"
    " i.indnkeyatts::int AS width, m.amname AS method, i.indimmediate AS immediate,"
    " i.indisvalid AND i.indisready AND i.indislive AS valid, i.indpred IS NOT NULL AS partial,"
    " i.indexprs IS NOT NULL AS expressions,"
    " (SELECT bool_and(o.opcdefault) FROM unnest(i.indclass::oid[]) k"
    "  JOIN pg_opclass o ON o.oid = k) AS usual"
    " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam"
    " WHERE i.indrelid = CAST(:table AS oid) AND i.indisunique ORDER BY i.indisprimary DESC, 1"
)
_NO_KEYS = {
    "v": "a view, for which the database knows no unique key: select from its table",
    "f": "a foreign table, for which the database knows no unique key",
}


def _on_postgresql(connection: Connection, table: Table, schema: str | None) -> TableFacts:
    preparer = connection.dialect.identifier_preparer
    name = preparer.quote(table.name)
    if schema is not None:
        name = f"{preparer.quote_schema(schema)}.{name}"
    found = connection.execute(_TABLE, {"name": name}).mappings().first()
    if found is None:
        raise _missing(table)
    rows = connection.execute(_COLUMNS, {"table": found["oid"]}).mappings().all()
    columns = {row["name"]: _column(row) for row in rows}
    resolved = f"{found['schema']}.{found['name']}"
    moved_by = next((f"a {way}" for way in ("trigger", "rule", "cascade") if found[way]), "")
    unfit = _unfit(found)
    if unfit:
        return TableFacts(resolved, columns, short=[unfit], moved_by=moved_by)
    names = {row["number"]: row["name"] for row in rows}
    collations = {row["name"]: row["collation_oid"] for row in rows}
    unique, short = [], []
    for index in connection.execute(_INDEXES, {"table": found["oid"]}).mappings():
        why = _why_short(index, names, columns, collations)
        if why:
            short.append(f"the unique index {index['name']} {why}")
        else:
            unique.append(frozenset(names[number] for number in _numbers(index)))
    return TableFacts(resolved, columns, unique, short, moved_by)


def _unfit(found: RowMapping) -> str:
    if found["persistence"] == "t":
        return f"{found['name']} is a temporary table, which no other connection has"
    if found["extended"]:
        return f"{found['name']} has tables that inherit from it, which its indexes are not of"
    kind = _NO_KEYS.get(found["kind"])
    return f"{found['name']} is {kind}" if kind else ""


def _column(row: RowMapping) -> ColumnFacts:
    return ColumnFacts(
        name=row["name"], type=row["type"], sql=row["sql"], required=row["required"],
        collation=row["collation"], exact=row["exact"], operators=tuple(row["operators"] or ()),
        plain=row["type"] in _PLAIN or row["kind"] == "e", enumerated=row["kind"] == "e",
        generated=row["generated"],
    )  # fmt: skip


def _numbers(index: RowMapping) -> list[int]:
    return [int(number) for number in index["numbers"].split()][: index["width"]]


def _why_short(
    index: RowMapping,
    names: Mapping[int, str],
    columns: Mapping[str, ColumnFacts],
    collations: Mapping[str, int],
) -> str:
    """Return why a unique index does not keep its columns unique as paging compares them."""
    ways = {
        "is not valid": not index["valid"],
        "is partial": index["partial"],
        "is one of expressions": index["expressions"],
        "is of a deferrable constraint, which is checked at the commit": not index["immediate"],
        f"is a {index['method']} index": index["method"] != "btree",
        "has another operator class than the one that orders": not index["usual"],
    }
    why = next((why for why, present in ways.items() if present), "")
    if why:
        return why
    for number, collation in zip(_numbers(index), index["collations"].split(), strict=False):
        name = names[number]
        if not columns[name].exact and int(collation) != collations[name]:
            return f"has another collation than its column {name}, which takes more to be equal"
    return ""


# --- SQLite --------------------------------------------------------------------------------


def _on_sqlite(connection: Connection, table: Table, schema: str | None) -> TableFacts:
    inspector = inspect(connection)
    name, within = table.name, schema or "main"
    if not inspector.has_table(table.name, schema=schema):
        raise _missing(table)
    quote = connection.dialect.identifier_preparer.quote_identifier
    if name in inspector.get_view_names(schema=schema):
        return TableFacts(f"{within}.{name}", short=[f"{name} is {_NO_KEYS['v']}"])

    def pragma(what: str, of: str) -> Sequence[RowMapping]:
        return (
            connection.exec_driver_sql(f"PRAGMA {quote(within)}.{what}({quote(of)})")
            .mappings()
            .all()
        )

    rows = pragma("table_info", name)
    keys = [row["name"] for row in rows if row["pk"]]
    integer = [r["name"] for r in rows if r["pk"] and r["type"].upper() == "INTEGER"]
    rowid = frozenset(integer) if len(keys) == 1 else frozenset[str]()  # never null
    unique: dict[frozenset[str], dict[str, str]] = {}
    short = []
    for index in (i for i in pragma("index_list", name) if i["unique"]):
        parts = [part for part in pragma("index_xinfo", index["name"]) if part["key"]]
        if index["partial"] or any(part["name"] is None for part in parts):
            kind = "partial" if index["partial"] else "one of expressions"
            short.append(f"the unique index {index['name']} is {kind}")
            continue
        unique[frozenset(part["name"] for part in parts)] = {p["name"]: p["coll"] for p in parts}
    if rowid and rowid not in unique:
        unique[rowid] = {}
    collations = {name: coll for found in reversed(unique.values()) for name, coll in found.items()}
    columns = {
        row["name"]: ColumnFacts(
            row["name"], row["type"].upper(), required=bool(row["notnull"]) or row["name"] in rowid,
            collation=collations.get(row["name"], "BINARY"),
        )
        for row in rows
    }  # fmt: skip
    triggers = connection.execute(
        text(f"SELECT count(*) FROM {quote(within)}.sqlite_master WHERE type = 'trigger'"
             " AND tbl_name = :name COLLATE NOCASE"), {"name": name}
    ).scalar()  # fmt: skip
    # A table with an INTEGER key, and without: both keep what is unique under each collation.
    fitting = [s for s, c in unique.items() if all(collations[n] == c[n] for n in c)]
    return TableFacts(
        f"{within}.{name}", columns, fitting, short, "a trigger" if triggers else ""
    )  # fmt: skip
