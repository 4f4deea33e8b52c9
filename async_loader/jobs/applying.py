"""
What a user's function does to a chunk's rows, in one transaction behind a fence.

Whatever it raises is told apart here: a row is to blame, or the server, or the function itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..database.postgresql import first_line
from ..errors import AsyncLoaderError, ConfigurationError, JobError
from ..failures.classification import sqlstate_of
from .connections import AUTOCOMMIT
from .definition import Apply, Chunk, Sessions
from .fence import Fence, Names, is_fenced
from .moves import KeyWatch
from .outcomes import ApplyFailed, ApplyRefusedError, EndRaisedError, Retry, TakenOver, ends_told
from .transaction import CAUGHT, NOT_YOURS, ChunkTransaction, gave_up
from .transient import is_cancelled, is_of_no_row, is_transient

Read = Callable[[AsyncSession], Sequence[Any]]
Within = Callable[[AsyncSession, ChunkTransaction, Sequence[Any]], Awaitable[None]]
Values = Callable[[int], dict[str, Any]]


@dataclass(slots=True)
class Fenced:
    """
    One transaction of apply.

    `place` finds the fence's row, `rows` tells what is applied, for people. Afterwards:
    `applied`, whether apply was called; `elsewhere`, whether something was committed on another
    connection meanwhile; `left`, whether only the COMMIT was to come.
    """

    sessions: Sessions
    fence: Fence
    place: dict[str, Any]
    me: int
    rows: Callable[[], str]
    dry: bool = False  # rolled back where it would be committed
    applied: bool = False
    elsewhere: bool = False
    left: bool = False
    _moves: KeyWatch | None = None

    async def run(self, within: Within, values: Values, read: Read) -> None:
        """
        Enter, read the rows, do what is within, leave, and commit.

        `values` are what to leave with, of the number of objects that were flushed.

        Raises `TakenOver`, `Retry`, `ApplyFailed`, `ConfigurationError` for what apply must not
        do, or what the rows did to the database.
        """
        transaction = ChunkTransaction()
        async with AsyncExitStack() as closing:
            session = await closing.enter_async_context(self.sessions())
            try:
                with ends_told(rest=lambda: f"; {self._standing()}"):
                    names, rows = await session.run_sync(
                        lambda _: self._enter(session, transaction, read)
                    )
                    await within(session, transaction, rows)
                    if self.dry:
                        await self._roll_back(session, transaction, values, names)
                    elif await transaction.commit(
                        session,
                        self.flush,
                        lambda at: self._leave(at, values(transaction.written), names),
                    ):
                        closing.pop_all()
            except (TakenOver, Retry):
                raise
            except Exception as error:
                await asyncio.sleep(0)  # a driver tells now of who has closed its connection
                lost = transaction.lost
                try:
                    self._raise_refusal(session, transaction, error, lost=lost)
                except ApplyRefusedError:
                    await session.run_sync(lambda _: transaction.give_up())
                    raise
                if isinstance(error, EndRaisedError):
                    raise  # a connection that it has broken off is no reason to try again
                if lost or _passes(error, transaction):
                    raise Retry from (error.__cause__ if isinstance(error, ApplyFailed) else error)
                if is_of_no_row(error) and not isinstance(error, AsyncLoaderError):
                    raise of_no_row(self.rows(), error) from error
                raise
            finally:
                self.elsewhere = transaction.elsewhere.committed

    async def call(
        self,
        apply: Apply,
        session: AsyncSession,
        transaction: ChunkTransaction,
        rows: Sequence[Any],
        chunk: Chunk,
        *,
        prepared: Sequence[Any] = (),
        moves: KeyWatch | None = None,
    ) -> None:
        """
        Call the user's function; raises `ApplyFailed` for whatever it raises.

        `moves` looks behind it and its flush at what they have done to the key.
        """
        self.applied, self._moves = True, moves
        try:
            with (
                ends_told("apply", lambda: f"; {self.rows()}: rolled back"),
                transaction.watching_elsewhere(),
                transaction.hearing(None if moves is None else moves.hear),
            ):
                await apply(session, rows, prepared, chunk)
        except AsyncLoaderError:
            raise  # no row is to blame
        except Exception as error:
            raise ApplyFailed from error
        # asyncpg tells now of the last statement: not before, or what others commit is apply's.
        await asyncio.sleep(0)
        transaction.check(session)

    def flush(self, session: Session) -> None:
        """Write what apply has left to be written, and look at the key, once."""
        session.flush()
        moves, self._moves = self._moves, None
        if moves is not None:
            moves.check(session.connection())

    def _enter(
        self, session: AsyncSession, transaction: ChunkTransaction, read: Read
    ) -> tuple[Names | None, Sequence[Any]]:
        """Begin, enter and read, in one greenlet: each costs as much as a statement's half."""
        connection = transaction.begin(session.sync_session)
        entered = self.fence.enter(connection, self.place, self.me)
        transaction.enter(connection, entered.limit)
        return entered.names, read(session)

    def _leave(self, at: Connection, values: dict[str, Any], names: Names | None) -> bool:
        self.left = self.fence.leave(at, {**self.place, **values}, names)
        return self.left

    async def _roll_back(
        self,
        session: AsyncSession,
        transaction: ChunkTransaction,
        values: Values,
        names: Names | None,
    ) -> None:
        """Do all but commit, what is deferred to a COMMIT included."""

        def end(sync: Session) -> None:
            self.flush(sync)
            transaction.check(session)
            at = sync.connection()
            if not self._leave(at, values(transaction.written), names):
                raise ApplyRefusedError(NOT_YOURS, loose=True)
            if at.dialect.name == "postgresql":
                at.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))

        await session.run_sync(end)
        await session.rollback()

    def _standing(self) -> str:
        """Return what became of the rows, as far as that can be known here."""
        if self.left:
            return f"whether {self.rows()} are committed the job knows when it is run again"
        return f"{self.rows()}: rolled back"

    def _raise_refusal(
        self,
        session: AsyncSession,
        transaction: ChunkTransaction,
        error: Exception,
        *,
        lost: bool,
    ) -> None:
        """Raise what apply was refused, or should have been."""
        refusal = transaction.refusal or (error if isinstance(error, ApplyRefusedError) else None)
        if refusal is None and transaction.entered and not lost:
            if gave_up(error):
                refusal = ApplyRefusedError(CAUGHT)
            elif is_fenced(error):
                refusal = ApplyRefusedError(NOT_YOURS)
            elif transaction.ended_underneath(session):
                refusal = ApplyRefusedError(NOT_YOURS, loose=True)
        if refusal is not None:
            raise refusal.about(self.rows()) from error
        if is_fenced(error):
            raise ConfigurationError(AUTOCOMMIT) from error


def _passes(error: Exception, transaction: ChunkTransaction) -> bool:
    """Return whether what came out of a chunk's transaction passes by itself."""
    if is_cancelled(error):
        return transaction.cancelled_by_request
    return is_transient(error, applying=isinstance(error, ApplyFailed))


def of_no_row(rows: str, error: BaseException) -> JobError:
    """Return why a job stops at rows that are not to blame."""
    cause = error.__cause__ if isinstance(error, ApplyFailed) else error
    return JobError(
        f"{first_line(cause or error)} ({sqlstate_of(error)}): no row is to blame, and each would "
        f"fail; {rows}: rolled back; mend that, and run the job again"
    )
