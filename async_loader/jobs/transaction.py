"""
The one transaction of a chunk, and who may end it: nobody but the job, by its last act.

    begin     the session's connection; any other that the session begins is refused
    enter     the fence's first statement; from here on nobody else ends the transaction
    commit    flush, the fence's last statement, COMMIT: the two last in SQLAlchemy's own hook;
              a listener that executes something behind them is refused

What SQLAlchemy sees is refused before it happens. What goes to the driver is stopped by the
fence's constraint, or noticed because the driver is in no transaction any more, or because
`leave` finds another transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary, ref

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction, UOWTransaction
from sqlalchemy.pool import Pool

from ..database.postgresql import break_off, first_line, unreachable
from ..errors import AsyncLoaderError, ConfigurationError, JobError
from ..failures.classification import sqlstate_of
from . import connections, elsewhere
from .checkpoints import reached
from .connections import OTHER_BIND
from .drivers import Hear, hearing, hearing_of_end, is_closed
from .elsewhere import Elsewhere
from .limits import StatementLimit
from .links import will_be_given_back
from .outcomes import ApplyRefusedError, Retry
from .statements import ends, stays
from .transient import is_cancelled, is_transient

NOT_YOURS = "apply must not commit or roll back: the job commits its rows with its position"
CAUGHT = (
    "apply caught a database error and went on, but the error had given up the transaction and "
    "all that was done in it: put `async with session.begin_nested()` around what may fail"
)
_BEHIND = (
    "a listener of the engine executes statements while a chunk is committed, behind its last "
    "check: give the job an engine without that listener"
)
_STAYS = (
    "apply changes which tables a name means, the role, or what transactions are, for whoever has "
    "the connection next, the job's own reading too: say SET LOCAL"
)
_INVALIDATED = "apply must not invalidate its connection: the job's transaction is on it"
_CLOSED = "apply must not close its connection: the job's transaction is on it"
_ABORTED = "25P02"

Flush = Callable[[Session], None]
LastAct = Callable[[Connection], bool]

_OWN_ENDS = ("commit", "close", "__aexit__")  # a class of the application's may have its own

_INFO = "async_loader.jobs.transaction"
_entered: WeakKeyDictionary[Connection, ChunkTransaction] = WeakKeyDictionary()
_jobs = 0


def gave_up(error: BaseException) -> bool:
    """Return whether an error says that there was one before it, which ended the transaction."""
    return isinstance(error, PendingRollbackError) or sqlstate_of(error) == _ABORTED


class ChunkTransaction:
    """
    A session's transaction while a chunk is applied; counts what its flushes write.

    It keeps no session alive: in a cycle a chunk's rows would wait for the garbage collector.
    """

    def __init__(self) -> None:
        self.written = 0
        self.elsewhere = Elsewhere()
        self.refusal: ApplyRefusedError | None = None
        self._driver: Any = None
        self._connection: ref[Connection] | None = None
        self._transaction: ref[SessionTransaction] | None = None
        self._engine: Engine | None = None
        self._last_act: LastAct | None = None
        self._left = self._rolled_back = self._broken = False
        self._limit = StatementLimit()
        self.task: asyncio.Task[Any] | None = None
        self.look: Callable[[Connection, str], None] | None = None  # at apply's statements

    def begin(self, session: Session) -> Connection:
        """Begin the transaction, and return its connection; within `listening`."""
        assert _jobs
        session.info[_INFO] = self
        return connections.begin_sync(session)

    def enter(self, connection: Connection, limit: float) -> None:
        """
        Keep it from being ended, from now on: the fence's first statement was executed.

        `limit`: how long a statement may take, in seconds.
        """
        self._limit.begin(limit)
        self._driver = connections.driver_of(connection)
        if not connections.in_transaction(self._driver):
            raise ConfigurationError(connections.AUTOCOMMIT)
        _entered[connection] = self
        self.task = asyncio.current_task()
        will_be_given_back(connection)

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone."""
        connection = self._own()
        return connection is not None and connection.invalidated

    def give_up(self) -> None:
        """Keep the connection from the pool: nobody knows what transaction it is in."""
        with suppress(Exception):  # it may be closed already
            if (connection := self._own()) is not None:
                connection.invalidate()

    def _own(self) -> Connection | None:
        return None if self._connection is None else self._connection()

    def is_on(self, driver: Any) -> bool:
        """Return whether it is on this connection of the driver's."""
        return driver is not None and driver is self._driver

    def break_off(self) -> None:
        """End its connection without a word: the server rolls back."""
        break_off(self._driver)

    @property
    def entered(self) -> bool:
        """Whether it is known to be one transaction."""
        return self._driver is not None

    def watching_elsewhere(self) -> AbstractContextManager[None]:
        """Return a block in which commits on other connections are noted."""
        own = self._own()
        assert own is not None
        return self.elsewhere.watch(own)

    @property
    def cancelled_by_request(self) -> bool:
        """Whether a statement that was cancelled took less than its limit."""
        return self._limit.is_kept

    @contextmanager
    def hearing(self, hear: Hear | None) -> Iterator[None]:
        """Have what the driver's connection is given told for a block, and note who closes it."""
        with hearing_of_end(self._driver, self._closed):
            if hear is None:
                yield
            else:
                with hearing(self._driver, hear):
                    yield

    async def commit(self, session: AsyncSession, flush: Flush, last_act: LastAct) -> bool:
        """
        Flush, do the last act, and commit; return whether the session is closed already.

        Raises `Retry` where the answer was lost.
        """
        # All in one greenlet: each costs as much as a statement's half.
        at_once = all(getattr(type(session), n) is getattr(AsyncSession, n) for n in _OWN_ENDS)

        def end(sync: Session) -> None:
            flush(sync)
            self.check(session)
            reached("before commit")
            self._last_act = last_act
            if at_once:
                sync.commit()
                sync.close()

        try:
            await session.run_sync(end)
            if not at_once:
                await session.commit()
        except AsyncLoaderError:
            raise
        except Exception as error:
            if self._left and sqlstate_of(error) is None:  # no answer: it may be there
                raise Retry from error
            raise
        finally:
            self._last_act = None  # it knows us and the rows: a cycle
        if not self._left:
            raise ApplyRefusedError(NOT_YOURS, loose=True)
        reached("after commit")
        return at_once

    def check(self, session: AsyncSession) -> None:
        """Raise what apply was refused, also where it has caught it, and what nobody saw."""
        if self.refusal is not None:
            raise self.refusal
        now = session.sync_session.get_transaction()
        if now is None or self._transaction is None or now is not self._transaction():
            raise ApplyRefusedError(NOT_YOURS)
        if self.ended_underneath(session):
            raise ApplyRefusedError(NOT_YOURS, loose=not self._rolled_back)

    def ended_underneath(self, session: AsyncSession) -> bool:
        """Return whether the driver's transaction has ended and SQLAlchemy knows nothing of it."""
        if self._driver is None or connections.in_transaction(self._driver):
            return False
        transaction = session.sync_session.get_transaction()
        return transaction is not None and transaction.is_active

    def _refuse(self, message: str, *, loose: bool = False) -> None:
        refusal = ApplyRefusedError(message, loose=loose)
        self.refusal = self.refusal or refusal
        raise refusal

    # --- what SQLAlchemy tells -----------------------------------------------------------

    def begun(self, session: Session, connection: Connection) -> None:
        """Refuse a second connection: of another bind, or after the first one's end."""
        if self._connection is None:
            root = session.get_transaction()
            assert root is not None
            self._connection, self._transaction = ref(connection), ref(root)
            self._engine = connection.engine
        elif connection is not self._connection():
            same = connection.engine is self._engine
            self._refuse(NOT_YOURS if same else OTHER_BIND.format(what="what apply uses"))

    def flushed(self, context: UOWTransaction) -> None:
        """Count what was written."""
        if self.entered:
            self.written += [listed_only for _, listed_only in context.states.values()].count(False)

    def before_commit(self, session: Session) -> None:
        """Refuse another's than the job's."""
        if self.entered and self._last_act is None and not session.in_nested_transaction():
            self._refuse(NOT_YOURS)

    def before_statement(self, connection: Connection, statement: str) -> None:
        """Refuse what ends the transaction, outlasts it or comes behind its end."""
        if self._limit.asking:
            return
        if self._left:
            self._refuse(_BEHIND)
        if ends(statement):
            self._refuse(NOT_YOURS)
        if stays(statement):
            self._refuse(_STAYS)
        if not connections.in_transaction(self._driver):
            self._refuse(NOT_YOURS, loose=not self._rolled_back)
        self._limit.sent(connection, statement)
        if self.look is not None:
            self.look(connection, statement)

    def rolled_back(self) -> None:
        """Remember it: nothing of the chunk is there."""
        self._rolled_back = True

    def invalidated(self) -> None:
        """Remember it: no server has ended the connection, so trying again is no help."""
        if not self._left:
            self.refusal = self.refusal or ApplyRefusedError(_INVALIDATED)

    def gave_up_by_error(self) -> None:
        """Remember it: SQLAlchemy closes the connection, and not apply."""
        self._broken = True

    def _closed(self) -> None:
        if not (self._left or self._broken):
            self.refusal = self.refusal or ApplyRefusedError(_CLOSED)

    def committing(self, connection: Connection) -> None:
        """Do the last act, or refuse that it is committed."""
        try:
            self._leave(connection)
        except BaseException:
            self._roll_back(connection)
            raise
        self._left = True

    def _leave(self, connection: Connection) -> None:
        if self._last_act is None:
            self._refuse(NOT_YOURS)
        assert self._last_act is not None
        try:
            here = self._last_act(connection)
        except DBAPIError as error:
            by_request = is_cancelled(error) and self.cancelled_by_request
            if gave_up(error) or by_request or is_transient(error):
                raise
            denied = sqlstate_of(error) == "42501"
            why = unreachable(error, connection.engine.url) if denied else first_line(error)
            raise JobError(
                f"a chunk's position could not be written: {why} (has apply changed the role?)"
            ) from error
        if not here:
            self._refuse(NOT_YOURS, loose=True)

    def _roll_back(self, connection: Connection) -> None:
        """Do what SQLAlchemy does not where a listener raises: the pool gets no transaction."""
        self._rolled_back = True
        try:
            if not connection.invalidated:
                connection.dialect.do_rollback(connection.connection)
        except BaseException as error:
            connection.invalidate()
            if not isinstance(error, Exception):
                raise


def break_off_chunks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Break off the connections of what these tasks have entered, and not ended."""
    abandoned = set(tasks)
    for chunk in list(_entered.values()):
        if chunk.task in abandoned:
            chunk.break_off()


# --- listeners of the classes: six a chunk cost a tenth of its work -----------------------------


@contextmanager
def listening() -> Iterator[None]:
    """Hear of what chunks' sessions and connections do, and others' commits, while a job runs."""
    global _jobs  # noqa: PLW0603  one set of listeners for all jobs of the process
    if not _jobs:
        for target, name, hear in _HEARD:
            event.listen(target, name, hear)
    _jobs += 1
    try:
        with elsewhere.listening():
            yield
    finally:
        _jobs -= 1
        if not _jobs:
            for target, name, hear in _HEARD:
                event.remove(target, name, hear)


def _after_begin(session: Session, _t: SessionTransaction, connection: Connection) -> None:
    if (chunk := session.info.get(_INFO)) is not None:
        chunk.begun(session, connection)


def _after_flush(session: Session, context: UOWTransaction) -> None:
    if (chunk := session.info.get(_INFO)) is not None:
        chunk.flushed(context)


def _before_commit(session: Session) -> None:
    if (chunk := session.info.get(_INFO)) is not None:
        chunk.before_commit(session)


def _before_statement(connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
    if (chunk := _entered.get(connection)) is not None:
        chunk.before_statement(connection, statement)


def _commit(connection: Connection) -> None:
    if (chunk := _entered.get(connection)) is not None:
        chunk.committing(connection)


def _rollback(connection: Connection) -> None:
    if (chunk := _entered.get(connection)) is not None:
        chunk.rolled_back()


def _invalidate(_connection: Any, record: Any, exception: BaseException | None) -> None:
    for chunk in list(_entered.values()):
        if chunk.is_on(record.driver_connection):
            if exception is None:  # it was said, and no error was the reason
                chunk.invalidated()
            elif not is_closed(record.driver_connection):
                chunk.gave_up_by_error()  # it closes what apply, say, was cancelled in


_HEARD: tuple[tuple[Any, str, Callable[..., None]], ...] = (
    (Session, "after_begin", _after_begin),
    (Session, "after_flush", _after_flush),
    (Session, "before_commit", _before_commit),
    (Engine, "before_cursor_execute", _before_statement),
    (Engine, "commit", _commit),
    (Engine, "rollback", _rollback),
    (Pool, "invalidate", _invalidate),
)
