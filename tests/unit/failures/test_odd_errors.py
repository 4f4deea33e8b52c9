"""Exceptions that cannot be looked at as others can: each is one failed operation, told in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from async_loader import ConfigurationError, OperationContext, Workload, run
from async_loader.reports import console, html, junit, markdown

OPS = 10


class MuteError(Exception):
    """Whatever is asked of it raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise SystemExit(0)

    def __bool__(self) -> bool:
        raise RuntimeError


class YesError(Exception):
    """Whatever is asked of it, it has: as a mock does."""

    def __getattr__(self, name: str) -> Any:
        return self


class WordsError(Exception):
    def __getattr__(self, name: str) -> Any:
        return name


class WireError(Exception):
    """As of a bank's protocol, in which `orig` is the originating country."""

    orig, sqlstate, detail, diag = "FRA", 40001, 7, "none"


class ExitsError(Exception):
    @property
    def status_code(self) -> int:
        raise SystemExit(1)

    @property
    def sqlstate(self) -> str:
        raise KeyError("state")


class UnequalError(Exception):
    __hash__ = None  # type: ignore[assignment]  # as a class that has only __eq__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError


class NotedError(Exception):
    def __init__(self) -> None:
        super().__init__("noted")
        self.__notes__ = 5  # type: ignore[assignment]  # nobody checks


def in_a_circle() -> Exception:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def after_thousands() -> Exception:
    last: Exception = ValueError("first")
    for number in range(5_000):
        last, before = ValueError(f"try {number}"), last
        last.__cause__ = before
    return last


def thousands_deep() -> Exception:
    inner: Exception = ValueError("innermost")
    for _ in range(3_000):
        inner = ExceptionGroup("around", [inner])
    return inner


def of_thousands() -> Exception:
    return ExceptionGroup("many", [ValueError(str(number)) for number in range(5_000)])


def named(name: str) -> Callable[[], Exception]:
    return lambda: type(name, (Exception,), {})("named")


KINDS: list[tuple[Callable[[], BaseException], str, str]] = [
    (MuteError, "MuteError", "MuteError"),
    (YesError, "YesError", "YesError"),
    (lambda: WordsError("said"), "WordsError", "said"),
    (lambda: WireError("refused"), "WireError", "refused"),
    (lambda: ExitsError("left"), "ExitsError", "left"),
    (lambda: UnequalError("other"), "UnequalError", "other"),
    (NotedError, "NotedError", "noted"),
    (in_a_circle, "ValueError", "one"),
    (after_thousands, "ValueError", "try 4999"),
    (thousands_deep, "ValueError", "ValueError"),
    (of_thousands, "ValueError", "0 (and 4999 more in its group)"),
    (named("Red\x1b[31m\nline"), "Red?[31m?line", "named"),
    (named("N" * 10_000), "N" * 100, "named"),
    (MemoryError, "MemoryError", "MemoryError"),
    (lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "UnicodeDecodeError", "0xff"),
    (lambda: SyntaxError("no", ("f\x00.py", 3, None, "a")), "SyntaxError", "no"),
]


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    KINDS,
    ids=[getattr(make, "__name__", "?").replace("<lambda>", kind[:9]) for make, kind, _ in KINDS],
)
@pytest.mark.timeout(30)
async def test_an_odd_error_is_one_failed_operation(
    make: Callable[[], BaseException], kind: str, told: str
) -> None:
    workload = Workload("odd")

    @workload.operation("odd", kind="read")
    async def odd(op: OperationContext) -> None:
        await asyncio.sleep(0)
        if op.index == OPS // 2:
            raise make()

    result = await run(workload, ops=OPS, concurrency=2)
    assert (result.completed, result.failed) == (OPS - 1, 1)
    ((name, error),) = result.errors.items()
    assert name == kind
    assert told in error.sample
    for report in (console, html, junit, markdown):
        assert kind[:3] in report.render(result)
    assert "\x1b" not in console.render(result)


@pytest.mark.parametrize("name", ["", " ", "two\nlines", "\x1b[31mred", 7, None])
def test_a_name_that_cannot_be_shown_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="the name of an operation is a line of text"):
        Workload("named").operation(name)
