"""
Which run is the same work: its target, its key and its select.

Another target is another run: tenants that differ by schema do not share one. Another key or
select over the same target is refused, as its rows below the cursor would never be read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import BindParameter, Connection, Select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import RowMapping

from ..errors import JobError
from .keyset import Keyset

# One dialect for all drivers: two workers with different ones share a run.
_DIALECT = postgresql.dialect(paramstyle="format")  # type: ignore[no-untyped-call]  # SQLAlchemy's
_LIST = re.compile(r"__\[POSTCOMPILE_[^\]]*\]")
# What EXISTS selects says nothing, and has every column of a model.
_EXISTS = re.compile(r"(\bEXISTS\(SELECT ).*?( FROM )")
# What a subquery or CTE hands on of one table by its own names has every column, too.
_HANDED_ON = re.compile(
    r"(?P<head>(?:\bAS|\bFROM|\bJOIN)\(SELECT )(?=(?P<table>[\w.\"]+?)\.[\w\"]+[ ,])"
    r"(?:(?P=table)\.(?P<column>[\w\"]+)(?: AS (?P=column))?,?)+(?P<tail> FROM (?P=table)\b)"
)
_QUOTED = re.compile(r"('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")")
_BLANKS = re.compile(r"\s*([(),])\s*|\s+")
# What a version of SQLAlchemy says behind a parameter of its type, and another does not.
_TYPED = re.compile(
    r"%s(?:::[\w.\"]+(?: PRECISION| VARYING)?(?:\([^)]*\))?(?: WITH(?:OUT)? TIME ZONE)?(?:\[\])*)?"
    r"(?: COLLATE [\w.\"]+)?"
)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def translation(connection: Connection, statement: Select[Any] | None) -> Mapping[Any, Any]:
    """Return the map of schemas that holds for a statement on a connection."""
    own = {} if statement is None else statement.get_execution_options()
    options = {**connection.get_execution_options(), **own}
    found: Mapping[Any, Any] = options.get("schema_translate_map") or {}
    return found


@dataclass(frozen=True, slots=True)
class Target:
    """Of what a run is: `a.song in a, public`; `former` is what an earlier version said of it."""

    name: str
    former: str


_SCHEMAS = text(
    "SELECT s::text FROM unnest(current_schemas(false)) WITH ORDINALITY u (s, n) ORDER BY n"
)


def target_of(
    connection: Connection, tables: Iterable[str], translate: Mapping[Any, Any]
) -> Target:
    """Return the resolved tables, and where other names lead."""
    default, path = translate.get(None), ""
    if default is None:
        default = "main"
        if connection.dialect.name == "postgresql":
            # A name a row: asyncpg asks the server what an array of names is, at seven round trips.
            schemas = connection.scalars(_SCHEMAS).all() or ["None"]
            default = str(schemas[0])
            path = "".join(f", {schema}" for schema in schemas[1:])
    others = "".join(
        f", {k} as {v}" for k, v in sorted(translate.items(), key=str) if k is not None
    )
    of = f"{', '.join(sorted(set(tables)))} in {default}".lstrip()
    return Target(f"{of}{path}{others}", f"{of}{others}")


def meaning_of(only_keys: Select[Any] | None) -> str:
    """
    Return a digest of the conditions of a select of keys, and one of the values in them.

    Columns that are read besides the key's, loader options, and the version and driver of
    SQLAlchemy change neither.
    """
    if only_keys is None:
        return ""
    compiled = only_keys.compile(dialect=_DIALECT)
    sql = _EXISTS.sub(r"\1\2", _LIST.sub("%s", _without_blanks(str(compiled))))
    sql = _TYPED.sub("%s", _HANDED_ON.sub(r"\g<head>\g<table>.*\g<tail>", sql))
    values = [_sent(compiled.binds[name], compiled.params[name])
              for name in compiled.positiontup or ()]  # fmt: skip
    return f"{_digest(sql)} {_digest(repr(values))}"


def _without_blanks(sql: str) -> str:
    """Return a statement on one line; what is within quotes stays as it is."""
    parts = _QUOTED.split(sql)
    parts[::2] = (_BLANKS.sub(lambda m: m[1] or " ", part) for part in parts[::2])
    return "".join(parts).strip()


def _sent(bind: BindParameter[Any], value: Any) -> str:
    """Return a value as text: of an object that has none, what its type sends of it."""
    if not _ADDRESS.search(repr(value)):
        return _value(value)
    processor: Any = bind.type.dialect_impl(_DIALECT).bind_processor(_DIALECT)
    if processor is None:
        return _value(value)
    several = isinstance(value, list | tuple | set | frozenset)
    return _value([processor(one) for one in value] if several else processor(value))


def _value(value: Any) -> str:
    if isinstance(value, list | tuple | set | frozenset):
        return repr(sorted(map(_value, value)))  # of IN: a set has another order each time
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    return f"{type(value).__name__}:{_ADDRESS.sub('', repr(value))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def refuse_another(run: RowMapping, keyset: Keyset | None, selected: str) -> None:
    """Raise `JobError` where a run goes by another key or select than the job does now."""
    number, key = run["id"], keyset.key if keyset else ""
    anew = f"cancel that run (`job cancel {number}`) to start anew"
    if run["selected"] is None:
        raise JobError(
            f"run {number} was begun by an earlier version of async_loader, whose position this "
            f"one does not read: {anew}"
        )
    if run["key"] != key:
        raise JobError(f"run {number} pages by ({run['key']}), the job now by ({key}): {anew}")
    if run["selected"] != selected:
        same = run["selected"].split(" ")[0] == selected.split(" ", maxsplit=1)[0]
        what = "a value in its conditions" if same else "its conditions or joins"
        raise JobError(
            f"run {number} was begun with another select, {what} differ{'s' * same}: rows that "
            f"match now and lie before its position would not be read; {anew}, or go on with "
            "resume_changed (`job run --resume-changed`)"
        )
