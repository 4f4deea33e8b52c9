"""
Many rows in one statement: `UPDATE ... FROM unnest(...)`, one for each set of columns.

For rows whose neighbours set other columns, which SQLAlchemy sends one by one. The statement is
SQLAlchemy's own, bound by itself, with columns of `unnest` in the place of its parameters. Such a
statement updates rows in whatever order its plan has, so:

- nobody may see that order (seen.py);
- the first of a flush locks the rows of all of them, in SQLAlchemy's order (array_text.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

from .._sqlalchemy import raise_as_statement
from ..execute import execute
from ..expressions import is_of_row
from ..names import Names
from ..plans import FastPathUnsupportedError
from ..sizes import STATEMENT_ROWS
from ._sqlalchemy import CompiledStatement, bound_context, compile_cached, returned_by
from .array_text import ArrayText, refuse_types
from .results import Written, processed, processors_of
from .seen import facts_of
from .statements import Record, Run, Target, made_by_python, update_of


@dataclass(slots=True, eq=False)
class Group:
    """Rows that one statement updates."""

    returned: tuple[Any, ...]
    rows: list[int] = field(default_factory=list)  # positions among all rows
    records: list[Record] = field(default_factory=list)
    compiled: list[CompiledStatement] = field(default_factory=list)  # one for all, or one a row


@dataclass(slots=True, eq=False)
class Bound:
    """A group as the driver takes it."""

    group: Group
    text: ArrayText
    arrays: list[list[Any]]
    compiled: Any
    params: list[dict[str, Any]]


def groups_of(target: Target, runs: Sequence[Run]) -> list[Group]:
    """Return the rows of runs, like beside like."""
    found: dict[Any, Group] = {}
    groups: list[Group] = []
    number = 0
    for run in runs:
        for record in run.records:
            compiled, kind = None, None
            if record.expressions:
                compiled = _compiled(target, run.returned, record)
                kind = id(compiled.compiled)
            key = (kind, frozenset(record.params), run.returned)
            group = found.get(key)
            if group is None or len(group.rows) == STATEMENT_ROWS:
                group = found[key] = Group(run.returned)
                groups.append(group)
            group.rows.append(number)
            group.records.append(record)
            if compiled is not None:
                group.compiled.append(compiled)
            elif not group.compiled:
                group.compiled.append(_compiled(target, run.returned, record))
            number += 1
    return groups


def _compiled(target: Target, returned: tuple[Any, ...], record: Record) -> CompiledStatement:
    statement = update_of(target, returned)
    if record.expressions:
        statement = statement.values(record.expressions)
    keys = [*record.params, *(column.key for column in called_for(target, record))]
    return compile_cached(record.connection, statement, keys, target.base_mapper)


def refuse_order(target: Target, runs: Sequence[Run]) -> None:
    """Refuse rows whose order somebody sees, or whose values can not be told to be the same."""
    connection = runs[0].first.connection
    if any(run.first.connection is not connection for run in runs):
        raise FastPathUnsupportedError("rows go to several connections")
    facts = facts_of(connection, target.table)
    if facts is None:
        raise FastPathUnsupportedError(f"{target.table.name} is not there")
    columns = _columns(target, runs)
    shown = facts.shows_order_of(frozenset(column.name for column in columns))
    if shown:
        raise FastPathUnsupportedError(shown)
    expressions = [
        column.onupdate.arg for column in target.onupdates if column.onupdate.is_clause_element
    ]
    for run in runs:
        for record in run.records:
            expressions += record.expressions.values()
    if not all(is_of_row(expression, target.table) for expression in expressions):
        raise FastPathUnsupportedError("an expression is not known to say the same of many rows")


def _columns(target: Target, runs: Sequence[Run]) -> set[Any]:
    """Return the columns that are set in any of the rows."""
    by_key = {column.key: column for column in target.table.c}
    columns = set(target.onupdates)
    for run in runs:
        columns.update(by_key[key] for key in run.first.params if key in by_key)
        for record in run.records:
            columns.update(record.expressions)
    return columns


class Arrays:
    """The statements of one table in one flush; nothing is sent before all are bound."""

    def __init__(self, target: Target, groups: Sequence[Group]) -> None:
        self.target = target
        self.connection = groups[0].records[0].connection
        self.names = Names.of(self.connection)
        self.written: dict[int, Written] = {}
        for group in groups:
            refuse_types(group.compiled[0].compiled, self.names)
        self._bound = [self._bind(group) for group in groups]
        self._locks = self._keys()
        self._call_onupdates()

    def send(self) -> None:
        """Send one after the other; `written` tells what has come of which rows."""
        locks: list[list[Any]] | None = self._locks
        for bound in self._bound:
            sql, arrays = bound.text.sql(bound.arrays, locks)
            rows = execute(self.connection, sql, tuple(arrays)).rows
            self._keep(bound, rows)
            locks = None

    def _bind(self, group: Group) -> Bound:
        # What functions make comes later: they are called once, when nothing is refused any more.
        later = {column.key: None for column in called_for(self.target, group.records[0])}
        given = [record.params | later for record in group.records]
        if len(group.compiled) == 1:
            contexts = [bound_context(self.connection, group.compiled[0], given)]
        else:
            contexts = [
                bound_context(self.connection, one, [params])
                for one, params in zip(group.compiled, given, strict=True)
            ]
        compiled = contexts[0].compiled
        if tuple(returned_by(compiled)) != group.returned:
            raise FastPathUnsupportedError("something else comes back")
        text = ArrayText(self.target, self.names, contexts[0])
        parameters = [row for context in contexts for row in context.parameters]
        params = [row for context in contexts for row in context.compiled_parameters]
        return Bound(group, text, text.arrays(parameters), compiled, params)

    def _keys(self) -> list[list[Any]]:
        """Return the keys of all rows as they are bound, column by column."""
        rows: list[Any] = [None] * sum(len(bound.group.rows) for bound in self._bound)
        for bound in self._bound:
            keys = zip(*(bound.arrays[place] for place in bound.text.keys), strict=True)
            for row, key in zip(bound.group.rows, keys, strict=True):
                rows[row] = key
        if len(set(rows)) < len(rows):
            raise FastPathUnsupportedError("a row is updated twice")
        return [list(column) for column in zip(*rows, strict=True)]

    def _call_onupdates(self) -> None:
        """Call the functions of `onupdate` row by row, in SQLAlchemy's order."""
        rows = [
            (row, place, bound)
            for bound in self._bound
            if called_for(self.target, bound.group.records[0])
            for place, row in enumerate(bound.group.rows)
        ]
        rows.sort(key=itemgetter(0))
        try:
            for _, place, bound in rows:
                for column in called_for(self.target, bound.group.records[0]):
                    value = bound.params[place][column.key] = column.onupdate.arg(None)
                    bound.text.put(bound.arrays, place, column.key, value)
        except Exception as error:
            raise_as_statement(self.connection, error, f"UPDATE {self.target.table.name}")
        for bound in self._bound if rows else ():
            bound.text.refuse(bound.arrays)

    def _keep(self, bound: Bound, rows: Sequence[Sequence[Any]]) -> None:
        """Tell what came of the rows of a statement, which returns them in no order."""
        group = bound.group
        processors = processors_of(group.returned, self.connection.dialect)
        returned = {row[0] - 1: row[1:] for row in rows}
        told = self._told(group, bound.compiled)
        for place, (row, params) in enumerate(zip(group.rows, bound.params, strict=True)):
            back = returned.get(place)
            values = None if back is None or not processors else processed(back, processors)
            self.written[row] = Written(told, params, back is not None, values)

    def _told(self, group: Group, compiled: Any) -> Any:
        """Return what SQLAlchemy would have compiled, had it called what was called here."""
        called = called_for(self.target, group.records[0])
        if not called:
            return compiled
        order = list(self.target.table.c)
        return SimpleNamespace(
            prefetch=sorted({*compiled.prefetch, *called}, key=order.index),
            postfetch=compiled.postfetch,
            effective_returning=compiled.effective_returning,
        )


def called_for(target: Target, record: Record) -> list[Any]:
    """Return the columns whose onupdate is called for a row."""
    return [column for column in made_by_python(target, record) if column.onupdate.is_callable]
