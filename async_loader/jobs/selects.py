"""
Selects that have no pages: what they yield depends on more than the row and its key.

A page is the select with a condition on the key. Whoever numbers, cuts, groups or samples rows
gets another result for a part of them, and whoever writes or skips what is locked gets another
result each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from typing import Any

from sqlalchemy import Connection, Select, SelectBase, text
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ColumnClause, Over, TextClause
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import CTE, CompoundSelect, FromClause, Subquery, TableSample

from ..database.sqlalchemy_private import (
    added_ctes,
    clauses_of,
    columns_of,
    distinct_on,
    is_cut,
    lock_of,
    parts_of_joins,
    texts_around,
)
from ..errors import ConfigurationError
from .parsed import parse

_IN_TEXT = re.compile(
    r"\b(limit|offset|fetch\s+(?:first|next)|over|distinct|group\s+by|having|union|intersect|except"
    r"|tablesample|skip\s+locked|insert\s+into|update|delete\s+from|merge\s+into)\b",
    re.IGNORECASE,
)
_STREAMS = ("yield_per", "stream_results")
_WRITING = {"insert": "an INSERT", "update": "an UPDATE", "delete": "a DELETE"}
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$\$.*?\$\$|--[^\n]*", re.DOTALL)
_CALLED = re.compile(r"(\.\s*)?\b([a-z_][a-z0-9_$]*)\s*\(", re.IGNORECASE)


def require_select(found: Any) -> Select[Any]:
    """Return the select; raises `ConfigurationError`, with its name, for what is none."""
    if isinstance(found, Select):
        return found
    kinds = {
        "CompoundSelect": "a UNION (or INTERSECT, EXCEPT)",
        "FromStatement": "select().from_statement()",
        "TextualSelect": "a text",
        "TextClause": "a text",
        "Query": "a Query",
    }
    name = next((kinds[t.__name__] for t in type(found).__mro__ if t.__name__ in kinds), None)
    what = name or f"a {type(found).__name__}"
    raise ConfigurationError(
        f"a job pages over one select(), not over {what}: write it as a select with conditions"
    )


def refuse_what_has_no_pages(select: Select[Any]) -> None:
    """Raise `ConfigurationError` for a select of which a range of keys is not a part."""
    for clause, present in clauses_of(select).items():
        if present:
            raise ConfigurationError(
                f"a job's select has {clause}: leave it out, the job orders and cuts by key"
            )
    for option in _STREAMS:
        if select.get_execution_options().get(option):
            raise ConfigurationError(
                f"a job's select has the execution option {option}: leave it out, the job reads a "
                "chunk at a time"
            )
    _refuse_unpageable(next(_unpageable(select), None))


def _refuse_unpageable(found: str | None) -> None:
    if found is not None:
        raise ConfigurationError(
            f"a job's select has {found}: its result for a range of keys is no part of the whole; "
            "leave it out, or compute it in apply"
        )


def _unpageable(select: Select[Any]) -> Iterator[str]:
    """Yield what in a select, or below it, makes a part of its rows depend on the others."""
    outer, standing = set(_tables_in(select)), set[int]()
    lock = lock_of(select)
    if lock is not None and lock.skip_locked:
        yield "FOR UPDATE SKIP LOCKED"
    for element in _elements(select, inside_selects=False):
        if isinstance(element, Over):
            yield "a window function"
    for element in _elements(select, inside_selects=True):
        if isinstance(element, TableSample):
            yield "a TABLESAMPLE"
        if isinstance(element, UpdateBase):
            yield f"{_WRITING[element.__visit_name__]} within"
        if isinstance(element, (Subquery, CTE)):
            standing.add(id(element.element))
        if isinstance(element, SelectBase) and element is not select:
            yield from _of_subselect(element, set() if id(element) in standing else outer)
        yield from (f"{word.upper()} in a text" for word in _words_in(element))


def _of_subselect(inner: SelectBase, outer: Set[Any]) -> Iterator[str]:
    """Yield what a select within cuts off: the rows of which it cuts are not one row's own."""
    lock = lock_of(inner)
    if lock is not None and lock.skip_locked:
        yield "FOR UPDATE SKIP LOCKED"
    if isinstance(inner, Select) and _is_of_one_row(inner, outer):
        return
    if is_cut(inner):
        yield "a LIMIT in a subquery of all rows"
    if distinct_on(inner):
        yield "a DISTINCT ON in a subquery of all rows"
    if isinstance(inner, CompoundSelect):
        return
    if any(isinstance(element, Over) for element in _elements(inner, inside_selects=False)):
        yield "a window function in a subquery of all rows"


def _is_of_one_row(inner: Select[Any], outer: Set[Any]) -> bool:
    """Whether a subquery is evaluated for each row: it speaks of tables around it, and others."""
    froms = set(inner.get_final_froms())
    return bool(froms & outer) and bool(froms - outer)


def _tables_in(select: Select[Any]) -> Iterator[Any]:
    for from_ in select.get_final_froms():
        for element in visitors.iterate(from_):
            if isinstance(element, FromClause) and not isinstance(element, SelectBase):
                yield element


def _elements(select: Any, *, inside_selects: bool) -> Iterator[Any]:
    """Yield the elements of a statement, those of its joins too."""
    pending: list[Any] = [select, *parts_of_joins(select)]
    seen: set[int] = set()
    while pending:
        element = pending.pop()
        children = getattr(element, "get_children", None)
        if children is None or id(element) in seen:
            continue
        seen.add(id(element))
        yield element
        if not isinstance(element, SelectBase) or element is select or inside_selects:
            pending.extend(children())
            pending.extend(added_ctes(element))


def _words_in(element: Any) -> list[str]:
    """Return the forbidden words in what a user wrote as text."""
    texts = []
    if isinstance(element, TextClause):
        texts.append(element.text)
    if isinstance(element, ColumnClause) and element.is_literal:
        texts.append(str(element.name))
    texts += texts_around(element)
    return [w for found in texts for w in _IN_TEXT.findall(_QUOTED.sub(" ", found))]


def refuse_functions(connection: Connection, select: Select[Any]) -> None:
    """Raise `ConfigurationError` for functions whose result changes, or that multiply rows."""
    if connection.dialect.name != "postgresql":
        _refuse_random(select, connection)
        return
    sql = _QUOTED.sub(" ", str(select.compile(dialect=connection.dialect)))
    called = {(name.lower(), bool(dot)) for dot, name in _CALLED.findall(sql)}
    names = {"names": sorted(name for name, _ in called),
             "qualified": sorted(name for name, qualified in called if qualified)}  # fmt: skip
    rows = connection.execute(_FUNCTIONS, names).all()
    _refuse_volatile(next((row.name for row in rows if row.volatile), None))
    sets = {row.name for row in rows if row.returns_set}
    for column in columns_of(select):
        for element in _elements(column, inside_selects=False):
            name = getattr(element, "name", "") if isinstance(element, FunctionElement) else ""
            if name in sets:
                raise ConfigurationError(
                    f"a job's select has {name}() among its columns, which yields a row several "
                    "times: call it in apply"
                )
    parsed = parse(connection, select)
    if parsed is not None:
        _refuse_volatile(parsed.volatile)
        _refuse_unpageable(next(iter(parsed.findings), None))


def _refuse_volatile(name: str | None) -> None:
    if name is not None:
        raise ConfigurationError(
            f"a job's select calls {name}(), which is volatile: its result may differ each "
            "time a page is read; call it in apply, or declare a function of yours STABLE"
        )


_FUNCTIONS = text(
    "SELECT proname AS name, bool_or(provolatile = 'v') AS volatile,"
    " bool_or(proretset) AS returns_set"
    " FROM pg_proc WHERE proname = ANY(CAST(:names AS text[]))"
    " AND (pg_function_is_visible(oid) OR proname = ANY(CAST(:qualified AS text[])))"
    " GROUP BY proname ORDER BY proname"
)


def _refuse_random(select: Select[Any], connection: Connection) -> None:
    sql = _QUOTED.sub(" ", str(select.compile(dialect=connection.dialect))).lower()
    for name in ("random", "randomblob"):
        if re.search(rf"\b{name}\s*\(", sql):
            raise ConfigurationError(
                f"a job's select calls {name}(), whose result differs each time a page is read"
            )
