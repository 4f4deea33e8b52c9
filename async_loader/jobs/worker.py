"""
A worker task: claim a partition, go through its chunks, find the row that a failure is due to.

Whatever happens to a chunk, the database knows whether it was committed: after a lost
connection the position is read again, under the row's lock, before anything else is done.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncConnection

from ..concurrency.clock import Clock
from ..concurrency.stop import Stop
from ..database.postgresql import first_line
from ..errors import AsyncLoaderError, JobError
from .chunks import Chunks, ClaimedPartition
from .fence import Advance, Counts
from .guard import Guard
from .keyset import encode
from .outcomes import ApplyFailed, LeaseLostError, Retry, TakenOver, again_elsewhere, ends_told
from .plan import Plan, plan
from .preparing import PrepareAgain, RowFailed
from .reader import Reader, keys_reader
from .retry_errors import told
from .status import JobStatus, statuses_on
from .throttles import Pace
from .transient import RetryBudget, is_cancelled, is_transient

# How soon a partition that another worker has left is noticed.
_POLL = 0.2
# The ends of the chunks of so many rows are read at once: one short query for all of them.
_ROWS_AHEAD = 10_000


@dataclass(slots=True)
class WorkerGroup:
    """What the tasks of one process share."""

    chunks: Chunks
    guard: Guard
    reader: Reader
    stop: Stop
    clock: Clock
    halt: asyncio.Event = field(default_factory=asyncio.Event)
    claiming: asyncio.Lock = field(default_factory=asyncio.Lock)
    claimed: set[int] = field(default_factory=set)
    ended: JobStatus | None = None  # as the run was when it was seen to be over

    @property
    def done(self) -> JobStatus | None:
        """The run, where it is known to be done, whatever becomes of the server."""
        return self.ended if self.ended is not None and self.ended.state == "done" else None

    @property
    def stopping(self) -> bool:
        """Whether no more chunks are to be begun."""
        return self.stop.requested.is_set() or self.halt.is_set()

    async def nap(self, seconds: float) -> None:
        """Sleep, unless the job is to stop."""
        waits = [
            asyncio.ensure_future(wait)
            for wait in (
                self.clock.sleep(seconds), self.stop.requested.wait(), self.halt.wait()
            )
        ]  # fmt: skip
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def plan(self) -> Plan:
        """Return the partitions of what there is to read now."""
        definition, keyset = self.chunks.definition, self.chunks.keyset
        assert keyset is not None
        return await plan(
            self.keys, keyset, chunk=definition.chunk, partitions=definition.partitions
        )

    async def keys(self, select: Executable) -> list[Any]:
        """Return the rows of a select of keys."""
        assert self.chunks.keyset is not None
        return await keys_reader(self.reader, self.chunks.sessions, self.chunks.keyset)(select)


class Worker:
    """One task; `work` returns when there is nothing left to do, or when told to stop."""

    def __init__(self, group: WorkerGroup) -> None:
        self._party = group
        self._chunks = group.chunks
        self._patience = self._new_patience()
        self._last_busy = 0.0

    async def work(self) -> None:
        """Work until the run is over; raises `JobError` for a row that stops it."""
        try:
            while not self._party.stopping:
                claimed = await self._claim()
                if claimed is not None:
                    await self._drain(claimed)
                elif not await self._others_are_at_work():
                    return
        finally:
            self._party.halt.set()  # whatever ends one of us ends the others, after their chunk

    async def _claim(self) -> ClaimedPartition | None:
        group, chunks = self._party, self._chunks
        async with group.claiming:
            row = await group.reader.retry_transient(
                lambda: chunks.store.claim(chunks.run, chunks.me, sorted(group.claimed))
            )
            if row is None:
                return None
            group.claimed.add(row["number"])
        claimed = ClaimedPartition(
            row["number"], row["upper"], row["cursor"], row["chunk"], row["done"]
        )
        if row["ahead"] is not None or chunks.keyset is None:
            claimed.ends.append(row["ahead"])
        return claimed

    async def _others_are_at_work(self) -> bool:
        """Wait a little for what others have, or end the round; False once the run is over."""
        group, store, run = self._party, self._chunks.store, self._chunks.run
        async with group.claiming:
            now = await group.reader.retry_transient(lambda: store.run_of(run))
            if now["state"] != "running":
                return False
            if not await group.reader.retry_transient(lambda: store.open_partitions(run)):
                return await self._end_round(now["round"])
        await group.reader.retry_transient(lambda: store.end_chunks_of_the_dead(run))
        await group.nap(_POLL)
        return True

    async def _end_round(self, round_: int) -> bool:
        group, store, run = self._party, self._chunks.store, self._chunks.run
        following = None
        if self._chunks.definition.until_empty:
            read = await group.reader.retry_transient(lambda: store.rows_read(run, round_))
            following = await group.plan() if read else None

        now: list[JobStatus] = []

        async def ended(connection: AsyncConnection) -> None:
            now[:] = await statuses_on(connection, store, [run])

        going_on = await group.reader.retry_transient(
            lambda: store.end_round(run, round_, following, ended)
        )
        group.ended = None if going_on else now[0]
        return going_on

    async def _drain(self, claimed: ClaimedPartition) -> None:
        """Go through a partition's chunks to its end."""
        try:
            while not claimed.done and not self._party.stopping:
                await self._throttle()
                if not self._party.stopping:
                    await self._next_chunk(claimed)
        except TakenOver:
            pass  # its new owner goes on, or the run was stopped: the next claim tells
        finally:
            self._party.claimed.discard(claimed.number)

    async def _next_chunk(self, claimed: ClaimedPartition) -> None:
        clock = self._party.clock
        began = clock.now_ns() - int(claimed.busy * 1e9)

        def busy() -> float:
            return (clock.now_ns() - began) / 1e9

        ahead = await self._look_ahead(claimed)
        began_to_apply = busy()
        try:
            await self._chunks.prepare_next(claimed)
            began_to_apply = busy()
            claimed.passed(await self._chunks.commit_next(claimed, ahead, busy), busy())
            self._party.reader.watchdog.heard()
            self._patience = self._new_patience()
        except Retry as retry:
            claimed.busy = busy()
            await self._settle(claimed, retry)
        except PrepareAgain:
            claimed.busy, claimed.retried = busy(), claimed.retried + 1
        except (TakenOver, AsyncLoaderError):
            raise
        except Exception as error:
            claimed.busy = busy()
            self._check_elsewhere(claimed, error)
            await self._cut(claimed, ahead, error)
        self._last_busy = busy() - began_to_apply  # while rows are prepared the database rests

    def _new_patience(self) -> RetryBudget:
        return RetryBudget(self._party.clock, self._chunks.definition.patience)

    async def _look_ahead(self, claimed: ClaimedPartition) -> str | None:
        """Return the end of the chunk after the next, None if the next is the last."""
        if self._chunks.keyset is None:
            return None
        if not claimed.ends:
            claimed.ends[:] = await self._ends_behind(claimed.cursor, claimed.upper)
            chunks, end = self._chunks, claimed.ends[-1]
            await self._party.reader.retry_transient(
                lambda: chunks.store.fix_first_chunk(chunks.run, claimed.number, chunks.me, end)
            )
        if len(claimed.ends) == 1 and claimed.ends[-1] != claimed.upper:
            claimed.ends[:0] = await self._ends_behind(claimed.ends[-1], claimed.upper)
        return claimed.ends[-2] if len(claimed.ends) > 1 else None

    async def _ends_behind(self, lower: str | None, upper: str | None) -> list[str | None]:
        """Return the ends of the next chunks, the nearest one last."""
        keyset = self._chunks.keyset
        assert keyset is not None
        chunk = self._chunks.definition.chunk
        times = max(1, _ROWS_AHEAD // chunk)
        every = keyset.every(chunk, times, lower, upper)
        ends: list[str | None] = [encode(key) for key in await self._party.keys(every)]
        if len(ends) < times and (not ends or ends[-1] != upper):
            ends.append(upper)  # the rest is no whole chunk
        return ends[::-1]

    # --- failures ----------------------------------------------------------------------

    async def _settle(self, claimed: ClaimedPartition, retry: Retry) -> None:
        """Find out whether the chunk was committed, and go on accordingly."""
        group, chunks = self._party, self._chunks
        cause = retry.__cause__ or retry
        await group.clock.sleep(self._patience.next_pause(cause))
        now = await group.reader.retry_transient(
            lambda: chunks.store.position(chunks.run, claimed.number, chunks.me)
        )
        if now["owner"] != chunks.me or now["chunk"] not in (claimed.chunk, claimed.chunk + 1):
            await self._check_lease(claimed)
            raise TakenOver
        if now["chunk"] == claimed.chunk:
            self._check_elsewhere(claimed, retry)
            claimed.retried += 1
            return
        claimed.ends.pop()
        if now["ahead"] is not None and not claimed.ends:
            claimed.ends.append(now["ahead"])
        claimed.cursor, claimed.chunk, claimed.done = now["cursor"], now["chunk"], now["done"]
        claimed.retried, claimed.busy, claimed.unreported_seconds = 0, 0.0, 0.0
        claimed.count_prepared()
        claimed.applied = claimed.elsewhere = False

    async def _check_lease(self, claimed: ClaimedPartition) -> None:
        """Raise where another took a chunk over that was slower than the lease."""
        group, chunks = self._party, self._chunks
        lease = chunks.definition.lease
        now = await group.reader.retry_transient(lambda: chunks.store.run_of(chunks.run))
        if claimed.applied and claimed.busy > lease and now["state"] == "running":
            raise LeaseLostError(
                f"{chunks.definition.name}: {chunks.describe(claimed)} took {claimed.busy:.1f} s, "
                f"and the lease ({lease:g} s) was not renewed meanwhile: another worker has taken "
                "them over, and here nothing was committed; let apply await what takes long "
                "instead of blocking, or raise lease"
                + ("" if chunks.store.direct else "; a pooler needs one connection more than tasks")
            )

    def _check_elsewhere(self, claimed: ClaimedPartition, error: Exception) -> None:
        """Raise where a chunk that is tried again would repeat what is committed already."""
        if claimed.elsewhere:
            rows = self._chunks.describe(claimed)
            raise again_elsewhere(self._chunks.definition.name, rows, error) from error

    async def _cut(self, claimed: ClaimedPartition, ahead: str | None, error: Exception) -> None:
        """Make a failing chunk smaller, until one row is left: that one is to blame."""
        keyset, end = self._chunks.keyset, claimed.ends[-1]
        cause = error.__cause__ if isinstance(error, ApplyFailed) else error
        assert isinstance(cause, Exception)
        if keyset is None:
            raise JobError(f"{self._chunks.definition.name} failed: {in_words(cause)}") from cause
        keys = [encode(k) for k in await self._party.keys(keyset.keys(claimed.cursor, end))]
        if not keys:
            return  # the rows have gone: the next attempt finds none
        middle = keys[max(len(keys) // 2 - 1, 0)]
        if isinstance(error, RowFailed) and error.key in keys:  # those before it, then it alone
            middle = keys[max(keys.index(error.key) - 1, 0)]
        if middle != end:
            claimed.cut_at(middle)
            return
        await self._skip(claimed, ahead, cause)

    async def _skip(self, claimed: ClaimedPartition, ahead: str | None, cause: Exception) -> None:
        """Put a row into the error table in the transaction that moves past it."""
        chunks, key = self._chunks, claimed.ends[-1]
        assert key is not None
        error = {
            "key": key,
            "partition": claimed.number,
            "chunk": claimed.chunk + 1,
            **told(cause),
        }
        counts = Counts(
            skipped=1, prepared=claimed.prepared.new,
            busy=claimed.unreported_seconds + claimed.busy,
        )  # fmt: skip
        by = chunks.advance_of(claimed, ahead, counts)
        try:
            await self._pass_by(claimed, by, error, cause)
            claimed.passed(by)
        except (TakenOver, JobError):
            raise
        except Exception as failure:
            if not (is_transient(failure) or is_cancelled(failure)):
                raise
            retry = Retry()
            retry.__cause__ = failure
            await self._settle(claimed, retry)

    async def _pass_by(
        self, claimed: ClaimedPartition, by: Advance, error: dict[str, Any], cause: Exception
    ) -> None:
        store, place = self._chunks.store, self._chunks.place(claimed)
        limit = self._chunks.definition.skip_limit
        async with store.engine.begin() as connection:
            if not await store.skip(connection, place, limit, error):
                raise JobError(self._stopped_at(error["key"], cause)) from cause
            if not await store.pass_by(connection, place, by):
                raise TakenOver

    def _stopped_at(self, key: str, cause: Exception) -> str:
        keyset, definition = self._chunks.keyset, self._chunks.definition
        assert keyset is not None
        return (
            f"{definition.name} stopped at the row {keyset.describe(key)}: {in_words(cause)}; "
            f"repair it and run the job again, or raise skip_limit ({definition.skip_limit})"
        )

    # --- throttles ---------------------------------------------------------------------

    async def _throttle(self) -> None:
        """Ask each hook, outside any transaction, and wait as it says."""
        group = self._party
        for hook in self._chunks.definition.throttles:
            while not group.stopping:
                pace = Pace(self._last_busy, group.reader.engine)
                with ends_told("a throttle"):
                    wait = await group.reader.retry_transient(lambda h=hook, p=pace: h(p))  # type: ignore[misc]
                if wait is None:
                    break
                began = group.clock.now_ns()
                group.guard.waiting(wait.why, shown=wait.seconds >= 1)
                await group.nap(wait.seconds)
                group.guard.waited((group.clock.now_ns() - began) / 1e9)
                if not wait.again:
                    break


def in_words(error: BaseException) -> str:
    """Return an error with its class, on one line."""
    inner = getattr(error, "orig", None) or error
    with suppress(Exception):
        return f"{type(inner).__name__}: {first_line(error)}"
    return type(inner).__name__
