"""
One-row statements in SQLAlchemy's order, in one trip: the driver's own pipeline.

The statements and their parameters are SQLAlchemy's. Order, locks, triggers, privileges and
timeouts are therefore as if it had sent them one by one; what is saved is the waiting. A driver
does not say of an `executemany` what each of its statements did, so asyncpg is asked to return
rows, each with its number, and psycopg to keep every result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.util.concurrency import await_only

from ._sqlalchemy import driver_cursor, execute_many, wrap_driver

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of the statements, row by row as they were sent."""

    matched: list[bool]
    returned: dict[int, Row]  # raw, of statements that return something


def send(connection: Any, context: Any, *, returning: bool) -> Sent:
    """Send the rows of a context, in their order."""
    count = len(context.parameters)
    if connection.dialect.driver == "asyncpg":
        fetching = wrap_driver(context.cursor, lambda driver: _Fetching(driver, returning))
        execute_many(connection, context, context.cursor)
        return _numbered(fetching.rows, count)
    keeping = _Keeping(context.cursor, driver_cursor(connection, context.cursor))
    execute_many(connection, context, keeping)
    return keeping.sent(count)


def _numbered(rows: Iterable[Sequence[Any]], count: int) -> Sent:
    returned = {int(row[-1]): tuple(row[:-1]) for row in rows}
    return Sent([number in returned for number in range(count)], returned)


class _Fetching:
    """asyncpg's connection, as one statement of SQLAlchemy's cursor sees it."""

    def __init__(self, driver: Any, returning: bool) -> None:
        self._driver = driver
        self._returning = returning
        self.rows: list[Any] = []

    async def executemany(self, operation: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each row, and keep what it returns with the row's number."""
        number = f"${len(rows[0]) + 1}::int4"
        # On a line of its own: somebody may have put a comment behind the statement.
        sql = f"{operation}\n{',' if self._returning else 'RETURNING'} {number}"
        numbered = [(*row, number) for number, row in enumerate(rows)]
        self.rows = await self._driver.fetchmany(sql, numbered)


class _Keeping:
    """A cursor of psycopg, SQLAlchemy's or its own, that keeps what every statement did."""

    description = None

    def __init__(self, cursor: Any, driver: Any) -> None:
        self._adapted = cursor
        self._driver = driver
        self._results: list[tuple[int, Sequence[Row]]] = []

    @property
    def rowcount(self) -> int:
        """How many rows were matched."""
        return sum(count for count, _ in self._results)

    def executemany(self, operation: str, rows: Sequence[Any]) -> None:
        """Run a statement for each row, and keep each result."""
        if self._driver is self._adapted:
            self._driver.executemany(operation, rows, returning=True)
            self._results = list(_results(self._driver))
        else:
            self._results = await_only(_run(self._driver, operation, rows))

    def sent(self, count: int) -> Sent:
        """Return what was kept."""
        if len(self._results) != count:
            raise AssertionError(f"{len(self._results)} results of {count} statements")
        matched = [bool(matched) for matched, _ in self._results]
        returned = {number: rows[0] for number, (_, rows) in enumerate(self._results) if rows}
        return Sent(matched, returned)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapted, name)


def _results(cursor: Any) -> Iterable[tuple[int, Sequence[Row]]]:
    while True:
        yield cursor.rowcount, cursor.fetchall() if cursor.description else ()
        if not cursor.nextset():
            return


async def _run(cursor: Any, operation: str, rows: Sequence[Any]) -> list[tuple[int, Sequence[Row]]]:
    await cursor.executemany(operation, rows, returning=True)
    results = []
    while True:
        found = await cursor.fetchall() if cursor.description else ()
        results.append((cursor.rowcount, found))
        if not cursor.nextset():
            return results
