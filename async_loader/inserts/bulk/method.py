"""
How rows go in, and why: by COPY where that gives what INSERT gives, else by INSERT.

COPY sends a value as the column's own type, INSERT as the type that the model says, which the
server then assigns; so COPY is for columns that are in the database what the model says. With
asyncpg it is binary, in the connection's own codecs. With psycopg it is text, written by the
dumper of the value's Python class, so each value has to be of the class that the type is for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy.engine import Dialect
from sqlalchemy.exc import CompileError
from sqlalchemy.types import Enum

from .._sqlalchemy import has_bind_expression
from .catalogue import ColumnFacts, TableFacts, last_seen
from .target import Field, Target

_STRINGS = frozenset({"character varying", "text"})

# Types as format_type() writes them, and the classes whose psycopg dumpers write what they read.
_CLASSES: dict[str, frozenset[str]] = {
    "smallint": frozenset({"builtins.int"}),
    "integer": frozenset({"builtins.int"}),
    "bigint": frozenset({"builtins.int"}),
    "boolean": frozenset({"builtins.bool"}),
    "bytea": frozenset({"builtins.bytes"}),
    "date": frozenset({"datetime.date"}),
    "interval": frozenset({"datetime.timedelta"}),
    "numeric": frozenset({"decimal.Decimal", "builtins.int"}),
    "double precision": frozenset({"builtins.float"}),
    "character varying": frozenset({"builtins.str"}),
    "text": frozenset({"builtins.str"}),
    "uuid": frozenset({"uuid.UUID"}),
    "json": frozenset({"psycopg.types.json.Json"}),
    "jsonb": frozenset({"psycopg.types.json.Jsonb"}),
    "timestamp without time zone": frozenset({"datetime.datetime"}),
    "timestamp with time zone": frozenset({"datetime.datetime"}),
}
# What asyncpg has a binary form for besides; it has one for arrays of each, too. Not `real`:
# INSERT sends a double, which the server refuses where asyncpg makes of it 0 or an error.
_BINARY = frozenset(_CLASSES) | {
    "time without time zone",
    "time with time zone",
    *("int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange"),
}

_LENGTH = re.compile(r"\(\d+(,\d+)?\)")
_NAMES = {"varchar": "character varying", "decimal": "numeric", "float": "double precision"}


def reason_of_model(field: Field, dialect: Dialect) -> str | None:
    """Return why a column's values cannot go through COPY, whatever the database says."""
    name, type_ = field.column.name, field.column.type
    if has_bind_expression(type_, dialect):
        return f"column {name} has a type that wraps its values in SQL"
    if dialect.driver != "asyncpg" and not type(type_).__module__.startswith("sqlalchemy."):
        # Bound values may still turn out not to be for COPY, and one's own type is asked once.
        return f"column {name} has the type {type_!r}"
    if isinstance(_implementation(type_, dialect), Enum):
        return None
    said = _said(type_, dialect)
    base = _LENGTH.sub("", said or "")
    known = base.removesuffix("[]") in _BINARY if dialect.driver == "asyncpg" else base in _CLASSES
    if known and not (base.endswith("[]") and base != said and base[:-2] in _STRINGS):
        return None
    return f"column {name} has the type {type_!r}"


def _implementation(type_: Any, dialect: Dialect) -> Any:
    implementation = type_.dialect_impl(dialect)
    return getattr(implementation, "impl_instance", implementation)


def _said(type_: Any, dialect: Any) -> str | None:
    """Return the type that the model says as format_type() would write it."""
    try:
        sql: str = dialect.type_compiler_instance.process(type_).lower()
    except CompileError:
        return None
    sql = re.sub(r" collate .*", "", sql)
    sql = re.sub(r"(\[\])+$", "[]", sql.replace(", ", ",").replace(" (", "("))
    name = re.match(r"\w*", sql)
    assert name is not None
    precision = re.match(r"float\((\d+)\)", sql)
    if precision:
        real = int(precision[1]) <= 24
        return ("real" if real else "double precision") + sql[precision.end() :]
    return _NAMES.get(name[0], name[0]) + sql[name.end() :]


def reason_of_column(
    field: Field, facts: ColumnFacts | None, dialect: Dialect, has_codec: Callable[[int], bool]
) -> str | None:
    """Return why a column that rows give cannot go through COPY; `facts` are the database's."""
    reason = reason_of_model(field, dialect)
    if reason is not None:
        return reason
    name = field.column.name
    if facts is None:
        return f"column {name} is not in the database"
    has_codecs = has_codec(facts.type_oid) and has_codec(facts.element_oid)
    reasons = {
        f"the server makes column {name}": facts.is_always,
        f"column {name} refers to rows of the same table": facts.refers_to_itself,
        f"column {name} is not what the model says, but {facts.type}": not _is_said(
            field, facts, dialect
        ),
        f"column {name} has a codec of the application's own that is text": not has_codecs,
    }
    return next((why for why, is_so in reasons.items() if is_so), None)


def _is_said(field: Field, facts: ColumnFacts, dialect: Dialect) -> bool:
    type_ = field.column.type
    implementation = _implementation(type_, dialect)
    if isinstance(implementation, Enum) and implementation.native_enum:
        return facts.enum is not None and facts.enum == implementation.name
    said = _said(type_, dialect) or ""
    base = _LENGTH.sub("", facts.type)
    if base in _STRINGS:
        return _LENGTH.sub("", said) in _STRINGS
    # A cast to what the model says would round; one to what it leaves open does not.
    return said in {facts.type, base}


def reason_of_rows(
    given: Sequence[Field],
    lacking: Iterable[Field],
    facts: TableFacts | None,
    dialect: Dialect,
    has_codec: Callable[[int], bool],
) -> str | None:
    """Return why rows that give and lack these columns go by INSERT; None: they go by COPY."""
    if facts is None:
        return "the table is not there"
    names = {field.column.name for field in given}
    reasons = [facts.reason]
    for field in given:
        found = facts.columns.get(field.column.name)
        reasons.append(reason_of_column(field, found, dialect, has_codec))
    reasons += [field.left_to_sql for field in lacking]
    reasons += [
        f"the default of column {column.name} may see how rows come"
        for column in facts.columns.values()
        if column.is_statement_made and column.name not in names
    ]
    return next((reason for reason in reasons if reason is not None), None)


def explained(target: Target, dialect: Dialect) -> str | None:
    """Return why rows of a target do not go by COPY, as far as it is known without asking.

    What the database says is known of tables into which rows went through the same engine.
    """
    if not target.is_one_table:
        return "its rows lie in several tables"
    facts = last_seen(dialect, target.table)
    for field in target.fields:
        column = facts.columns.get(field.column.name) if facts is not None else None
        if field.left_to_sql is not None:
            return field.left_to_sql
        computed = field.column.computed is not None
        if field.column is target.generated or computed or field.key is None:
            continue
        if facts is None:
            reason = reason_of_model(field, dialect)
        else:
            reason = reason_of_column(field, column, dialect, lambda _oid: True)
        if reason is not None:
            return reason
    return facts.reason if facts is not None else None


def are_as_typed(
    fields: Sequence[Field], facts: TableFacts, records: Collection[Sequence[Any]]
) -> bool:
    """Tell whether all values are of the classes that psycopg's text COPY is used for."""
    for place, field in enumerate(fields):
        column, get = facts.columns[field.column.name], itemgetter(place)
        classes = set(map(type, map(get, records))) - {type(None)}
        names = {f"{cls.__module__}.{cls.__qualname__}" for cls in classes}
        base = _LENGTH.sub("", column.type)
        if not names <= _CLASSES.get(base, _CLASSES["text"]):
            return False
        if base == "timestamp without time zone" and any(
            value is not None and value.tzinfo is not None for value in map(get, records)
        ):
            return False
    return True
