"""The effects of one operation, and the variable that holds those of the one at work."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from ..failures import classify
from .statements import Sort, first_word

_IN_ERROR = 3  # libpq's PQTRANS_INERROR


class Transaction:
    """What an operation did on one connection since that was last idle."""

    __slots__ = ("broken", "wrote")

    def __init__(self) -> None:
        self.wrote = False
        self.broken = False
        """Whether PostgreSQL will answer COMMIT by ROLLBACK: a statement of it has failed."""


class Effects:
    """
    What one operation, or one try of it, has done so far.

    `committed`: anything at all, or what may have been; `kept`: something that it wrote;
    `lost`: what it wrote and rolled back; `refused`: a write raised, and what followed did not
    make up for it; `unsaved`: a session was closed with objects that were never flushed;
    `raw`: a driver was used behind the engine's back; `over`: it has ended.
    """

    __slots__ = (
        "_strays",
        "committed",
        "kept",
        "lost",
        "over",
        "pending",
        "raw",
        "refused",
        "rolled_back",
        "unsaved",
    )

    def __init__(self) -> None:
        self.committed = self.kept = self.lost = self.raw = self.over = False
        self.rolled_back = False
        self.refused: str | None = None
        self.unsaved = 0
        self.pending: dict[int, Transaction] = {}
        self._strays = strays.count

    @property
    def may_have_committed(self) -> bool:
        """Whether to do it again may do something twice."""
        return self.committed or self.raw or self._strays != strays.count

    @property
    def wrote(self) -> bool:
        """Whether it wrote, or tried to, as far as statements tell."""
        if self.kept or self.lost or self.refused is not None or self.unsaved:
            return True
        return any(transaction.wrote for transaction in self.pending.values())

    @property
    def not_done(self) -> str | None:
        """What is to be said of an operation that ended well and kept nothing; None: nothing."""
        if self.kept or self.raw:
            return None
        if self.refused is not None:
            return f"it went on after {self.refused}, and nothing that it wrote was committed"
        if self.lost or any(transaction.wrote for transaction in self.pending.values()):
            return "nothing that it wrote was committed"
        if self.unsaved:
            return "objects of its session were never flushed and committed"
        return None

    def executed(self, connection: Any, sort: Sort, cursor: Any) -> None:
        """Note a statement that went well."""
        if self.rolled_back and sort != "rollback":
            self.refused = None  # it looked what was there instead, say
        if sort == "read":
            return
        if sort == "rollback to":
            self._of(connection).broken, self.rolled_back = False, True
            return
        if sort == "write" and getattr(cursor, "rowcount", -1) != 0:
            self._of(connection).wrote = True
        if sort == "rollback":
            self.ended(connection, committed=False)
        elif sort == "commit" or is_idle(connection):
            self.ended(connection, committed=True)

    def failed(self, connection: Any, sort: Sort, error: BaseException, sql: str) -> None:
        """Note a statement that raised."""
        if _is_broken(connection, error):
            self._of(connection).broken = True
        if sort == "write":
            self.refused, self.rolled_back = classify(error).name, False
        elif sort == "unknown" and is_idle(connection) and first_word(sql) in ("call", "do"):
            self.committed = True  # what a procedure committed before it raised

    def ended(self, connection: Any, *, committed: bool) -> None:
        """Note the end of a connection's transaction."""
        transaction = self.pending.pop(id(connection), None)
        if committed and not (transaction is not None and transaction.broken):
            self.committed = True
            self.kept = self.kept or (transaction is not None and transaction.wrote)
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


def _is_broken(connection: Any, error: BaseException) -> bool:
    """Return whether PostgreSQL has given the transaction up after this error of a statement."""
    driver = getattr(connection, "driver_connection", connection)
    if hasattr(driver, "is_in_transaction"):  # asyncpg, whose own errors have no severity
        return getattr(error.__cause__ or error, "severity", None) is not None
    return getattr(getattr(driver, "info", None), "transaction_status", 0) == _IN_ERROR
