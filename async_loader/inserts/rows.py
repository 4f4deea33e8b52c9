"""
From objects to columns: what SQLAlchemy's `_collect_insert_commands` and its execution context
decide value by value, decided here column by column.

Rows whose inserts name the same columns form a group, which becomes one statement. Python
defaults are called row by row in the order of the objects, as SQLAlchemy calls them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy.sql import ClauseElement

from async_loader.inserts.plans import ColumnPlan, NotUnderstoodError, Role, TablePlan

Values = list[Any]

_MISSING: Any = object()

# Classes whose values hide no SQL expression; all others are looked at one by one.
_PLAIN: frozenset[type] = frozenset(
    {
        *(type(None), bool, int, float, str, bytes, dict),
        *(date, datetime, time, timedelta, Decimal, UUID),
    }
)
# What a driver would take for a further dimension of the array.
_NESTED = (list, tuple, set, frozenset)


@dataclass(slots=True, eq=False)
class Group:
    """Rows that one statement inserts; `rows` are positions among the objects given."""

    rows: Sequence[int]
    columns: list[tuple[ColumnPlan, Values]]
    defaulted: list[tuple[ColumnPlan, Values, list[int]]]


@dataclass(slots=True, eq=False)
class Sheet:
    """The values of all rows of one table, before defaults are called."""

    count: int
    whole: list[tuple[ColumnPlan, Values]]
    partial: list[tuple[ColumnPlan, Values, list[bool]]]
    calls: list[tuple[ColumnPlan, Values, list[int]]]
    absent: set[ColumnPlan]  # columns without a value in any row

    def rows_lacking(self, column: ColumnPlan) -> list[int]:
        """Return the rows that have no value of a column that may be absent."""
        if column in self.absent:
            return list(range(self.count))
        for other, _, present in self.partial:
            if other is column:
                return [row for row, has in enumerate(present) if not has]
        return []

    def fill(self, column: ColumnPlan, rows: Sequence[int], given: Values) -> None:
        """Give a column its values in the rows that lack them."""
        if column in self.absent:
            self.absent.discard(column)
            self.whole.append((column, given))
            return
        for index, (other, values, _) in enumerate(self.partial):
            if other is column:
                for row, value in zip(rows, given, strict=True):
                    values[row] = value
                del self.partial[index]
                self.whole.append((column, values))
                return

    def patterns(self, *, ignoring: ColumnPlan | None = None) -> int:
        """Return how many sets of columns there are, one column apart."""
        masks = [mask for column, _, mask in self.partial if column is not ignoring]
        return len(set(zip(*masks, strict=True))) if masks else 1

    def groups(self, *, keep_order: bool) -> list[Group]:
        """Call the defaults and return the groups in the order of their first rows."""
        _call_defaults(self.calls)
        calls = [call for call in self.calls if call[2]]
        if not self.partial:
            return [Group(range(self.count), self.whole, calls)]
        by_pattern: dict[tuple[bool, ...], list[int]] = {}
        masks = [mask for _, _, mask in self.partial]
        for row, pattern in enumerate(zip(*masks, strict=True)):
            by_pattern.setdefault(pattern, []).append(row)
        runs = _runs(by_pattern, self.count) if keep_order else list(by_pattern.items())
        return [self._group(pattern, rows, calls) for pattern, rows in runs]

    def _group(
        self,
        pattern: tuple[bool, ...],
        rows: list[int],
        calls: list[tuple[ColumnPlan, Values, list[int]]],
    ) -> Group:
        columns = [(column, [values[row] for row in rows]) for column, values in self.whole]
        for (column, values, _), present in zip(self.partial, pattern, strict=True):
            if present:
                columns.append((column, [values[row] for row in rows]))
        return Group(rows, columns, _of_rows(calls, rows))


def collect(plan: TablePlan, dicts: Sequence[dict[str, Any]]) -> Sheet:
    """Return the values of the objects whose attributes these are.

    Raises NotUnderstoodError for values that only SQLAlchemy can send.
    """
    sheet = Sheet(len(dicts), [], [], [], set())
    for column in plan.columns:
        values = _values(column, dicts)
        role = column.role
        if role is Role.ABSENT:
            present = _presence(column, values)
            if present is True:
                sheet.whole.append((column, values))
            elif present is False:
                sheet.absent.add(column)
            else:
                sheet.partial.append((column, values, present))
            continue
        if role is not Role.NONE:
            sheet.calls.append((column, values, _defaulted_rows(column, values)))
        sheet.whole.append((column, values))
    return sheet


def _values(column: ColumnPlan, dicts: Sequence[dict[str, Any]]) -> Values:
    key = column.key
    if key is None or column.role is Role.VERSION:
        return [None] * len(dicts)
    if column.evaluates_none:
        return [values.get(key, _MISSING) for values in dicts]
    values = [values.get(key) for values in dicts]
    unknown = set(map(type, values)) - _PLAIN
    if unknown:
        _refuse_expressions(column, values, unknown)
    return values


def _refuse_expressions(column: ColumnPlan, values: Values, unknown: set[type]) -> None:
    for value in values:
        if type(value) not in unknown:
            continue
        if isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"):
            raise NotUnderstoodError(f"column {column.column.name} is given a SQL expression")
        if isinstance(value, _NESTED) and column.codec.bind is None:
            raise NotUnderstoodError(f"column {column.column.name} is given a list")


def _presence(column: ColumnPlan, values: Values) -> bool | list[bool]:
    """Tell whether all or no rows have a value, or which."""
    absent = _MISSING if column.evaluates_none else None
    present = [value is not absent for value in values]
    if False not in present:
        return True
    return present if True in present else False


def _defaulted_rows(column: ColumnPlan, values: Values) -> list[int]:
    absent = _MISSING if column.evaluates_none else None
    return [row for row, value in enumerate(values) if value is absent]


def _call_defaults(calls: list[tuple[ColumnPlan, Values, list[int]]]) -> None:
    """Fill in Python defaults; several that are called take turns row by row."""
    called = [call for call in calls if call[0].is_callable and call[2]]
    for column, values, rows in calls:
        if not column.is_callable or len(called) == 1:
            assert column.default is not None
            for row in rows:
                values[row] = column.default()
    if len(called) > 1:
        turns = sorted(
            (row, turn) for turn, (_, _, rows) in enumerate(called) for row in rows
        )
        for row, turn in turns:
            column, values, _ = called[turn]
            assert column.default is not None
            values[row] = column.default()


def _runs(
    by_presence: dict[tuple[bool, ...], list[int]], count: int
) -> list[tuple[tuple[bool, ...], list[int]]]:
    """Keep the rows' order: one may refer to another that comes before it."""
    presences: list[Any] = [None] * count
    for presence, rows in by_presence.items():
        for row in rows:
            presences[row] = presence
    runs: list[tuple[tuple[bool, ...], list[int]]] = []
    for row, presence in enumerate(presences):
        if runs and runs[-1][0] == presence:
            runs[-1][1].append(row)
        else:
            runs.append((presence, [row]))
    return runs


def _of_rows(
    calls: list[tuple[ColumnPlan, Values, list[int]]], rows: list[int]
) -> list[tuple[ColumnPlan, Values, list[int]]]:
    position = {row: index for index, row in enumerate(rows)}
    found = []
    for column, values, defaulted in calls:
        mine = [row for row in defaulted if row in position]
        if mine:
            own = [values[row] for row in rows]
            found.append((column, own, [position[row] for row in mine]))
    return found
