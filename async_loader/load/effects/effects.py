"""The effects of one operation, and the variable that holds those of the one at work."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from ...database.sqlalchemy_private import Unflushed, is_unflushed
from ...failures.classification import classify, sqlstate_of
from .statements import Sort, first_word, passes, savepoint_in
from .undetermined import is_undetermined

_IN_ERROR = 3  # libpq's PQTRANS_INERROR
# What is there already: who looks at it then, and goes on, has what was wanted.
_THERE = frozenset(("23505", "23P01", "42P06", "42P07", "42701", "42710"))
_THERE_ON_SQLITE = ("UNIQUE constraint failed", "already exists")


class Transaction:
    """What an operation did on one connection since that was last idle."""

    __slots__ = ("broken", "passing", "savepoints", "undetermined", "wrote")

    def __init__(self) -> None:
        self.wrote = False
        self.undetermined: list[str] = []
        """The statements of which nobody knows whether they wrote."""
        self.passing = False
        """Whether its having a number says nothing: it has locked rows, say."""
        self.savepoints: list[tuple[str, bool]] = []
        """The savepoints made so far, each with whether something was written before it."""
        self.broken = False
        """Whether PostgreSQL will answer COMMIT by ROLLBACK: a statement of it has failed."""

    @property
    def is_undetermined(self) -> bool:
        """Whether the server is to be asked if it has written anything."""
        return bool(self.undetermined) and not (self.wrote or self.broken or self.passing)

    def roll_back_to(self, savepoint: str) -> bool:
        """Forget what came behind a savepoint; return whether anything that was written did."""
        self.broken, wrote = False, self.wrote
        for place, (name, before) in reversed([*enumerate(self.savepoints)]):
            if name == savepoint:
                self.wrote = before
                del self.savepoints[place + 1 :]
                break
        return wrote and not self.wrote


class Effects:
    """
    What one operation, or one try of it, has done so far.

    `committed`: anything at all, or what may have been; `kept`: something that it wrote; `lost`:
    what it wrote and rolled back; `refused`: a write raised, and what followed did not make up for
    it, as to look at what is there does where that was the reason; `unsaved`: a session has let go
    of objects that were never flushed, `sessions`: what others that it made have to flush; `raw`: a
    driver was used behind the engine's back; `over`: it has ended, and `later` is what tasks of its
    have done since; `rolls_back`: it is to keep nothing.
    """

    __slots__ = (
        "_maybe_kept",
        "_strays",
        "_there",
        "committed",
        "kept",
        "later",
        "lost",
        "over",
        "pending",
        "raw",
        "refused",
        "rolled_back",
        "rolls_back",
        "sessions",
        "unsaved",
    )

    def __init__(self) -> None:
        self.committed = self.kept = self.lost = self.raw = self.over = False
        self.rolled_back = self._there = self._maybe_kept = self.unsaved = False
        self.rolls_back = False
        self.later: Effects | None = None
        self.refused: str | None = None
        self.sessions: list[Unflushed] = []
        self.pending: dict[int, Transaction] = {}
        self._strays = strays.count

    @property
    def may_have_committed(self) -> bool:
        """Whether to do it again may do something twice."""
        return self.committed or self.raw or self._strays != strays.count

    @property
    def wrote(self) -> bool:
        """Whether it wrote, or tried to, as far as statements tell."""
        if self.kept or self.lost or self.refused is not None:
            return True
        if (self.unsaved or self.sessions) and self._has_unsaved:
            return True
        return bool(self.pending) and any(t.wrote for t in self.pending.values())

    @property
    def _has_unsaved(self) -> bool:
        return self.unsaved or any(map(is_unflushed, self.sessions))

    @property
    def not_done(self) -> str | None:
        """What is to be said of an operation that ended well and kept nothing; None: nothing."""
        if self.kept or self.raw or self._maybe_kept:
            return None
        if self.refused is not None:
            return f"it went on after {self.refused}, and nothing that it wrote was committed"
        if self.lost or (self.pending and any(t.wrote for t in self.pending.values())):
            return "nothing that it wrote was committed"
        if (self.unsaved or self.sessions) and self._has_unsaved:
            return "objects of its session were never flushed and committed"
        return None

    def end(self, *, rolls_back: bool) -> None:
        """Note that the operation has ended."""
        self.over, self.rolls_back = True, rolls_back

    def executed(self, connection: Any, sort: Sort, cursor: Any, sql: str) -> None:
        """Note a statement that went well."""
        if self.rolled_back and self._there and sort != "rollback":
            self.refused = None  # it looked what was there instead, say
        if sort == "read":
            return
        if sort == "passing":
            self._of(connection).passing = True
            return
        if sort == "savepoint":
            transaction = self._of(connection)
            transaction.savepoints.append((savepoint_in(sql), transaction.wrote))
            return
        if sort == "rollback to":
            self.lost |= self._of(connection).roll_back_to(savepoint_in(sql))
            self.rolled_back = True
            return
        if sort == "write" and getattr(cursor, "rowcount", -1) != 0:
            self._of(connection).wrote = True
        if sort == "rollback":
            self.ended(connection, committed=False)
        elif sort == "commit" or is_idle(connection):
            self.ended(connection, committed=True)
        elif sort == "unknown" and is_undetermined(sql):
            transaction = self._of(connection)
            transaction.undetermined.append(sql)
            transaction.passing = transaction.passing or passes(sql)

    def failed(self, connection: Any, sort: Sort, error: BaseException, sql: str) -> None:
        """Note a statement that raised."""
        if _is_broken(connection, error):
            self._of(connection).broken = True
        if sort == "write":
            self.refused, self.rolled_back = classify(error).name, False
            self._there = _says_there(error)
        elif sort == "unknown" and is_idle(connection) and first_word(sql) in ("call", "do"):
            self.committed = True  # what a procedure committed before it raised

    def ended(self, connection: Any, *, committed: bool) -> None:
        """Note the end of a connection's transaction."""
        transaction = self.pending.pop(id(connection), None)
        if committed and not (transaction is not None and transaction.broken):
            self.committed = True
            if transaction is not None:
                self.kept = self.kept or transaction.wrote
                self._maybe_kept = self._maybe_kept or bool(transaction.undetermined)
            return
        self.rolled_back = self.rolled_back or not committed
        if transaction is not None and transaction.wrote:
            self.lost = True

    def _of(self, connection: Any) -> Transaction:
        found = self.pending.get(id(connection))
        if found is None:
            found = self.pending[id(connection)] = Transaction()
        return found


class Strays:
    """Commits that are nobody's in flight: a thread's without context, a background task's."""

    count = 0


strays = Strays()
# A context variable: tasks of the operation's own, and asyncio.to_thread, take it along.
current_effects: ContextVar[Effects | None] = ContextVar("current_effects", default=None)


def is_idle(connection: Any) -> bool:
    """Return whether the driver's connection is in no transaction; True where it cannot tell."""
    driver = getattr(connection, "driver_connection", connection)
    if (asks := getattr(driver, "is_in_transaction", None)) is not None:  # asyncpg
        return not asks()
    if (info := getattr(driver, "info", None)) is not None:  # psycopg
        return int(getattr(info, "transaction_status", 0)) == 0
    if (inside := getattr(driver, "in_transaction", None)) is not None:  # sqlite
        return not inside
    autocommit = getattr(connection, "autocommit", True)
    return bool(autocommit() if callable(autocommit) else autocommit)


def _says_there(error: BaseException) -> bool:
    """Return whether a write was refused because what it wanted to make is there."""
    state = sqlstate_of(error)
    return state in _THERE or (state is None and any(t in str(error) for t in _THERE_ON_SQLITE))


def _is_broken(connection: Any, error: BaseException) -> bool:
    """Return whether PostgreSQL has given the transaction up after this error of a statement."""
    driver = getattr(connection, "driver_connection", connection)
    if hasattr(driver, "is_in_transaction"):  # asyncpg, whose own errors have no severity
        return getattr(error.__cause__ or error, "severity", None) is not None
    return getattr(getattr(driver, "info", None), "transaction_status", 0) == _IN_ERROR
