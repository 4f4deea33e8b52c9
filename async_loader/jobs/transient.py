"""
Which failures pass by themselves, and how long to wait for that.

They are retried, never skipped: a row is not to blame for a server that went down.
"""

from __future__ import annotations

import math
import random
import re

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ..concurrency.clock import Clock
from ..database.postgresql import first_line
from ..errors import DatabaseError
from ..failures.classification import CLOSED, classify, sqlstate_of

_STATES = frozenset(
    (
        "40001", "40P01", "55P03",  # a serialization failure, a deadlock, a lock not available
        "53000", "53100", "53200", "53300", "53400",  # disk, memory, connections, a limit
        "58000", "58030", "58P01",  # I/O, a file of the server's
        "55006", "72000",  # in use by another, a snapshot that is too old
        "25006",  # read-only: a standby, or a server whose disk is nearly full
        "57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04",  # down, or we are cut off
    )
)  # fmt: skip
# No login any more, or no database: who is let in before the job begins is let in again.
_NO_LOGIN = ("28000", "28P01", "3D000")
# What is said of statements, privileges and indexes, and of no row: wrong SQL, COMMIT in a
# procedure, a prepared statement that a pooler has lost, corrupted data.
_OF_NO_ROW = ("42", "2D", "26", "XX001", "XX002")
# Where such states are said of a row after all: RAISE in a function, a policy of row security.
_OF_A_ROW = {"exec_stmt_raise", "ExecWithCheckOptions"}
_CANCELLED = "57014"
_LOCKED = ("SQLITE_BUSY", "SQLITE_LOCKED")
# What SQLite says of its file, of which no row is to blame, and which nobody else mends.
_FILE = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_CORRUPT",
         "SQLITE_NOTADB", "SQLITE_NOMEM", "SQLITE_PERM")  # fmt: skip

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0


def is_transient(error: BaseException, *, applying: bool = False) -> bool:
    """
    Return whether a failure passes by itself.

    `applying`: it came out of a user's function, where a missing file is a missing file and
    no missing server. Whether a statement that was cancelled passes, a clock tells
    (`is_cancelled`), and not this.
    """
    links = list(_chain(error))
    if any(map(_is_of_a_stale_plan, links)):
        return True
    state = sqlstate_of(error)
    if state is not None:
        return state in _STATES or state in _NO_LOGIN or state.startswith("08")
    if _is_of_the_file(error):
        return True
    if any(isinstance(e, DBAPIError) and e.connection_invalidated for e in links):
        return True
    if classify(error) is CLOSED or any(_is_unconnected(link) for link in links):
        return True
    passing = (ConnectionError, PoolTimeoutError)
    return any(isinstance(e, passing if applying else (*passing, OSError)) for e in links)


def is_cancelled(error: BaseException) -> bool:
    """
    Return whether a statement was cancelled, by somebody or by a limit of time.

    The server has one state for both, and words in its own language: how long it took tells.
    """
    return sqlstate_of(error) == _CANCELLED and _OF_A_ROW.isdisjoint(map(_said_by, _chain(error)))


def limit_of(setting: str) -> float:
    """Return a `statement_timeout`, as the server shows it, in seconds; infinite for none."""
    match = re.fullmatch(r"(\d+)(us|ms|s|min|h|d)?", setting)
    assert match is not None
    return int(match[1]) * _SECONDS[match[2] or "ms"] or math.inf


_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3_600, "d": 86_400}


def is_refused_login(error: BaseException) -> bool:
    """Return whether a server is there, and does not let us in."""
    return sqlstate_of(error) in _NO_LOGIN


def is_of_no_row(error: BaseException) -> bool:
    """Return whether no row can be the reason: each would fail like this, until it is mended."""
    state = sqlstate_of(error)
    if state is None or not state.startswith(_OF_NO_ROW):
        return False
    return state.startswith("XX") or _OF_A_ROW.isdisjoint(map(_said_by, _chain(error)))


def _said_by(error: BaseException) -> str:
    """Return the server's own function that says so: no language changes its name."""
    told = getattr(getattr(error, "diag", None), "source_function", None)  # psycopg's
    return str(told or getattr(error, "server_source_function", None) or "")


def _is_of_a_stale_plan(error: BaseException) -> bool:
    """Whether a statement was prepared before a table changed: the next time it is made anew."""
    if type(error).__name__ == "InvalidCachedStatementError":  # asyncpg's, and SQLAlchemy's of it
        return True
    return _said_by(error) == "RevalidateCachedQuery"  # where 0A000 is many things


def _is_of_the_file(error: BaseException) -> bool:
    """Whether SQLite's file is locked, or there is something about it."""
    names = (getattr(link, "sqlite_errorname", "") for link in _chain(error))
    return any(name.startswith((*_LOCKED, *_FILE)) for name in names)


def _is_unconnected(error: BaseException) -> bool:
    """Whether libpq speaks for itself: psycopg has no SQLSTATE of what ends or refuses a link."""
    kind = type(error)
    return kind.__module__.startswith("psycopg") and any(
        base.__name__ == "OperationalError" for base in kind.__mro__
    )


def _chain(error: BaseException | None) -> list[BaseException]:
    links: list[BaseException] = []
    while error is not None and error not in links:
        links.append(error)
        error = getattr(error, "orig", None) or error.__cause__
    return links


class RetryBudget:
    """
    Pauses that double up to two seconds, each with full jitter, until `seconds` have passed.

    Full jitter (any time up to the pause) keeps workers that failed together apart.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._since: int | None = None  # the first failure: how long a chunk takes is no matter
        self._pause = FIRST_PAUSE

    def next_pause(self, error: BaseException) -> float:
        """
        Return how long to wait; raises `DatabaseError` when that has gone on for too long.

        At once for what no time mends: a disk that is full under SQLite.
        """
        if _is_of_the_file(error):
            raise DatabaseError(
                f"SQLite cannot use its file: {first_line(_chain(error)[-1])}; "
                "the job goes on where it is when it is run again"
            ) from error
        now = self._clock.now_ns()
        self._since = now if self._since is None else self._since
        waited = (now - self._since) / 1e9
        if waited > self._seconds:
            raise DatabaseError(
                f"gave up after {waited:.0f} s: {first_line(error)}; "
                "the job goes on where it is when it is run again"
            ) from error
        pause = random.uniform(0, self._pause)  # noqa: S311  no secret
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return pause
