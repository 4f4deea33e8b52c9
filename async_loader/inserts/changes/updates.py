"""
The updates of one table: `_emit_update_statements` of SQLAlchemy, in fewer trips.

A run that SQLAlchemy sends row by row goes through the driver's pipeline. Where there are many
runs, because neighbours set different columns, the rows of each set go in one statement with
arrays, if nobody can see in which order they are updated. All else is left to SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from sqlalchemy import Table

from .._sqlalchemy import emit_update_statements
from ..execute import NotSentError
from ..plans import FastPathUnsupportedError
from . import pipeline
from ._sqlalchemy import bound_context, compile_cached, is_expanded, returned_by
from .arrays import Arrays, groups_of, refuse_order
from .results import Written, processed, processors_of, write_back
from .seen import may_be_numbered
from .statements import (
    SMALLEST,
    Record,
    Run,
    Target,
    made_by_python,
    refuse_onupdates,
    refuse_rows,
    runs_of,
    update_of,
)

_WORTHWHILE = 3  # times fewer trips; else the order stays SQLAlchemy's


class Updates:
    """The updates of one flush into one table."""

    def __init__(self, uow: Any, base_mapper: Any, mapper: Any, table: Table) -> None:
        self.uow = uow
        self.target = Target.of(base_mapper, mapper, table)

    def emit(self, commands: Iterable[Any]) -> None:
        """Update the rows that SQLAlchemy has collected."""
        records = [Record(*command) for command in commands]
        if not records:
            return
        if len(records) < SMALLEST:
            self._stock(records)
            return
        runs = runs_of(self.target, records)
        try:
            refuse_rows(self.target, records)
            refuse_onupdates(self.target)
        except FastPathUnsupportedError:
            self._stock(records)
            return
        if not self._by_arrays(runs):
            for run in runs:
                self._emit_run(run)

    def _emit_run(self, run: Run) -> None:
        try:
            self._pipe(run)
        except FastPathUnsupportedError:
            self._stock(run.records)

    def _by_arrays(self, runs: Sequence[Run]) -> bool:
        """Update all rows by arrays, if that takes far fewer trips and nobody can tell."""
        trips = sum(1 if len(run.records) >= SMALLEST else run.trips for run in runs)
        kinds = {(frozenset(run.first.params), run.returned) for run in runs}
        if len(kinds) * _WORTHWHILE > trips:
            return False
        try:
            refuse_order(self.target, runs)
            groups = groups_of(self.target, runs)
            if len(groups) * _WORTHWHILE > trips:
                return False
            arrays = Arrays(self.target, groups)
        except FastPathUnsupportedError:
            return False
        try:
            arrays.send()
        except NotSentError:  # the driver takes a value by itself, or SQLAlchemy has its error
            rows = chain.from_iterable(run.records for run in runs)
            self._stock([one for row, one in enumerate(rows) if row not in arrays.written])
        self._write_back(runs, arrays.written)
        return True

    def _write_back(self, runs: Sequence[Run], written: dict[int, Written]) -> None:
        first = 0
        for run in runs:
            rows = [row for row in range(first, first + len(run.records)) if row in written]
            done = replace(run, records=[run.records[row - first] for row in rows])
            write_back(self.uow, self.target, done, [written[row] for row in rows])
            first += len(run.records)

    def _stock(self, records: Sequence[Record]) -> None:
        target = self.target
        emit_update_statements(
            target.base_mapper, self.uow, target.mapper, target.table, iter(records)
        )

    def _pipe(self, run: Run) -> None:
        """Send a run's own statements in one trip; refuse it if that is what SQLAlchemy does."""
        if len(run.records) < SMALLEST:
            raise FastPathUnsupportedError("few rows")
        if run.at_once and not made_by_python(self.target, run.first):
            raise FastPathUnsupportedError("SQLAlchemy sends them at once")
        connection = run.first.connection
        processors = processors_of(run.returned, connection.dialect)
        may_be_numbered(connection, self.target.table)
        context = self._context(run)
        sent = pipeline.send(connection, context, returning=bool(run.returned))
        written: list[Written] = []
        for number, params in enumerate(context.compiled_parameters):
            row = sent.returned.get(number) if run.returned else None
            back = None if row is None else processed(row, processors)
            written.append(Written(context.compiled, params, sent.matched[number], back))
        write_back(self.uow, self.target, run, written)

    def _context(self, run: Run) -> Any:
        """Return SQLAlchemy's context of all rows of a run; refuse before anything is bound."""
        connection, mapper = run.first.connection, self.target.base_mapper
        statement = update_of(self.target, run.returned)
        keys = list(run.first.params)
        if not run.first.expressions:
            compiled = [compile_cached(connection, statement, keys, mapper)]
        else:
            compiled = [
                compile_cached(connection, statement.values(record.expressions), keys, mapper)
                for record in run.records
            ]
        first = compiled[0].compiled
        if any(one.compiled is not first for one in compiled) or is_expanded(first):
            raise FastPathUnsupportedError("expressions of several kinds")
        if tuple(returned_by(first)) != run.returned:
            raise FastPathUnsupportedError("something else comes back")
        if not run.first.expressions:
            rows = [record.params for record in run.records]
            return bound_context(connection, compiled[0], rows)
        contexts = [
            bound_context(connection, one, [record.params])
            for one, record in zip(compiled, run.records, strict=True)
        ]
        context = contexts[0]
        context.parameters = [one.parameters[0] for one in contexts]
        context.compiled_parameters = [one.compiled_parameters[0] for one in contexts]
        return context
