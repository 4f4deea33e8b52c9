"""
Slow work on a chunk's rows before its transaction: a call a row, several at once.

    read the range, with each row's version      a transaction that ends before the first call
    prepare(row, context), some at a time        no lock, no snapshot, no connection
    lock the range's rows, compare versions      in the chunk's transaction
      all as they were: apply(session, rows, prepared)
      one is not: rolled back; prepared again, or it fails (`prepare_changed`)

What was prepared is kept with its row's version for as long as the chunk is tried: cut smaller, or
tried again behind the server's trouble, no row is prepared twice that has not changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..concurrency.clock import SECOND_NS
from ..database.sqlalchemy_private import without_lock
from ..errors import JobError
from .checks import Examined
from .connections import begin
from .definition import Arguments, Definition, Sessions, canonical
from .keyset import Keyset, Page
from .outcomes import ApplyFailed, EndRaisedError, ends_told
from .prepare_policy import PrepareContext, PreparePolicy
from .reader import Reader
from .rows import our_settings, read_with_versions

Versioned = Mapping[str, tuple[str, Any]]
"""By its key, as it is kept, each row with its version."""
FailedBefore = Callable[[Sequence[str]], Awaitable[set[str]]]

# A row that was changed each time it was prepared so often is one that cannot be.
_TRIES = 10
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0


class RowChangedError(JobError):
    """A row was changed by somebody else while it was prepared."""


class RowFailed(ApplyFailed):
    """Prepare raised for a row, or what it returned is of no use; the error is the cause."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class PrepareAgain(Exception):  # noqa: N818  not an error: it is done again
    """Rows are not what was prepared; the chunk is rolled back."""


@dataclass(slots=True)
class Outcome:
    """What came of a row: a value, or an error; `final`: whatever its version is by now."""

    version: str
    times: int = 0
    value: Any = None
    error: Exception | None = None
    final: bool = False


@dataclass(slots=True)
class Prepared:
    """The outcomes of a partition's rows, until their chunk is passed; `new`: not counted yet."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    new: int = 0

    def passed(self, *, all_of_them: bool) -> None:
        """Forget what is counted, and the rows unless some of their range are to come."""
        self.new = 0
        if all_of_them:
            self.outcomes.clear()

    def values(self, rows: Versioned, policy: PreparePolicy) -> Sequence[Any]:
        """
        Return the values of rows as they are now, locked.

        Raises `PrepareAgain` where one is not as it was prepared, or `RowFailed` for it.
        """
        again = False
        for key, (version, _) in rows.items():
            found = self.outcomes.get(key)
            if found is not None and found.version != version:
                self._check_tries(key, found, policy)
            again = again or found is None or found.version != version
        if again:
            raise PrepareAgain
        return [self.outcomes[key].value for key in rows]

    def raise_failure(self, keys: Iterable[str]) -> None:
        """Raise `RowFailed` for the first of these rows that has failed."""
        for key in keys:
            found = self.outcomes.get(key)
            if found is not None and found.error is not None:
                raise RowFailed(key) from found.error

    def _check_tries(self, key: str, found: Outcome, policy: PreparePolicy) -> None:
        if policy.changed == "skip" or found.times >= _TRIES:
            times = f"{found.times} times" if found.times > 1 else "once"
            found.error = RowChangedError(f"changed while it was prepared {times}")
            found.final = True
            raise RowFailed(key) from found.error


@dataclass(slots=True)
class Preparer:
    """
    Prepares the rows of one run, for all tasks of this process: they share its rate.

    `work`: what the job, its arguments and tables are, which the key of each row begins with.
    """

    policy: PreparePolicy
    keyset: Keyset
    sessions: Sessions
    reader: Reader
    work: Sequence[str]
    arguments: Mapping[str, str]
    _next_call_ns: int = 0

    async def prepare(
        self, page: Page, known: Prepared, failed_before: FailedBefore | None = None
    ) -> None:
        """
        Prepare the rows of a page that are not prepared as they are now.

        `failed_before`: which of them are left out. Raises `RowFailed` for the first row that
        has failed; none behind it was begun.
        """
        rows = await self.reader.retry_transient(lambda: self._read(page))
        if failed_before is not None and rows:
            for key in await self.reader.retry_transient(lambda: failed_before(list(rows))):
                rows.pop(key)
        todo = [(k, v, r) for k, (v, r) in rows.items() if not _is_known(known, k, v)]
        again = {key for key, _, _ in todo}
        known.raise_failure(key for key in rows if key not in again)
        await self._prepare_each(todo, known)
        known.raise_failure(rows)

    async def _read(self, page: Page) -> dict[str, tuple[str, Any]]:
        """Return the rows of a page, which belong to no session."""
        select, values = page
        async with self.sessions() as session:
            await begin(session)
            async with our_settings(session, self.keyset):
                found = await read_with_versions(
                    session, self.keyset, (without_lock(select), values)
                )
            session.expunge_all()
            await session.rollback()
            return found

    async def _prepare_each(self, todo: Sequence[tuple[str, str, Any]], known: Prepared) -> None:
        """Call prepare for rows in their order, so many at once; behind a failure for no more."""
        rows, failed = iter(todo), False

        async def work(rows: Iterator[tuple[str, str, Any]]) -> None:
            nonlocal failed
            for key, version, row in rows:
                outcome = await self._outcome(key, version, row)
                before = known.outcomes.get(key)
                outcome.times = 1 if before is None else before.times + 1
                known.outcomes[key] = outcome
                known.new += outcome.error is None
                failed = failed or outcome.error is not None
                if failed:
                    return

        at_once = min(self.policy.concurrency, len(todo))
        tasks = [asyncio.create_task(work(rows)) for _ in range(at_once)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _outcome(self, key: str, version: str, row: Any) -> Outcome:
        """Prepare one row, again as often as its errors are worth it."""
        function, attempt, pause = self.policy.function, 0, _FIRST_PAUSE
        assert function is not None
        name = self._name(key, version)
        while True:
            attempt += 1
            await self.await_turn()
            try:
                with ends_told("prepare"):
                    value = await function(row, PrepareContext(name, attempt, self.arguments))
            except EndRaisedError:
                raise
            except Exception as error:
                if attempt > self.policy.retries_of(error):
                    return Outcome(version, error=error)
            else:
                return Outcome(version, value=value)
            await self.reader.sleep(random.uniform(0, pause))  # noqa: S311  no secret
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def await_turn(self) -> None:
        """Wait for the next call that the rate lets in."""
        if math.isinf(self.policy.rate):
            return
        now = self.reader.clock.now_ns()
        turn = max(now, self._next_call_ns)
        self._next_call_ns = turn + round(SECOND_NS / self.policy.rate)
        await self.reader.sleep((turn - now) / SECOND_NS)

    def _name(self, key: str, version: str) -> str:
        """Return the name of a row's version, the same for whoever prepares it when."""
        named = json.dumps([*self.work, key, version])
        return hashlib.sha256(named.encode(errors="surrogatepass")).hexdigest()[:40]


def preparer_of(
    definition: Definition,
    examined: Examined,
    arguments: Arguments,
    sessions: Sessions,
    reader: Reader,
) -> Preparer | None:
    """Return what prepares a run's rows; None for a job that prepares none."""
    if definition.preparing is None:
        return None
    assert examined.keyset is not None
    work = [definition.name, canonical(arguments), examined.target.name]
    return Preparer(definition.preparing, examined.keyset, sessions, reader, work, dict(arguments))


def _is_known(known: Prepared, key: str, version: str) -> bool:
    found = known.outcomes.get(key)
    return found is not None and (found.final or found.version == version)
