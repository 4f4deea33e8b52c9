"""
A job tried on rows of the database, each chunk in a transaction that is rolled back.

Everything is as in a run, the fence, the checks and what is deferred to COMMIT included, but for
the COMMIT: chunk by chunk, so that later ones do not see what earlier ones would have written. The
run and its partition are there within these transactions alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, cast, func, literal, or_, text
from sqlalchemy.exc import DBAPIError

from ..concurrency.stop import Stop
from ..errors import ConfigurationError, JobError
from .checks import Examined
from .chunks import ClaimedPartition
from .definition import Arguments
from .fence import Advance, Counts, dry_fence
from .guard import Guard
from .keyset import Keyset, encode
from .outcomes import Retry, ends_told
from .reader import keys_reader, raise_denied
from .run import JobSession
from .worker import Worker, WorkerGroup, in_words

_MOST = 0x7FFF_FFFF
_PARTS = 1_000_000  # that a sample's share is counted in


@dataclass(frozen=True, slots=True)
class Selection:
    """
    Which of a job's rows are tried: all of what is said must hold.

    `only`: keys, each a value or, of a key of several columns, a list of values. `where`: a
    condition in SQL. `sample`: a share of the keys, the same ones each time. `limit`: so many
    rows, of the lowest keys.
    """

    only: Sequence[Any] = ()
    where: str = ""
    limit: int | None = None
    sample: float | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError("limit is a number of rows, 1 or more")
        if self.sample is not None and not 0 < self.sample <= 1:
            raise ConfigurationError("sample is a share above 0 and up to 1, as 0.01")

    @property
    def is_of_all(self) -> bool:
        """Whether there is no condition."""
        return not self.only and not self.where and self.sample is None

    def conditions(self, keyset: Keyset) -> list[ColumnElement[bool]]:
        """Return what holds of the rows of a keyset, but for the limit."""
        found: list[Any] = []
        if self.only:
            found.append(or_(*(keyset.is_at(key) for key in map(self._key(keyset), self.only))))
        if self.where:
            found.append(text(f"({self.where}\n)".replace(":", "\\:")))
        if self.sample is not None:
            found.append(_is_in_sample(keyset, self.sample))
        return found

    def _key(self, keyset: Keyset) -> Any:
        def key(given: Any) -> str:
            values = list(given) if isinstance(given, list | tuple) else [given]
            if len(values) != len(keyset.columns):
                raise ConfigurationError(
                    f"a key is ({keyset.names}), and {given!r} has {len(values)} values of it"
                )
            if keyset.ordering.on_sqlite:
                return encode([_number(value) for value in values])
            return encode([str(value) for value in values])

        return key


def _number(value: Any) -> Any:
    with suppress(ValueError, TypeError):
        return int(value)
    return value


def _is_in_sample(keyset: Keyset, share: float) -> ColumnElement[bool]:
    if keyset.ordering.on_sqlite:
        raise ConfigurationError("a sample is of PostgreSQL's rows: say limit, or a condition")
    whole = cast(func.row(*keyset.elements), Text)
    number = func.hashtextextended(whole, literal(0)).op("&")(literal(_MOST))
    return (number % _PARTS) < round(share * _PARTS)


@dataclass(slots=True)
class DryRun:
    """
    What a run would do to the rows that were tried.

    `selected`: rows that there are of them. `stopped_at`: why a run would stop there; its rows up
    to that are counted. `failed`: rows that would go to the error table, with their errors.
    `without`: what was not called.
    """

    job: str
    arguments: Arguments
    selected: int = 0
    rows_read: int = 0
    rows_written: int = 0
    rows_prepared: int = 0
    chunks: int = 0
    busy_seconds: float = 0.0
    slowest_chunk: float = 0.0
    failed: list[tuple[str, str]] = field(default_factory=list)
    stopped_at: str | None = None
    interrupted: bool = False
    without: tuple[str, ...] = ()

    def add(self, counts: Counts, seconds: float) -> None:
        """Count a chunk."""
        self.chunks += 1
        self.rows_read += counts.read
        self.rows_written += counts.written
        self.rows_prepared += counts.prepared
        self.busy_seconds += seconds
        self.slowest_chunk = max(self.slowest_chunk, seconds)


class WouldStopError(JobError):
    """A run would stop here."""


class _Tried(ClaimedPartition):
    """A range whose chunks are counted as they are passed."""

    report: DryRun

    def passed(self, by: Advance, busy: float = 0.0) -> None:
        """Count, and go on; raises `JobError` where something is committed all the same."""
        if self.elsewhere:
            raise JobError(
                "something was committed on another connection while apply ran, which a dry run "
                "cannot roll back: write with the session that apply is given"
            )
        self.report.add(by.counts, busy)
        ClaimedPartition.passed(self, by, busy)


class _DryWorker(Worker):
    """Goes through chunks as a worker does, and writes down nothing."""

    def __init__(self, group: WorkerGroup, report: DryRun) -> None:
        super().__init__(group)
        self._report = report

    async def go_through(self, upper: str | None) -> None:
        """Try the chunks up to a key; all of them, in one transaction, for a job of one."""
        claimed = _Tried(0, upper, None, 0, done=False)
        claimed.report = self._report
        if self._chunks.keyset is None:
            claimed.ends.append(None)
        await self._drain(claimed)
        self._report.interrupted = not claimed.done

    async def _settle(self, claimed: ClaimedPartition, retry: Retry) -> None:
        """Try again: nothing is ever committed."""
        self._check_elsewhere(claimed, retry)
        await self._party.clock.sleep(self._patience.next_pause(retry.__cause__ or retry))
        claimed.retried += 1

    async def _skip(self, claimed: ClaimedPartition, ahead: str | None, cause: Exception) -> None:
        """Note the row, and whether a run would stop at it."""
        key, keyset = claimed.ends[-1], self._chunks.keyset
        assert key is not None
        assert keyset is not None
        row, told = keyset.describe(key), in_words(cause)
        if len(self._report.failed) >= self._chunks.definition.skip_limit:
            raise WouldStopError(f"the row {row}: {told}") from cause
        self._report.failed.append((row, told))
        claimed.passed(self._chunks.advance_of(claimed, ahead, Counts(skipped=1)))


async def try_out(
    part: JobSession, arguments: Arguments, selection: Selection, stop: Stop, *, prepare: bool
) -> DryRun:
    """Try a job's rows, in their order; raises what a run would raise for no row."""
    part, examined = await _selected(part, arguments, selection)
    definition, keyset = part.definition, examined.keyset
    report = DryRun(definition.name, dict(arguments))
    upper = None
    if keyset is not None:
        found = await part.first_plan(keyset)
        report.selected, upper = found.total, found.uppers[-1] if found.uppers else None
        if upper is None:
            return report
        if selection.limit is not None and selection.limit < found.total:
            report.selected, upper = selection.limit, await _nth(part, keyset, selection.limit)
    calls_apply = definition.preparing is None or prepare
    report.without = _not_called(part, calls_apply=calls_apply)
    number = -random.SystemRandom().randint(1, _MOST)
    chunks = replace(
        part.chunks_of(number, 0, examined, arguments),
        dry_fence=dry_fence(part.store.tables), calls_apply=calls_apply,
    )  # fmt: skip
    if not calls_apply:
        chunks = replace(chunks, preparer=None)
    guard = Guard(part.store, number, tasks=1, lease=definition.lease, heard=lambda: None)
    group = WorkerGroup(chunks, guard, part.reader, stop, part.clock)
    try:
        with ends_told():
            await _DryWorker(group, report).go_through(upper)
    except WouldStopError as error:
        report.stopped_at = str(error)
    except DBAPIError as error:
        raise_denied(error, part.reader.engine.url)
        raise
    return report


async def _selected(
    part: JobSession, arguments: Arguments, selection: Selection
) -> tuple[JobSession, Examined]:
    """Return a part whose job reads these rows alone, and what it is in this database."""
    examined = await part.examine(arguments)
    keyset = examined.keyset
    if keyset is None:
        if not selection.is_of_all or selection.limit is not None:
            raise ConfigurationError(f"{part.definition.name} reads no rows to select from")
        return part, examined
    if selection.is_of_all:
        return part, examined
    conditions = selection.conditions(keyset)
    own = part.definition.select_of(arguments)
    select: Select[Any] = own.where(*conditions)
    part = replace(part, definition=replace(part.definition, select=select))
    try:
        return part, await part.examine(arguments)
    except ConfigurationError as error:
        raise ConfigurationError(f"with the rows that are selected: {error}") from error


async def _nth(part: JobSession, keyset: Keyset, limit: int) -> str:
    read = keys_reader(part.reader, part.sessions, keyset)
    return encode((await read(keyset.every(limit, 1, None, None)))[0])


def _not_called(part: JobSession, *, calls_apply: bool) -> tuple[str, ...]:
    missing = ["setup"] if part.definition.setup is not None else []
    return (*missing, *(() if calls_apply else ("prepare", "apply")))
