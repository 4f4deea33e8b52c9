"""What an update does to its objects, and the counts that SQLAlchemy checks."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from sqlalchemy.orm import exc as orm_exc

from .._sqlalchemy import postfetch
from ..plans import FastPathUnsupportedError
from ._sqlalchemy import result_processor
from .statements import Run, Target


class Written(NamedTuple):
    """What came of one row."""

    compiled: Any  # SQLAlchemy's own statement for it
    params: dict[str, Any]
    is_matched: bool
    returned: tuple[Any, ...] | None


def write_back(uow: Any, target: Target, run: Run, written: Sequence[Written]) -> None:
    """Leave the objects of a run as SQLAlchemy does, then check the count if it would."""
    for record, one in zip(run.records, written, strict=True):
        context = SimpleNamespace(compiled=one.compiled, isinsert=False)
        postfetch(
            record.mapper,
            uow,
            target.table,
            record.state,
            record.values,
            SimpleNamespace(context=context),
            one.params,
            record.expressions,
            True,  # is an update
            one.returned,
        )
    if run.is_checked:
        check(target.table, sum(one.is_matched for one in written), len(run.records))


def check(table: Any, matched: int, expected: int) -> None:
    """Raise what SQLAlchemy does when an update has not found its rows."""
    if matched != expected:
        raise orm_exc.StaleDataError(
            f"UPDATE statement on table '{table.description}' expected to update {expected} "
            f"row(s); {matched} were matched."
        )


def processors_of(columns: Sequence[Any], dialect: Any) -> list[Any]:
    """Return what makes Python's values of those that come back."""
    try:
        return [result_processor(column.type, dialect) for column in columns]
    except Exception as error:  # of a type that asks what the server calls its own
        raise FastPathUnsupportedError("a type needs to know how its value came") from error


def processed(row: Sequence[Any], processors: Sequence[Any]) -> tuple[Any, ...]:
    """Return a row as objects hold it."""
    return tuple(
        value if process is None else process(value)
        for value, process in zip(row, processors, strict=True)
    )
