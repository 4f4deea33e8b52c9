"""
A select as PostgreSQL has parsed it: what its functions, operators and views come to.

A view is made of it, temporary or, without that privilege, beside the jobs' own tables; its
rule is read, and all of that rolled back. The rule is the tree of the statement
(src/backend/nodes/outfuncs.c): whatever is behind a quoted name, a comment, an operator, a view
or a text is in it by number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Select, event, text
from sqlalchemy.exc import SQLAlchemyError

from ..errors import ConfigurationError
from ..failures.classification import sqlstate_of
from .states import SCHEMA
from .transient import is_cancelled, is_transient

_VIEW = "async_loader_select"
_NO_RIGHT = "42501"
_RULES = text(
    "WITH RECURSIVE found AS ("
    "  SELECT c.oid, CAST('' AS name) AS name, r.ev_action::text AS tree"
    "  FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class"
    "  WHERE c.oid = CAST(:view AS regclass)"
    "  UNION SELECT c.oid, c.relname, r.ev_action::text"
    "  FROM found, regexp_matches(found.tree, '\\:relid (\\d+)', 'g') AS m"
    "  JOIN pg_class c ON c.oid = m[1]::oid AND c.relkind = 'v'"
    "  JOIN pg_rewrite r ON r.ev_class = c.oid AND r.ev_type = '1')"
    " SELECT name, tree FROM found"
)
_VOLATILE = text(
    "SELECT p.proname FROM pg_proc p WHERE p.provolatile = 'v' AND (p.oid = ANY("
    "CAST(CAST(:functions AS text[]) AS oid[])) OR p.oid IN (SELECT o.oprcode FROM pg_operator o"
    " WHERE o.oid = ANY(CAST(CAST(:operators AS text[]) AS oid[])))) ORDER BY 1 LIMIT 1"
)
_FUNCTION = re.compile(r":(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)")
_OPERATOR = re.compile(r":opno (\d+)")
_TOKEN = re.compile(r"[{}()]|(?:\\.|[^\s{}()\\])+", re.DOTALL)
_PARAMETER = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$\$.*?\$\$|--[^\n]*|/\*.*?\*/"
    r"|(?P<parameter>\$\d+|%\([^)]*\)s)",
    re.DOTALL,
)
_NO_SCHEMA = ("3F000",)  # the state's is another
_SKIP = "1"  # LockWaitPolicy

Tree = dict[str, Any]


class Parsed:
    """What was found in a select, and in the views that it reads."""

    def __init__(self, volatile: str | None, findings: list[str]) -> None:
        self.volatile = volatile
        self.findings = findings


def parse(connection: Connection, select: Select[Any]) -> Parsed | None:
    """
    Return what a select comes to; None where it does not run, or the server tells it otherwise.

    Raises `ConfigurationError` where the role may make no view at all.
    """
    for place in ("pg_temp", SCHEMA):
        savepoint = connection.begin_nested()
        try:
            return _parse_in(connection, select, f"{place}.{_VIEW}")
        except LookupError:  # a PostgreSQL whose trees have other fields
            return None
        except SQLAlchemyError as error:
            if is_transient(error) or is_cancelled(error):
                raise
            if sqlstate_of(error) not in (_NO_RIGHT, *_NO_SCHEMA * (place == SCHEMA)):
                return None  # its trial will tell
        finally:
            with suppress(Exception):  # the connection may be lost
                savepoint.rollback()
    database, role = connection.execute(text("SELECT current_database(), current_user")).one()
    quote = connection.dialect.identifier_preparer.quote
    raise ConfigurationError(
        "a job's select is looked at as a view that is rolled back, and this role may make none: "
        f"GRANT TEMPORARY ON DATABASE {quote(database)} TO {quote(role)}"
    )


def _parse_in(connection: Connection, select: Select[Any], view: str) -> Parsed:
    _create_view(connection, select, view)
    rules = connection.execute(_RULES, {"view": view}).all()
    trees = "".join(rule.tree for rule in rules)
    called = {"functions": sorted(set(_FUNCTION.findall(trees))),
              "operators": sorted(set(_OPERATOR.findall(trees)))}  # fmt: skip
    volatile = connection.scalar(_VOLATILE, called)
    findings = [found for rule in rules for found in _findings(rule.name, rule.tree)]
    return Parsed(volatile, findings)


def _create_view(connection: Connection, select: Select[Any], name: str) -> None:
    """Send the select as it is sent to be read, but for its values, as that of a view."""

    def as_view(
        _connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any
    ) -> tuple[str, Any]:
        sql = _PARAMETER.sub(lambda m: "NULL" if m["parameter"] else m[0], statement)
        # In a FROM, two of its columns may have one name.
        view = f"CREATE VIEW {name} AS SELECT 1 AS one FROM ({sql}) AS job"
        return view, type(parameters)()

    event.listen(connection, "before_cursor_execute", as_view, retval=True)
    try:
        connection.execute(select)
    finally:
        event.remove(connection, "before_cursor_execute", as_view)


def _findings(view: str, tree: str) -> Iterator[str]:
    """Yield what makes a range of a rule's rows no part of the whole."""
    where = f" in the view {view}" if view else ""
    for query, standing in _queries(_read(tree), standing=True):
        if standing and query["hasTargetSRFs"] == "true":
            yield f"a function among its columns that yields a row several times{where}"
        for mark in _nodes(query["rowMarks"]):
            if mark.get("waitPolicy") == _SKIP:
                yield f"FOR UPDATE SKIP LOCKED{where}"
        if any(entry.get("tablesample") not in (None, "<>") for entry in _nodes(query["rtable"])):
            yield f"a TABLESAMPLE{where}"
        if not _is_correlated(query):
            of = where or " in a subquery of all rows"
            if query["limitCount"] != "<>" or query["limitOffset"] != "<>":
                yield f"a LIMIT{of}"
            if query["hasDistinctOn"] == "true":
                yield f"a DISTINCT ON{of}"
            if query["hasWindowFuncs"] == "true":
                yield f"a window function{of}"


def _read(tree: str) -> Any:
    """Return a tree of nodes: `{NAME :field value}` as a dict, `(value ...)` as a list."""
    stack: list[list[Any]] = [[]]
    for part in _TOKEN.findall(tree):
        if part in "{(":
            stack.append([])
        elif part == ")":
            values = stack.pop()
            stack[-1].append(values)
        elif part == "}":
            values = stack.pop()
            stack[-1].append(_node(values))
        else:
            stack[-1].append(part)
    return stack[0]


def _node(values: list[Any]) -> Tree:
    node: Tree = {"": values[0]}
    name = ""
    for value in values[1:]:
        if isinstance(value, str) and value.startswith(":") and value[1:].isidentifier():
            name = value[1:]
        else:
            node.setdefault(name, value)
    return node


def _nodes(value: Any) -> Iterator[Tree]:
    """Yield the nodes of a list, but none below them."""
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, dict))


def _below(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a node or list holds directly, each with the name of its field."""
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from (("", one) for one in value)


def _queries(value: Any, *, standing: bool) -> Iterator[tuple[Tree, bool]]:
    """Yield each query, and whether its rows are rows of the whole and no values in a condition."""
    if isinstance(value, dict) and value[""] == "QUERY":
        yield value, standing
    for name, one in _below(value):
        yield from _queries(one, standing=standing and name != "subselect")


def _is_correlated(query: Tree) -> bool:
    """Return whether a query speaks of a row around it, and so is that row's own."""
    return any(_levels(one) > 0 for _, one in _below(query))


def _levels(value: Any) -> int:
    """Return how many queries further out the outermost column lies that is spoken of."""
    levels = int(value.get("varlevelsup", 0)) if isinstance(value, dict) else 0
    levels = max([levels, *(_levels(one) for _, one in _below(value))])
    return levels - 1 if isinstance(value, dict) and value[""] == "QUERY" else levels
