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

from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

from async_loader.inserts.expressions import Expression, Template, understood
from async_loader.inserts.plans import ColumnPlan, NotUnderstoodError, Role, TablePlan

Values = list[Any]

_MISSING: Any = object()

# Classes whose values hide no SQL expression; all others are looked at one by one.
_PLAIN: frozenset[type] = frozenset(
    {
        # object itself is the class of the mark for a missing value
        *(type(None), bool, int, float, str, bytes, dict, object),
        *(date, datetime, time, timedelta, Decimal, UUID),
    }
)
# What a driver would take for a further dimension of the array.
_NESTED = (list, tuple, set, frozenset)


@dataclass(slots=True, eq=False)
class Pending:
    """New objects, row by row: their states and, beside them, their attributes."""

    states: list[Any]
    dicts: list[dict[str, Any]]

    def extend(self, other: Pending) -> None:
        """Add the rows of another."""
        self.states.extend(other.states)
        self.dicts.extend(other.dicts)


@dataclass(slots=True, eq=False)
class Group:
    """Rows that one statement inserts; `rows` are positions among the objects given."""

    rows: Sequence[int]
    columns: list[tuple[ColumnPlan, Values]]
    defaulted: list[tuple[ColumnPlan, Values, list[int]]]
    computed: list[tuple[ColumnPlan, Template, list[Values]]]


@dataclass(slots=True, eq=False)
class Sheet:
    """The values of all rows of one table, before defaults are called."""

    count: int
    whole: list[tuple[ColumnPlan, Values]]
    partial: list[tuple[ColumnPlan, Values, list[bool]]]
    calls: list[tuple[ColumnPlan, Values, list[int]]]
    absent: set[ColumnPlan]  # columns without a value in any row
    computed: list[tuple[ColumnPlan, dict[int, Expression]]]  # expressions, by row

    def rows_lacking(self, column: ColumnPlan) -> Sequence[int]:
        """Return the rows that have no value of a column that may be absent."""
        if column in self.absent:
            return range(self.count)
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
        """Return how many statements the rows need, one column apart."""
        if not self.partial and not self.computed:
            return 1
        masks = self._masks(ignoring)
        return len(set(zip(*masks, strict=True))) if masks else 1

    def _masks(self, ignoring: ColumnPlan | None = None) -> list[Sequence[Any]]:
        masks: list[Sequence[Any]] = [
            mask for column, _, mask in self.partial if column is not ignoring
        ]
        for _, by_row in self.computed:
            masks.append(
                [by_row[row].template if row in by_row else None for row in range(self.count)]
            )
        return masks

    def groups(self, *, keep_order: bool) -> list[Group]:
        """Call the defaults and return the groups in the order of their first rows."""
        _call_defaults(self.calls)
        calls = [call for call in self.calls if call[2]]
        masks = self._masks()
        if not masks:
            return [Group(range(self.count), self.whole, calls, [])]
        by_pattern: dict[tuple[Any, ...], list[int]] = {}
        for row, pattern in enumerate(zip(*masks, strict=True)):
            by_pattern.setdefault(pattern, []).append(row)
        runs = _runs(by_pattern, self.count) if keep_order else list(by_pattern.items())
        return [self._group(pattern, rows, calls) for pattern, rows in runs]

    def _group(
        self,
        pattern: tuple[Any, ...],
        rows: list[int],
        calls: list[tuple[ColumnPlan, Values, list[int]]],
    ) -> Group:
        computed: list[tuple[ColumnPlan, Template, list[Values]]] = []
        for (column, by_row), template in zip(
            self.computed, pattern[len(self.partial) :], strict=True
        ):
            if template is not None:
                given = [
                    list(values)
                    for values in zip(*(by_row[row].values for row in rows), strict=True)
                ]
                computed.append((column, template, given))
        skipped = {column for column, _, _ in computed}
        columns = [
            (column, [values[row] for row in rows])
            for column, values in self.whole
            if column not in skipped
        ]
        for (column, values, _), present in zip(self.partial, pattern, strict=False):
            if present and column not in skipped:
                columns.append((column, [values[row] for row in rows]))
        mine = [call for call in calls if call[0] not in skipped]
        return Group(rows, columns, _of_rows(mine, rows), computed)


def collect(plan: TablePlan, dicts: Sequence[dict[str, Any]], dialect: Dialect) -> Sheet:
    """Return the values of the objects whose attributes these are.

    Raises NotUnderstoodError for values that only SQLAlchemy can send.
    """
    sheet = Sheet(len(dicts), [], [], [], set(), [])
    for column in plan.columns:
        values = _values(column, dicts)
        expressions = _expressions(column, values, dialect)
        if expressions:
            sheet.computed.append((column, expressions))
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
    return [values.get(key) for values in dicts]


def _expressions(
    column: ColumnPlan, values: Values, dialect: Dialect
) -> dict[int, Expression] | None:
    """Return the SQL expressions among the values, by row; refuse what has no column."""
    if _PLAIN.issuperset(map(type, values)):
        return None
    unknown = set(map(type, values)) - _PLAIN
    found: dict[int, Expression] = {}
    for row, value in enumerate(values):
        if type(value) not in unknown:
            continue
        if isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"):
            expression = None if column.column.primary_key else understood(value, dialect)
            if expression is None:
                raise NotUnderstoodError(f"column {column.column.name} is given a SQL expression")
            found[row] = expression
        elif isinstance(value, _NESTED) and column.codec.bind is None:
            raise NotUnderstoodError(f"column {column.column.name} is given a list")
    return found


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
            for row in rows:
                values[row] = _call(column)
    if len(called) > 1:
        turns = sorted((row, turn) for turn, (_, _, rows) in enumerate(called) for row in rows)
        for row, turn in turns:
            column, values, _ = called[turn]
            values[row] = _call(column)


def _call(column: ColumnPlan) -> Any:
    return column.default() if column.default is not None else None


def _runs(
    by_presence: dict[tuple[Any, ...], list[int]], count: int
) -> list[tuple[tuple[Any, ...], list[int]]]:
    """Keep the rows' order: one may refer to another that comes before it."""
    presences: list[Any] = [None] * count
    for presence, rows in by_presence.items():
        for row in rows:
            presences[row] = presence
    runs: list[tuple[tuple[Any, ...], list[int]]] = []
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
