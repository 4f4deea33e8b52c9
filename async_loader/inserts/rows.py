"""
From objects to columns: what SQLAlchemy's `_collect_insert_commands` decides value by value,
decided here column by column.

    attributes -> RowBatch (collect) -> defaults called, values bound (calls.py) -> Groups

Rows whose inserts name the same columns form a group, which becomes one statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy.sql import ClauseElement

from .expressions import Expression, Template, understood
from .names import Names
from .plans import ColumnPlan, FastPathUnsupportedError, Role, TablePlan

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
    columns: list[tuple[ColumnPlan, Values]]  # as the driver takes them
    computed: list[tuple[ColumnPlan, Template, list[Values]]]

    @property
    def arrays(self) -> list[Values]:
        """The parameters, column by column."""
        arrays = [values for _, values in self.columns]
        for _, _, given in self.computed:
            arrays += given
        return arrays


@dataclass(slots=True, eq=False)
class Default:
    """A column whose Python default is called in some of the rows."""

    column: ColumnPlan
    values: Values
    rows: list[int]

    def was_called(self, row: int) -> bool:
        """Tell whether a row has its default by now."""
        value = self.values[row]
        return value is not None and value is not _MISSING


@dataclass(slots=True, eq=False)
class RowBatch:
    """The values of all rows of one table."""

    count: int
    whole: list[tuple[ColumnPlan, Values]] = field(default_factory=list)
    partial: list[tuple[ColumnPlan, Values, list[bool]]] = field(default_factory=list)
    defaults: list[Default] = field(default_factory=list)
    absent: set[ColumnPlan] = field(default_factory=set)  # without a value in any row
    computed: list[tuple[ColumnPlan, dict[int, Expression]]] = field(default_factory=list)
    drawn: dict[ColumnPlan, dict[int, Any]] = field(default_factory=dict)  # raw keys, by row
    bound: dict[ColumnPlan, Values] = field(default_factory=dict)  # as the driver takes them

    def rows_lacking(self, column: ColumnPlan) -> Sequence[int]:
        """Return the rows that have no value of a column that may be absent."""
        if column in self.absent:
            return range(self.count)
        for other, _, present in self.partial:
            if other is column:
                return [row for row, has in enumerate(present) if not has]
        return []

    def fill(self, column: ColumnPlan, rows: Sequence[int], keys: Values, raw: Values) -> None:
        """Give a column its values in the rows that lack them."""
        self.drawn[column] = dict(zip(rows, raw, strict=True))
        if column in self.absent:
            self.absent.discard(column)
            self.whole.append((column, keys))
            return
        for index, (other, values, _) in enumerate(self.partial):
            if other is column:
                for row, value in zip(rows, keys, strict=True):
                    values[row] = value
                del self.partial[index]
                self.whole.append((column, values))
                return

    def value_columns(self) -> list[tuple[ColumnPlan, Values, Sequence[int]]]:
        """Return the columns with values and the rows that have one, expressions aside."""
        every: Sequence[int] = range(self.count)
        found: list[tuple[ColumnPlan, Values, Sequence[int]]] = []
        skipped = dict(self.computed)
        for column, values in self.whole:
            without = skipped.get(column)
            rows = [row for row in every if row not in without] if without else every
            found.append((column, values, rows))
        for column, values, present in self.partial:
            without = skipped.get(column, {})
            rows = [row for row, has in enumerate(present) if has and row not in without]
            found.append((column, values, rows))
        return found

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
        """Return the groups in the order of their first rows; in the rows' own if need be."""
        masks = self._masks()
        if not masks:
            columns = [(column, self.bound[column]) for column, _ in self.whole]
            return [Group(range(self.count), columns, [])]
        by_pattern: dict[tuple[Any, ...], list[int]] = {}
        for row, pattern in enumerate(zip(*masks, strict=True)):
            by_pattern.setdefault(pattern, []).append(row)
        runs = _runs(by_pattern, self.count) if keep_order else list(by_pattern.items())
        return [self._group(pattern, rows) for pattern, rows in runs]

    def _group(self, pattern: tuple[Any, ...], rows: list[int]) -> Group:
        computed: list[tuple[ColumnPlan, Template, list[Values]]] = []
        for (column, by_row), template in zip(
            self.computed, pattern[len(self.partial) :], strict=True
        ):
            if template is not None:
                given = zip(*(by_row[row].values for row in rows), strict=True)
                computed.append((column, template, _bound_template(template, given)))
        skipped = {column for column, _, _ in computed}
        present = [column for column, _ in self.whole]
        present += [
            column for (column, _, _), has in zip(self.partial, pattern, strict=False) if has
        ]
        columns = []
        for column in present:
            if column not in skipped:
                values = self.bound[column]
                columns.append((column, [values[row] for row in rows]))
        return Group(rows, columns, computed)


def _bound_template(template: Template, given: Any) -> list[Values]:
    return [
        list(values) if codec.bind is None else list(map(codec.bind, values))
        for codec, values in zip(template.codecs, given, strict=True)
    ]


def collect(plan: TablePlan, dicts: Sequence[dict[str, Any]], names: Names) -> RowBatch:
    """Return the values of the objects whose attributes these are.

    Raises FastPathUnsupportedError for values that only SQLAlchemy can send.
    """
    batch = RowBatch(len(dicts))
    for column in plan.columns:
        values = _values(column, dicts)
        expressions = _expressions(column, values, names)
        if expressions:
            batch.computed.append((column, expressions))
        role = column.role
        if role is Role.ABSENT:
            present = _presence(column, values)
            if present is True:
                batch.whole.append((column, values))
            elif present is False:
                batch.absent.add(column)
            else:
                batch.partial.append((column, values, present))
            continue
        if role is not Role.NONE:
            rows = _defaulted_rows(column, values)
            if rows:
                batch.defaults.append(Default(column, values, rows))
        batch.whole.append((column, values))
    return batch


def _values(column: ColumnPlan, dicts: Sequence[dict[str, Any]]) -> Values:
    key = column.key
    if key is None or column.role is Role.VERSION:
        return [None] * len(dicts)
    if column.evaluates_none:
        return [values.get(key, _MISSING) for values in dicts]
    return [values.get(key) for values in dicts]


def _expressions(column: ColumnPlan, values: Values, names: Names) -> dict[int, Expression] | None:
    """Return the SQL expressions among the values, by row; refuse what has no column."""
    if _PLAIN.issuperset(map(type, values)):
        return None
    unknown = set(map(type, values)) - _PLAIN
    found: dict[int, Expression] = {}
    for row, value in enumerate(values):
        if type(value) not in unknown:
            continue
        if isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"):
            expression = None if column.column.primary_key else understood(value, names)
            if expression is None:
                raise FastPathUnsupportedError(
                    f"column {column.column.name} is given a SQL expression"
                )
            found[row] = expression
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
