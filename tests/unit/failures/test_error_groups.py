"""Failures in groups that tell faults apart, and texts that hold no secret and send no code."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from async_loader.failures.classification import Failure, classify
from async_loader.failures.redaction import redacted
from async_loader.failures.tracebacks import sample_of
from async_loader.load.metrics.check_tally import MOST_NAMES, CheckTally
from async_loader.load.metrics.error_tally import ErrorTally
from async_loader.results.errors import ErrorResult, merged_errors


def raised(error: BaseException) -> BaseException:
    try:
        raise error  # noqa: TRY301  its traceback is what is wanted
    except BaseException as caught:
        return caught


def counted(*errors: BaseException) -> dict[str, ErrorResult]:
    tally = ErrorTally()
    for error in errors:
        tally.count("op", classify(error), error)
    return tally.result()


class HttpError(Exception):
    def __init__(self, status: object, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status_code, self.detail = status, detail


class UniqueError(Exception):
    sqlstate = "23505"

    def __init__(self, constraint: str) -> None:
        super().__init__("duplicate key")
        self.constraint_name = constraint
        self.detail = "Key (name)=(ann) already exists."

    def __str__(self) -> str:
        return f"duplicate key of {self.constraint_name}\nDETAIL:  {self.detail}"


def test_a_kind_with_one_fault_goes_by_its_name() -> None:
    assert list(counted(*(raised(ValueError(f"order {n} is gone")) for n in range(5)))) == [
        "ValueError"
    ]


def test_two_messages_of_one_line_are_both_told() -> None:
    found = counted(*(raised(ValueError(f"no {what}")) for what in ("stock", "price", "price")))
    assert [(error.sample, error.count) for error in found.values()] == [
        ("no price", 2),
        ("no stock", 1),
    ]
    assert all(name.startswith("ValueError at ") for name in found)


def test_a_constraint_tells_more_than_a_line() -> None:
    found = counted(raised(UniqueError("user_email_key")), raised(UniqueError("user_name_key")))
    assert set(found) == {
        "23505 unique_violation of user_email_key",
        "23505 unique_violation of user_name_key",
    }
    assert "ann" not in str(found)


@pytest.mark.parametrize("status", [404, HTTPStatus.NOT_FOUND])
def test_an_http_status_is_part_of_the_kind_and_its_detail_is_shown(status: object) -> None:
    found = counted(raised(HttpError(status, "Order 17 is gone")), raised(HttpError(409, "out")))
    assert set(found) == {"HttpError 404", "HttpError 409"}
    assert "Order 17 is gone" in found["HttpError 404"].sample


def test_faults_are_bounded() -> None:
    tally = ErrorTally()
    for number in range(1000):
        tally.count("op", Failure(f"kind {number}"), raised(ValueError()))
    for letter in "abcdefghijkl":
        tally.count("op", Failure("kind 0"), raised(ValueError(letter)))
    found = tally.result()
    assert len(found) == 101
    assert found["(other failures)"].count == 900
    assert sum(error.count for error in found.values()) == 1012


def test_shards_with_one_fault_each_have_two_and_with_the_same_have_one() -> None:
    first, second = (counted(raised(ValueError(f"no {what} 7"))) for what in ("stock", "price"))
    both = merged_errors(first, second)
    assert [error.count for error in both.values()] == [1, 1]
    again = merged_errors(both, counted(raised(ValueError("no price 8"))))
    assert sorted(error.count for error in again.values()) == [1, 2]
    assert [error.count for error in merged_errors(first, first).values()] == [2]


class AnsweringError(Exception):
    def __getattr__(self, name: str) -> object:
        return lambda *args: args


class RaisingError(Exception):
    @property
    def sqlstate(self) -> str:
        raise RuntimeError

    orig = "FRA"
    status_code = "gone"


@pytest.mark.parametrize("error", [AnsweringError("odd"), RaisingError("odd")])
def test_odd_attributes_are_no_trouble(error: Exception) -> None:
    (found,) = counted(raised(error)).values()
    assert (found.kind, found.sample) == (type(error).__name__, "odd")


@pytest.mark.parametrize(
    "text",
    [
        "https://api/x?api_key=s3cret",
        "Authorization: Bearer s3cret.s3cret",
        "token=s3cret",
        '{"access_token": "s3cret of two"}',
        "password='s3cret of two'",
        "x-api-key: s3cret",
        "Cookie: a=s3cret; b=s3cret",
        "https://s3cret0123456789abcdef@github.com/x",
        "redis://:s3cret@cache/0",
        "client_secret => s3cret",
        "Basic czNjcmV0OnMzY3JldA==s3cret".replace("==s3cret", "=="),
    ],
)
def test_secrets_are_masked(text: str) -> None:
    shown = redacted(f"401 from {text}", ValueError())
    assert "***" in shown
    assert "s3cret" not in shown
    assert "czNj" not in shown


def test_codes_are_shown_and_not_sent() -> None:
    sample = sample_of(raised(ValueError("\x1b[2J\x9b1m\x00 caf\udce9\u202e \ttab")), "ValueError")
    assert sample.message == r"\x1b[2J\x9b1m\x00 caf\udce9\u202e tab"
    assert sample.traceback is not None
    assert sample.traceback.isprintable() or "\x1b" not in sample.traceback


@pytest.mark.parametrize("part", ["x", "token", "://", "://:", "pass", "sk-", "'", "key=", "1"])
def test_a_long_message_is_cut_before_it_is_searched(part: str) -> None:
    """To search all of it would take longer than a test may."""
    error = raised(ValueError(part * (50_000_000 // len(part))))
    sample = sample_of(error, "ValueError")
    assert len(sample.message) <= 500


def test_a_statement_that_is_cut_shows_no_literal() -> None:
    class DriverError(Exception):
        sqlstate = "42601"
        statement = f"SELECT {', '.join(['s3cret'.join(2 * [chr(39)])] * 5000)}"

    error = raised(DriverError(f"syntax error in {DriverError.statement}"))
    sample = sample_of(error, "42601")
    assert "s3cret" not in str(sample)


def test_names_of_checks_are_bounded_and_what_failed_keeps_its_own() -> None:
    tally = CheckTally()
    for number in range(10_000):
        tally.count(f"order {number} is there", number not in (7_000, 7_001))
    for name in ("ann", "bob", "cem"):
        for word in range(1000):
            tally.count(f"{name} {'abcdefghij'[word % 10] * (word // 10 + 1)}", True)
    found = tally.result()
    assert len(found) <= 3 * MOST_NAMES + 2
    assert found["order 7000 is there"].failed == 1
    assert found["order … is there"].passed == 10_000 - MOST_NAMES - 2
    assert sum(check.passed + check.failed for check in found.values()) == 13_000
