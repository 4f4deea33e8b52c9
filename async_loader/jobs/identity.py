"""
Which run is the same work: its target, its key and its select.

Another target is another run: tenants that differ by schema do not share one. Another key or
select over the same target is refused, as its rows below the cursor would never be read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from sqlalchemy import Connection, Select, func, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import RowMapping

from ..errors import JobError
from .keyset import Keyset

# One dialect for all drivers: two workers with different ones share a run.
_DIALECT = postgresql.dialect(paramstyle="format")  # type: ignore[no-untyped-call]  # SQLAlchemy's
_LIST = re.compile(r"__\[POSTCOMPILE_[^\]]*\]")
# What EXISTS selects says nothing, and has every column of a model.
_EXISTS = re.compile(r"(EXISTS \(SELECT ).*?( FROM )", re.DOTALL)
_PUNCTUATION = re.compile(r"[()\s]")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def translation(connection: Connection, statement: Select[Any] | None) -> Mapping[Any, Any]:
    """Return the map of schemas that holds for a statement on a connection."""
    own = {} if statement is None else statement.get_execution_options()
    options = {**connection.get_execution_options(), **own}
    found: Mapping[Any, Any] = options.get("schema_translate_map") or {}
    return found


def target_of(connection: Connection, tables: Iterable[str], translate: Mapping[Any, Any]) -> str:
    """Return of what a run is: `a.song in a`, the resolved table, and where other names lead."""
    default = translate.get(None)
    if default is None:
        default = "main"
        if connection.dialect.name == "postgresql":
            default = connection.scalar(select(func.current_schema()))
    others = [f"{k} as {v}" for k, v in sorted(translate.items(), key=str) if k is not None]
    where = ", ".join([str(default), *others])
    return f"{', '.join(sorted(set(tables)))} in {where}".lstrip()


def meaning_of(keyset: Keyset | None) -> str:
    """
    Return a digest of the conditions of a select, and one of the values in them.

    Columns that are read besides the key's, loader options, and the version and driver of
    SQLAlchemy change neither.
    """
    if keyset is None:
        return ""
    compiled = keyset.only_keys.compile(dialect=_DIALECT)
    sql = _EXISTS.sub(r"\1\2", _LIST.sub("%s", " ".join(str(compiled).split())))
    values = [_value(compiled.params[name]) for name in compiled.positiontup or ()]
    return f"{_digest(_PUNCTUATION.sub('', sql))} {_digest(repr(values))}"


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
