"""
Updates that come last, of relationships with `post_update`.

SQLAlchemy sends them at once, but for rows with a version where the driver does not count: those
go through the driver's pipeline here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Table

from .._sqlalchemy import (
    emit_post_update_statements,
    label,
    makes_version_there,
    postfetch_post_update,
)
from ..plans import FastPathUnsupportedError
from . import pipeline
from ._sqlalchemy import bound_context, compile_cached
from .results import check
from .seen import may_be_numbered
from .statements import SMALLEST, Target, refuse_onupdates, update_of

Command = tuple[Any, ...]


class PostUpdates:
    """The updates that come last, of one table."""

    def __init__(self, uow: Any, base_mapper: Any, mapper: Any, table: Table) -> None:
        self.uow = uow
        self.target = Target.of(base_mapper, mapper, table)

    def emit(self, commands: Iterable[Command]) -> None:
        """Update the rows that SQLAlchemy has collected."""
        for (connection, _), same in groupby(commands, lambda one: (one[3], set(one[4]))):
            run = list(same)
            try:
                self._refuse(connection, run)
                self._pipe(connection, run)
            except FastPathUnsupportedError:
                self._stock(run)

    def _stock(self, run: Sequence[Command]) -> None:
        target = self.target
        emit_post_update_statements(
            target.base_mapper, self.uow, target.mapper, target.table, iter(run)
        )

    def _refuse(self, connection: Any, run: Sequence[Command]) -> None:
        target = self.target
        if len(run) < SMALLEST or target.version is None:
            raise FastPathUnsupportedError("SQLAlchemy sends them at once")
        if connection.dialect.supports_sane_multi_rowcount:
            raise FastPathUnsupportedError("SQLAlchemy sends them at once")
        if makes_version_there(target.mapper) or label(target.version) not in run[0][4]:
            raise FastPathUnsupportedError("the server makes its versions, or a row has none")
        refuse_onupdates(target)
        may_be_numbered(connection, target.table)

    def _pipe(self, connection: Any, run: Sequence[Command]) -> None:
        target = self.target
        rows = [params for *_, params in run]
        statement = update_of(target, ())
        one = compile_cached(connection, statement, list(rows[0]), target.base_mapper)
        context = bound_context(connection, one, rows)
        sent = pipeline.send(connection, context, returning=False)
        result = SimpleNamespace(context=context)
        for (state, values, mapper, _, _), params in zip(
            run, context.compiled_parameters, strict=True
        ):
            postfetch_post_update(mapper, self.uow, target.table, state, values, result, params)
        check(target.table, sum(sent.matched), len(run))
