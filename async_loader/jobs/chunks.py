"""
One chunk, one transaction: enter the fence, read the rows, apply, leave the fence, commit.

Entering locks the partition's row and checks that it is still ours and the chunk number the
next; leaving moves its cursor and counters (fence.py). In between nobody ends the transaction
(transaction.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from ..errors import ConfigurationError
from .applying import Fenced
from .definition import Apply, Chunk, Definition, Sessions
from .fence import Advance, Counts, Fence, values_of
from .keyset import Keyset, encode
from .moves import KeyWatch
from .preparing import Prepared, Preparer
from .rows import check_objects, our_settings, read_rows, read_with_versions
from .store import Store
from .transaction import ChunkTransaction


@dataclass(slots=True)
class ClaimedPartition:
    """
    A partition that we work on.

    `ends` are the ends of the chunks to come, the next one last: one as a rule, several while
    a failing chunk is cut into smaller ones. `untold` are busy seconds that the next chunk
    writes down: those of the last commit. `applied` and `elsewhere` are of the chunk under way:
    apply was called, and something was committed on another connection meanwhile. `cut`: how many
    of the ends are of parts of one chunk, whose rows were prepared together.
    """

    number: int
    upper: str | None
    cursor: str | None
    chunk: int
    done: bool
    ends: list[str | None] = field(default_factory=list)
    retried: int = 0
    busy: float = 0.0
    unreported_seconds: float = 0.0
    applied: bool = False
    elsewhere: bool = False
    cut: int = 0
    prepared: Prepared = field(default_factory=Prepared)

    def passed(self, by: Advance, busy: float = 0.0) -> None:
        """Go on behind the chunk that was committed, which took so many seconds in all."""
        self.ends.pop()
        if by.ahead is not None and not self.ends:
            self.ends.append(by.ahead)
        self.cursor, self.done = by.cursor, by.done
        self.chunk += 1
        self.retried, self.busy = 0, 0.0
        self.unreported_seconds = max(busy - by.counts.busy, 0.0)
        self.applied = self.elsewhere = False
        self.count_prepared()

    def cut_at(self, end: str) -> None:
        """Go on with a smaller chunk: what is prepared of the rest is kept."""
        self.ends.append(end)
        self.cut += 1

    def count_prepared(self) -> None:
        """Forget what was prepared of the chunk that is passed, but for what was cut off."""
        self.prepared.passed(all_of_them=not self.cut)
        self.cut = max(self.cut - 1, 0)


@dataclass(frozen=True, slots=True)
class Chunks:
    """What the chunks of a run have in common."""

    store: Store
    sessions: Sessions
    definition: Definition
    apply: Apply
    keyset: Keyset | None
    run: int
    me: int
    arguments: dict[str, str]
    preparer: Preparer | None = None
    dry_fence: Fence | None = None  # of chunks that are rolled back
    calls_apply: bool = True

    def place(self, claimed: ClaimedPartition) -> dict[str, int]:
        """Return what identifies the chunk to the store, and fences it."""
        return {
            "in_run": self.run,
            "in_number": claimed.number,
            "in_owner": self.me,
            "in_chunk": claimed.chunk,
        }

    def advance_of(self, claimed: ClaimedPartition, ahead: str | None, counts: Counts) -> Advance:
        """Return how the partition moves behind the next chunk."""
        end = claimed.ends[-1]
        return Advance(
            end, ahead, done=end == claimed.upper, retried=claimed.retried, counts=counts
        )

    async def commit_next(
        self, claimed: ClaimedPartition, ahead: str | None, busy: Callable[[], float]
    ) -> Advance:
        """
        Apply and commit the next chunk; `ahead` is the end of the one after it.

        Raises `TakenOver`, `Retry`, `ApplyFailed` or what the rows did to the database.
        """
        fence, place = self.dry_fence or self.store.fence, self.place(claimed)
        fenced = Fenced(
            self.sessions, fence, place, self.me, lambda: self.describe(claimed),
            dry=self.dry_fence is not None,
        )  # fmt: skip
        by = self.advance_of(claimed, ahead, Counts())
        rows: Sequence[Any] = ()

        async def within(
            session: AsyncSession, transaction: ChunkTransaction, read: Sequence[Any]
        ) -> None:
            nonlocal rows  # they outlive the session: it lets go of all at once, not of each
            rows, keys, values = await self._look_at(session, claimed, read)
            if not self.calls_apply:
                return
            if rows or self.keyset is None:
                chunk = Chunk(self.run, claimed.number, claimed.chunk + 1, self.arguments)
                moves = self._watch_key(transaction, claimed)
                await fenced.call(
                    self.apply, session, transaction, rows, chunk, prepared=values, moves=moves
                )
            if keys:
                await session.run_sync(fenced.flush)
                await self._check_cleared(session, claimed, keys)

        def values(written: int) -> dict[str, Any]:
            nonlocal by
            counts = Counts(
                len(rows), written, prepared=claimed.prepared.new,
                busy=claimed.unreported_seconds + busy(),
            )  # fmt: skip
            by = self.advance_of(claimed, ahead, counts)
            return values_of(by)

        try:
            await fenced.run(within, values, lambda session: self._read(session, claimed))
        finally:
            claimed.applied, claimed.elsewhere = (
                fenced.applied,
                claimed.elsewhere or fenced.elsewhere,
            )
        return by

    def _watch_key(
        self, transaction: ChunkTransaction, claimed: ClaimedPartition
    ) -> KeyWatch | None:
        if self.keyset is None:
            return None
        watch = KeyWatch(self.keyset, (claimed.cursor, claimed.ends[-1]))
        transaction.look = watch.look
        return watch

    def describe(self, claimed: ClaimedPartition) -> str:
        """Return what the next chunk applies, for people."""
        if self.keyset is None:
            return "its one transaction"
        return f"the rows {self.keyset.describe_range(claimed.cursor, claimed.ends[-1])}"

    def _read(self, session: AsyncSession, claimed: ClaimedPartition) -> Sequence[Any]:
        """Return the chunk's rows, but for those that are read with their keys."""
        if self.keyset is None or self.definition.until_empty or self.preparer is not None:
            return ()
        page = self.keyset.rows(claimed.cursor, claimed.ends[-1])
        return read_rows(session, self.keyset, page)

    async def prepare_next(self, claimed: ClaimedPartition) -> None:
        """Prepare the rows of the next chunk, in no transaction; raises `RowFailed`."""
        if self.preparer is not None:
            assert self.keyset is not None
            page = self.keyset.rows(claimed.cursor, claimed.ends[-1], keys=True)
            failed_before = self._failed_before if self.definition.until_empty else None
            await self.preparer.prepare(page, claimed.prepared, failed_before)

    async def _failed_before(self, keys: Sequence[str]) -> set[str]:
        async with self.store.reading.connect() as connection:
            return await self.store.known_errors(connection, self.run, keys)

    async def _look_at(
        self, session: AsyncSession, claimed: ClaimedPartition, rows: Sequence[Any]
    ) -> tuple[Sequence[Any], Sequence[str], Sequence[Any]]:
        """
        Return the chunk's rows, their keys where rows are read again and again, and what was
        prepared of each; raises `PrepareAgain` or `RowFailed` for rows that are not those.
        """
        if self.keyset is None:
            return (), (), ()
        span = (claimed.cursor, claimed.ends[-1])
        keys: Sequence[str] = ()
        values: Sequence[Any] = ()
        if self.definition.until_empty or self.preparer is not None:
            async with our_settings(session, self.keyset):
                page = self.keyset.rows(*span, keys=True)
                found = await read_with_versions(session, self.keyset, page)
            if self.definition.until_empty:
                for key in await self.store.known_errors(session, self.run, list(found)):
                    del found[key]
                keys = list(found)
            if self.preparer is not None:
                values = claimed.prepared.values(found, self.preparer.policy)
            rows = [row for _, row in found.values()]
        await check_objects(session, self.keyset, span, rows)
        return rows, keys, values

    async def _check_cleared(
        self, session: AsyncSession, claimed: ClaimedPartition, keys: Sequence[str]
    ) -> None:
        """Refuse to read for ever what apply does not take out of the select."""
        assert self.keyset is not None
        async with our_settings(session, self.keyset):
            left = await session.execute(self.keyset.keys(claimed.cursor, claimed.ends[-1]))
        still = {encode(row) for row in left} & set(keys)
        if still:
            raise ConfigurationError(
                f"until_empty needs a select whose rows apply clears, and after it "
                f"{self.keyset.describe(next(k for k in keys if k in still))} is still there"
            )
