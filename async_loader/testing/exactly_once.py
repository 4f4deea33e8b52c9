"""
A user's own job, cut off at each boundary of its commits: what comes out has to be the same.

What is looked at are the tables of the default schema, before and behind the job. Of rows that
were there before, each column is compared; of new ones all but what sequences number, which no
transaction takes back. What differs between two runs that nobody disturbs says nothing.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, get_args

from sqlalchemy import Column, Connection, MetaData, Table, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import ConfigurationError, JobError
from ..jobs import BatchJob, JobStatus, cancel
from ..jobs.checkpoints import Place
from ..jobs.connections import engine_of
from ..jobs.definition import Sessions
from ..jobs.states import SCHEMA
from .interrupts import Interrupted, interrupt_after

_MOST_CHUNKS = 100
Fill = Callable[[], Awaitable[object]]


class NotExactlyOnceError(AssertionError):
    """A job that was cut off and run again has done something else than one that was not."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A table's rows as text, each by its primary key; `generated`: what sequences number."""

    by_key: Mapping[tuple[str, ...], Mapping[str, str]]
    generated: frozenset[str]


Snapshot = Mapping[str, Rows]


async def assert_exactly_once(
    job: BatchJob,
    sessions: Sessions,
    *,
    fill: Fill,
    arguments: Mapping[str, str] | None = None,
    chunk: int = 5,
    ignore: Collection[str] = (),
) -> int:
    """
    Cut a job off at each boundary of its commits, run it to its end, and compare the tables.

    `fill` puts the tables, a few dozen rows, into the state before the job, each time it is
    called. The job goes in chunks of `chunk` rows, without its throttles. At each chunk it is cut
    off before its commit and behind it, once more when it goes on, and then runs to its end.
    `ignore`: columns that may differ, as "table.column". Returns how often it was cut off.

    Raises `NotExactlyOnceError`, an AssertionError, for the first difference from the job that
    nobody disturbs; `JobError` where the job itself fails. Not for a database that others use.
    """
    trial = _Trial(_made_small(job, chunk), sessions, fill, dict(arguments or {}))
    await trial.forget()
    before, first, status = await trial.undisturbed()
    _, second, _ = await trial.undisturbed()
    if status.state != "done" or not status.chunks:
        raise ConfigurationError(f"{job.name} reads no rows of what fill has made")
    if status.chunks > _MOST_CHUNKS:
        raise ConfigurationError(
            f"{job.name} takes {status.chunks} chunks of {chunk} rows, each of which is cut off: "
            f"let fill make fewer, for {_MOST_CHUNKS} chunks at most"
        )
    unsure = {*ignore, *_differing(before, first, second)}
    cuts = 0
    for number in range(status.chunks):
        for place in get_args(Place):
            after = await trial.cut_off(number, place)
            cuts += 1
            where = f"cut off {place} of chunk {number + 1} and run again"
            _compare(f"{job.name}, {where}", before, first, after, unsure)
    return cuts


@dataclass(frozen=True, slots=True)
class _Trial:
    job: BatchJob
    sessions: Sessions
    fill: Fill
    arguments: Mapping[str, str]

    async def forget(self) -> None:
        """Give up what an earlier call has left behind."""
        engine = await engine_of(self.sessions)
        with suppress(JobError):  # there is none
            await cancel(engine, self.job.name, self.arguments)

    async def undisturbed(self) -> tuple[Snapshot, Snapshot, JobStatus]:
        """Return the tables before and behind the job, and how it went."""
        await self.fill()
        before = await self._look()
        status = await self._run()
        return before, await self._look(), status

    async def cut_off(self, number: int, place: Place) -> Snapshot:
        """Return the tables behind a job that was cut off at a chunk, and when it went on."""
        await self.fill()
        for chunks in (number, 0):
            with suppress(Interrupted), interrupt_after(chunks, place):
                await self._run()
                return await self._look()  # there was no chunk any more
        await self._run()
        return await self._look()

    async def _run(self) -> JobStatus:
        return await self.job.run(self.sessions, arguments=self.arguments)

    async def _look(self) -> Snapshot:
        engine: AsyncEngine = await engine_of(self.sessions)
        async with engine.connect() as connection:
            return await connection.run_sync(_snapshot)


def _made_small(job: BatchJob, chunk: int) -> BatchJob:
    small = copy.copy(job)
    small.definition = replace(job.definition, chunk=chunk, partitions=2, throttles=())
    return small


def _snapshot(connection: Connection) -> Snapshot:
    metadata = MetaData()
    metadata.reflect(connection)
    tables = [t for t in metadata.sorted_tables if not t.name.startswith(f"{SCHEMA}_")]
    return {table.name: _rows(connection, table) for table in tables}


def _rows(connection: Connection, table: Table) -> Rows:
    keys = [column.name for column in table.primary_key] or [column.name for column in table.c]
    found = {}
    for row in connection.execute(select(table)).mappings():
        texts = {column.name: repr(row[column.name]) for column in table.c}
        key = [texts[name] for name in keys]
        while tuple(key) in found:  # without a primary key rows may be alike
            key.append("again")
        found[tuple(key)] = texts
    generated = frozenset(c.name for c in table.c if _is_generated(c))
    return Rows(found, generated)


def _is_generated(column: Column[Any]) -> bool:
    """Return whether a sequence numbers a column, or one that it refers to."""
    return any(map(_is_numbered, (column, *(key.column for key in column.foreign_keys))))


def _is_numbered(column: Column[Any]) -> bool:
    default = str(getattr(column.server_default, "arg", ""))
    own = column is column.table.autoincrement_column
    return own or column.identity is not None or "nextval(" in default


def _differing(before: Snapshot, one: Snapshot, other: Snapshot) -> Iterator[str]:
    """Yield the columns in which two snapshots differ."""
    for name in one.keys() & other.keys():
        here, there = one[name].by_key, other[name].by_key
        known = before[name].by_key if name in before else {}
        columns = {column for rows in (here, there) for row in rows.values() for column in row}
        for column in sorted(columns):
            same = all(
                here[key].get(column) == there[key].get(column)
                for key in known.keys() & here.keys() & there.keys()
            )
            new = (Counter(row[column] for key, row in rows.items() if key not in known)
                   for rows in (here, there))  # fmt: skip
            if not same or next(new) != next(new):
                yield f"{name}.{column}"


def _compare(
    what: str, before: Snapshot, wanted: Snapshot, found: Snapshot, ignored: Collection[str]
) -> None:
    """Raise `NotExactlyOnceError` for the first difference."""
    for name in sorted(wanted.keys() | found.keys()):
        if name not in wanted or name not in found:
            raise NotExactlyOnceError(f"{what}: the table {name} is there in one of the two only")
        known = before[name].by_key if name in before else {}
        here, there = wanted[name].by_key, found[name].by_key
        for key in known:
            row = f"{what}: {name} {', '.join(key)}"
            _compare_row(row, name, here.get(key), there.get(key), ignored)
        left_out = {*ignored, *(f"{name}.{column}" for column in wanted[name].generated)}
        new = [Counter(_shown(name, row, left_out) for key, row in rows.items() if key not in known)
               for rows in (here, there)]  # fmt: skip
        for row in (new[1] - new[0]) + (new[0] - new[1]):
            raise NotExactlyOnceError(
                f"{what}: {name} has {new[1][row]} new rows ({row}), and undisturbed {new[0][row]}"
            )


def _compare_row(
    what: str,
    table: str,
    wanted: Mapping[str, str] | None,
    found: Mapping[str, str] | None,
    ignored: Collection[str],
) -> None:
    if wanted is None or found is None:
        if (wanted is None) != (found is None):
            raise NotExactlyOnceError(f"{what} is there in one of the two only")
        return
    for column, value in wanted.items():
        if f"{table}.{column}" not in ignored and found.get(column) != value:
            raise NotExactlyOnceError(
                f"{what}: {column} is {found.get(column)}, and undisturbed {value}"
            )


def _shown(table: str, row: Mapping[str, str], left_out: Collection[str]) -> str:
    return ", ".join(f"{c}={v}" for c, v in row.items() if f"{table}.{c}" not in left_out)
