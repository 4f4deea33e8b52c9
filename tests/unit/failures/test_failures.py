from __future__ import annotations

import asyncio
import errno

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from async_loader.failures.classification import (
    CANCELLED,
    CLOSED,
    DROPPED,
    NO_SERVER,
    POOL_TIMEOUT,
    REFUSED,
    RESET,
    TIMEOUT,
    Backoff,
    Failure,
    classify,
    may_be_retried,
    sqlstate_of,
)


class DriverError(Exception):
    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("driver's words")
        self.sqlstate = sqlstate


def wrapped(orig: BaseException, invalidated: bool = False) -> DBAPIError:
    return DBAPIError("SELECT 1", {}, orig, connection_invalidated=invalidated)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (wrapped(DriverError("40001")), Failure("40001 serialization_failure")),
        (wrapped(DriverError("40P01")), Failure("40P01 deadlock_detected")),
        (wrapped(DriverError("53300")), Failure("53300 too_many_connections")),
        (wrapped(DriverError("99999")), Failure("99999")),
        (wrapped(DriverError("57P01")), Failure("57P01 admin_shutdown", reply_lost=True)),
        (
            wrapped(DriverError("08003"), invalidated=True),
            Failure("08003 connection_does_not_exist", reply_lost=True),
        ),
        (wrapped(DriverError(None), invalidated=True), CLOSED),
        (wrapped(DriverError(None)), Failure("DBAPIError")),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), REFUSED),
        (FileNotFoundError(errno.ENOENT, "no socket"), NO_SERVER),
        (ConnectionResetError(errno.ECONNRESET, "reset"), RESET),
        (wrapped(ConnectionResetError(errno.ECONNRESET, "reset"), invalidated=True), RESET),
        (ConnectionError("unexpected connection_lost() call"), DROPPED),
        (ConnectionResetError("Cannot write to closing transport"), RESET),
        (TimeoutError(), TIMEOUT),
        (PoolTimeoutError(), POOL_TIMEOUT),
        (asyncio.CancelledError(), CANCELLED),
        (ValueError("the workload's own"), Failure("ValueError")),
        (
            ExceptionGroup("", [ExceptionGroup("", [ValueError()]), KeyError()]),
            Failure("ValueError"),
        ),
        (ExceptionGroup("", [wrapped(DriverError("99999"))]), Failure("99999")),
    ],
)
def test_each_failure_has_one_name(error: BaseException, failure: Failure) -> None:
    found = classify(error)
    assert (found.name, found.reply_lost) == (failure.name, failure.reply_lost)


def test_the_cause_tells_what_a_wrapper_does_not() -> None:
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError("the application's wrapper") from wrapped(DriverError("40001"))
    assert classify(caught.value).name == "40001 serialization_failure"
    assert sqlstate_of(caught.value) == "40001"
    assert sqlstate_of(ValueError()) is None


def test_the_pause_is_as_long_as_the_failure_goes_on() -> None:
    backoff = Backoff()
    assert backoff.pause(REFUSED, 100.0) == Backoff.SHORTEST
    assert backoff.pause(REFUSED, 100.01) == Backoff.SHORTEST
    assert backoff.pause(REFUSED, 100.25) == pytest.approx(0.25)
    assert backoff.pause(REFUSED, 100.5) == pytest.approx(0.5)
    assert backoff.pause(REFUSED, 102.0) == REFUSED.pause


def test_a_failure_that_was_away_begins_anew_and_each_has_its_own_pause() -> None:
    backoff = Backoff()
    backoff.pause(REFUSED, 100.0)
    assert backoff.pause(REFUSED, 101.9) == REFUSED.pause
    assert backoff.pause(NO_SERVER, 101.9) == Backoff.SHORTEST
    assert backoff.pause(REFUSED, 104.5) == Backoff.SHORTEST


def test_most_failures_are_no_reason_to_wait() -> None:
    backoff = Backoff()
    assert backoff.pause(classify(wrapped(DriverError("23505"))), 0.0) == 0.0
    assert backoff.pause(TIMEOUT, 0.0) == 0.0
    full = classify(wrapped(DriverError("53300")))
    assert backoff.pause(full, 0.0) == Backoff.SHORTEST
    assert backoff.pause(full, 9.0) == 9.0
    assert backoff.pause(full, 25.0) == full.pause == 10.0


def raised_while(error: BaseException, before: BaseException) -> BaseException:
    error.__context__ = before
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (wrapped(DriverError("40001")), True),
        (wrapped(DriverError("40P01")), True),
        (wrapped(DriverError("55P03")), False),
        (wrapped(DriverError("08006")), False),
        (wrapped(DriverError("57P01")), False),
        (ValueError("the workload's own"), False),
        (raised_while(ValueError("wrapped"), wrapped(DriverError("40001"))), True),
        (raised_while(wrapped(DriverError("08006")), wrapped(DriverError("40001"))), False),
        # The operation tried again by itself, after a COMMIT without a reply.
        (raised_while(wrapped(DriverError("40001")), wrapped(DriverError("08006"))), False),
        (raised_while(wrapped(DriverError("40001")), TimeoutError()), False),
    ],
)
def test_only_what_was_surely_not_done_is_tried_again(error: BaseException, expected: bool) -> None:
    assert may_be_retried(error) is expected
