"""
One chunk, one transaction: in one statement lock the partition's row, check that it is still
ours and the chunk number the next, and move its cursor and counters; apply; commit.

The counters are moved by what the chunk before this one read and wrote, and put right after
apply where this one did something else: as a rule that saves a round trip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import ref

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session, UOWTransaction

from ..errors import AsyncLoaderError, ConfigurationError
from ..failures import sqlstate_of
from .checkpoints import reached
from .definition import Apply, Chunk, Definition, Sessions
from .keyset import Keyset, encode
from .moves import KeyWatch
from .rows import check_objects, our_settings, read_rows, read_with_keys
from .store import Advance, Counts, Store
from .transient import is_transient


class TakenOver(Exception):  # noqa: N818  not an error: another worker goes on
    """The partition is not ours any more, or not at the chunk that we know."""


class ApplyFailed(Exception):  # noqa: N818  a pair with the two below
    """The user's function raised; its error is the cause."""


class Retry(Exception):  # noqa: N818  not an error: it passes
    """The chunk failed for a reason that passes; whether it was committed is not known."""


@dataclass(slots=True)
class Held:
    """
    A partition that we work on.

    `ends` are the ends of the chunks to come, the next one last: one as a rule, several while
    a failing chunk is cut into smaller ones. `untold` are the busy seconds of the chunk before,
    which the next one writes down.
    """

    number: int
    upper: str | None
    cursor: str | None
    chunk: int
    done: bool
    ends: list[str | None] = field(default_factory=list)
    retried: int = 0
    busy: float = 0.0
    untold: float = 0.0
    usual: Counts = field(default_factory=Counts)

    def passed(self, by: Advance, busy: float = 0.0) -> None:
        """Go on behind the chunk that was committed, which took so many seconds."""
        self.ends.pop()
        if by.ahead is not None and not self.ends:
            self.ends.append(by.ahead)
        self.cursor, self.done = by.cursor, by.done
        self.chunk += 1
        self.retried, self.busy, self.untold = 0, 0.0, busy


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

    def place(self, held: Held) -> dict[str, int]:
        """Return what identifies the chunk to the store, and fences it."""
        return {
            "in_run": self.run,
            "in_number": held.number,
            "in_owner": self.me,
            "in_chunk": held.chunk,
        }

    def advance_of(self, held: Held, ahead: str | None, counts: Counts) -> Advance:
        """Return how the partition moves behind the next chunk."""
        end = held.ends[-1]
        return Advance(end, ahead, done=end == held.upper, retried=held.retried, counts=counts)

    async def commit_next(
        self, held: Held, ahead: str | None, busy: Callable[[], float]
    ) -> Advance:
        """
        Apply and commit the next chunk; `ahead` is the end of the one after it.

        Raises `TakenOver`, `Retry`, `ApplyFailed` or what the rows did to the database.
        """
        by = self.advance_of(held, ahead, replace(held.usual, busy=held.untold))
        async with self.sessions() as session:
            connection: AsyncConnection | None = None
            try:
                connection = await session.connection()
                await self._advance(connection, held, by)
                # The rows outlive the session: it lets go of all at once, not of each in turn.
                counts, _rows = await self._apply(session, held)
                if by.done:
                    counts = replace(counts, busy=held.untold + busy())
                await self._correct(connection, held, by, counts)
                await commit(session)
            except (TakenOver, Retry):
                raise
            except Exception as error:
                applying = isinstance(error, ApplyFailed)
                lost = connection is not None and connection.invalidated
                if lost or is_transient(error, applying=applying):
                    raise Retry from error
                raise
        held.usual = replace(counts, busy=0.0)
        return by

    async def _advance(self, connection: AsyncConnection, held: Held, by: Advance) -> None:
        lease = self.definition.lease
        if not await self.store.advance(connection, self.place(held), by, lease):
            raise TakenOver

    async def _correct(
        self, connection: AsyncConnection, held: Held, by: Advance, counts: Counts
    ) -> None:
        """Write down what the chunk did where that is not what `by` says."""
        if counts != by.counts:
            await self.store.count(connection, self.place(held), counts.less(by.counts))

    async def _apply(self, session: AsyncSession, held: Held) -> tuple[Counts, Sequence[Any]]:
        """Read the chunk's rows, apply, and return what that did."""
        rows, keys = await self._rows(session, held)
        watch = Watch(session)
        if rows or self.keyset is None:
            chunk = Chunk(self.run, held.number, held.chunk + 1, self.arguments)
            moves = self._watch_key(session, held)
            await self.apply_rows(session, rows, chunk)
            watch.check(session)
            await session.flush()
            if moves is not None:
                await (await session.connection()).run_sync(moves.check)
        if keys:
            await self._check_cleared(session, held, keys)
        watch.release()
        return Counts(read=len(rows), written=watch.written, busy=held.untold), rows

    def _watch_key(self, session: AsyncSession, held: Held) -> KeyWatch | None:
        if self.keyset is None:
            return None
        return KeyWatch(session, self.keyset, (held.cursor, held.ends[-1]))

    async def apply_rows(self, session: AsyncSession, rows: Sequence[Any], chunk: Chunk) -> None:
        """Call the user's function; raises `ApplyFailed` for whatever it raises."""
        try:
            await self.apply(session, rows, chunk)
        except AsyncLoaderError:
            raise  # no row is to blame
        except Exception as error:
            raise ApplyFailed from error

    async def _rows(self, session: AsyncSession, held: Held) -> tuple[Sequence[Any], Sequence[str]]:
        """Return the chunk's rows and, where rows are read again and again, their keys."""
        if self.keyset is None:
            return (), ()
        span = (held.cursor, held.ends[-1])
        if not self.definition.until_empty:
            rows = await read_rows(session, self.keyset, self.keyset.rows(*span))
            await check_objects(session, self.keyset, span, rows)
            return rows, ()
        async with our_settings(session, self.keyset):
            found = await read_with_keys(session, self.keyset, self.keyset.rows_with_keys(*span))
        for key in await self.store.known_errors(session, self.run, list(found)):
            del found[key]
        rows = list(found.values())
        await check_objects(session, self.keyset, span, rows)
        return rows, list(found)

    async def _check_cleared(self, session: AsyncSession, held: Held, keys: Sequence[str]) -> None:
        """Refuse to read for ever what apply does not take out of the select."""
        assert self.keyset is not None
        async with our_settings(session, self.keyset):
            left = await session.execute(self.keyset.keys(held.cursor, held.ends[-1]))
        still = {encode(row) for row in left} & set(keys)
        if still:
            raise ConfigurationError(
                f"until_empty needs a select whose rows apply clears, and after it "
                f"{self.keyset.describe(next(k for k in keys if k in still))} is still there"
            )


async def commit(session: AsyncSession) -> None:
    """Commit; raises `Retry` where the answer was lost."""
    reached("before commit")
    try:
        await session.commit()
    except Exception as error:
        if sqlstate_of(error) is None:  # no answer: it may be there
            raise Retry from error
        raise
    reached("after commit")


class Watch:
    """
    Counts what the flushes of a session write, and keeps its transaction from being ended.

    It keeps no session alive: in a cycle a chunk's rows would wait for the garbage collector.
    """

    def __init__(self, session: AsyncSession) -> None:
        self.written = 0
        self._transaction = ref(session.sync_session.get_transaction())
        self._released = False
        event.listen(session.sync_session, "after_flush", self._count)
        event.listen(session.sync_session, "before_commit", self._refuse)

    def release(self) -> None:
        """Let the transaction be committed, by us."""
        self._released = True

    def check(self, session: AsyncSession) -> None:
        """Raise if the transaction has been ended and another begun."""
        now = session.sync_session.get_transaction()
        if now is None or now is not self._transaction():
            raise ConfigurationError(_NOT_YOURS)

    def _count(self, _session: Session, context: UOWTransaction) -> None:
        self.written += sum(not listed_only for _, listed_only in context.states.values())

    def _refuse(self, session: Session) -> None:
        if not self._released and not session.in_nested_transaction():
            raise ConfigurationError(_NOT_YOURS)


_NOT_YOURS = "apply must not commit or roll back: the job commits its rows with its position"
