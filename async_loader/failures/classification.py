"""
What went wrong with an operation, as data: one name for each kind of failure.

A failure with an SQLSTATE is known by it, whatever class the driver wrapped it in: 40001,
40P01, 53300, 57P01 and 55P03 all arrive as a plain `DBAPIError`. The others have names.
`reply_lost` says that the server may have done the work all the same: a write that failed
so is *indeterminate*, and whoever repeats it may do it twice. `pause` is for failures that a
tool which goes on at full speed only makes worse, and of which it could count thousands a
second that mean nothing.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from .error_attributes import (
    MOST_LINKS,
    attribute,
    class_name,
    constraint_of,
    http_status,
    sqlstate_in,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """
    One kind of failure.

    `name` in reports; `reply_lost`: the work may be done all the same; `pause`: the longest,
    in seconds, that whoever met it waits before the next attempt (see `Backoff`).
    """

    name: str
    reply_lost: bool = False
    pause: float = 0.0


# A server that is down or starting is tried again within a second of its return.
_SERVER_PAUSE = 1.0
# Connections that others hold come back when they please, if at all.
_FULL_PAUSE = 10.0

# Ours or the driver's deadline, and a cancellation: nobody waited for the reply.
TIMEOUT = Failure("timeout", reply_lost=True)
CANCELLED = Failure("cancelled", reply_lost=True)
# Nobody listens, so nobody was asked.
REFUSED = Failure("connection refused", pause=_SERVER_PAUSE)
NO_SERVER = Failure("no such server", pause=_SERVER_PAUSE)
# Accepted and dropped before we were let in, as a server does that is going down: not asked.
DROPPED = Failure("connection dropped while connecting", pause=_SERVER_PAUSE)
# Broken off in the middle: what was under way may have arrived.
RESET = Failure("connection reset", reply_lost=True)
# Found closed before anything was sent: the server had ended the transaction by itself.
CLOSED = Failure("connection closed")
# The pool gave no connection: the server was not asked.
POOL_TIMEOUT = Failure("pool timeout")

# Names of the SQLSTATEs that a load meets (PostgreSQL's errcodes.txt); others go by number.
SQLSTATES = {
    "08000": "connection_exception",
    "08001": "sqlclient_unable_to_establish_sqlconnection",
    "08003": "connection_does_not_exist",  # what asyncpg says when a backend is killed in flight
    "08004": "sqlserver_rejected_establishment_of_sqlconnection",
    "08006": "connection_failure",
    "22001": "string_data_right_truncation",
    "23502": "not_null_violation",
    "23503": "foreign_key_violation",
    "23505": "unique_violation",
    "23514": "check_violation",
    "25006": "read_only_sql_transaction",
    "25P02": "in_failed_sql_transaction",
    "25P03": "idle_in_transaction_session_timeout",
    "28000": "invalid_authorization_specification",
    "28P01": "invalid_password",
    "3D000": "invalid_catalog_name",
    "40001": "serialization_failure",
    "40P01": "deadlock_detected",
    "42501": "insufficient_privilege",
    "42601": "syntax_error",
    "42703": "undefined_column",
    "42P01": "undefined_table",
    "53100": "disk_full",
    "53200": "out_of_memory",
    "53400": "configuration_limit_exceeded",
    "53300": "too_many_connections",
    "55P03": "lock_not_available",
    "57014": "query_canceled",  # statement_timeout, too
    "57P01": "admin_shutdown",
    "57P02": "crash_shutdown",
    "57P03": "cannot_connect_now",
    "57P05": "idle_session_timeout",
    "XX000": "internal_error",
}

# 08: the connection is gone, so a reply can be. 57P01 and 57P02: the server went down, and
# may have written the commit before it did.
_LOST_CLASSES = ("08",)
_LOST_STATES = ("57P01", "57P02")

# Those in which the server was never asked.
_NEVER_ASKED = ("08001", "08004")

_GIVEN_UP = ("40001", "40P01")

_PAUSES = {
    "08001": _SERVER_PAUSE,
    "08004": _SERVER_PAUSE,
    "57P03": _SERVER_PAUSE,
    "53300": _FULL_PAUSE,
    "53400": _FULL_PAUSE,
}

_BY_ERRNO = {
    errno.ECONNREFUSED: REFUSED,
    errno.ENOENT: NO_SERVER,  # a Unix socket that is not there
    errno.ECONNRESET: RESET,
    errno.EPIPE: RESET,
}

_BY_CLASS: dict[type[BaseException], Failure] = {
    PoolTimeoutError: POOL_TIMEOUT,
    asyncio.CancelledError: CANCELLED,
    TimeoutError: TIMEOUT,
    ConnectionRefusedError: REFUSED,
    ConnectionResetError: RESET,
    BrokenPipeError: RESET,
    ConnectionAbortedError: RESET,
    ConnectionError: DROPPED,  # asyncpg's own, without an errno
}


def classify(error: BaseException) -> Failure:
    """Return the failure that this exception, or one that caused it, stands for."""
    for link in _chain(error):
        failure = _classify_one(link)
        if failure is not None:
            return failure
    first = _first_of(error)
    status = http_status(first)
    return Failure(class_name(first) if status is None else f"{class_name(first)} {status}")


def may_be_retried(error: BaseException) -> bool:
    """
    Return whether the server gave the transaction up in favour of others and said so.

    That is a serialization failure or a deadlock. Not where a reply was lost on the way there:
    what was asked before may be done, and would be done twice.
    """
    return classify(error).name[:5] in _GIVEN_UP and not any(
        failure.reply_lost for link in _everything(error) if (failure := _classify_one(link))
    )


def sqlstate_of(error: BaseException) -> str | None:
    """Return the five characters of the SQLSTATE, if the error or a cause of it has one."""
    for link in _chain(error):
        state = sqlstate_in(link)
        if state is not None:
            return state
    return None


def constraint_in(error: BaseException) -> str | None:
    """Return the name of the constraint that the error, or a cause of it, broke."""
    return next((name for link in _chain(error) if (name := constraint_of(link))), None)


class Backoff:
    """
    How long to wait after a failure: as long as it has been going on, within its `pause`.

    That doubles from attempt to attempt and does not depend on how many workers meet the
    failure at once. A failure not seen for twice its longest pause begins anew.
    """

    SHORTEST = 0.05

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def pause(self, failure: Failure, now: float) -> float:
        """Return the seconds to wait after this failure, now (in seconds); 0 for most."""
        if not failure.pause:
            return 0.0
        first, last = self._seen.get(failure.name, (now, now))
        if now - last > 2 * failure.pause:
            first = now
        self._seen[failure.name] = (first, now)
        return min(max(now - first, self.SHORTEST), failure.pause)


def _classify_one(error: BaseException) -> Failure | None:
    state = sqlstate_in(error)
    if state is not None:
        return _by_sqlstate(state)
    if isinstance(error, OSError):
        return _BY_ERRNO.get(error.errno or 0) or _by_class(error)
    if isinstance(error, DBAPIError):
        return CLOSED if error.connection_invalidated and _is_innermost(error) else None
    return _by_class(error)


def _by_class(error: BaseException) -> Failure | None:
    # asyncpg's, by name because importing the driver takes long: the server's word that it ends
    # the connection has arrived, the end itself has not, and nothing more is sent.
    if type(error).__name__ == "InternalClientError":
        return CLOSED
    return next((failure for kind, failure in _BY_CLASS.items() if isinstance(error, kind)), None)


def _by_sqlstate(state: str) -> Failure:
    name = SQLSTATES.get(state)
    lost = state.startswith(_LOST_CLASSES) or state in _LOST_STATES
    return Failure(
        f"{state} {name}" if name else state,
        reply_lost=lost and state not in _NEVER_ASKED,
        pause=_PAUSES.get(state, 0.0),
    )


def _is_innermost(error: DBAPIError) -> bool:
    """Whether no SQLSTATE or errno below tells more."""
    return all(
        sqlstate_in(link) is None and attribute(link, "errno", int) is None
        for link in _chain(error)
    )


def _everything(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and all that came before it, on every way there."""
    seen: set[int] = set()
    links = [error]
    while links and len(seen) < MOST_LINKS:
        link = links.pop()
        seen.add(id(link))
        yield link
        before = (_wrapped_by(link), link.__cause__, link.__context__)
        links += [b for b in before if b is not None and id(b) not in seen]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what it wraps: the driver's own error tells most."""
    seen: set[int] = set()
    link: BaseException | None = _first_of(error)
    while link is not None and id(link) not in seen and len(seen) < MOST_LINKS:
        seen.add(id(link))
        yield link
        before = (_wrapped_by(link), link.__cause__, link.__context__)
        link = next((_first_of(one) for one in before if one is not None), None)


def _wrapped_by(error: BaseException) -> BaseException | None:
    return attribute(error, "orig", BaseException)


def _first_of(error: BaseException) -> BaseException:
    """Return what a task group failed of first: its context is but the group's own cancelling."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
