"""Whether an operation that returned has done its work: what it returned, and what it kept."""

from __future__ import annotations

import dis
import inspect
import warnings
from asyncio import CancelledError, Future
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, suppress
from itertools import islice
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from ...concurrency.tasks import holder
from ...database.sqlalchemy_private import is_session_to_begin
from ...failures.classification import CANCELLED, Failure, classify
from ...failures.error_attributes import class_name
from ...failures.source_lines import short_path
from ..effects import Effects, current_effects
from ..workload import Operation
from .in_flight import Flight

# A cancellation that nobody here asked for is an error of the operation's like any other.
CANCELLED_INSIDE = Failure("CancelledError")
NOT_AWAITED = "not awaited"
NOT_COMMITTED = "not committed"
# Of a list that was returned: to look at all of a million rows is not what is measured.
_MOST = 16


class WorkNotDone(Exception):  # noqa: N818  not an error of anybody's code: a verdict on it
    """An operation ended well, and its work is not done."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(name)


def effects_so_far() -> Effects:
    """Return what the operation at work, or its present try, has done."""
    effects = current_effects.get()
    assert effects is not None
    return effects


def failure_of(error: BaseException) -> Failure:
    """Return what an operation failed of that nobody of ours has cancelled."""
    if isinstance(error, WorkNotDone):
        return error.failure
    if isinstance(error, CancelledError):
        # Cancelled while a COMMIT was under way, or after it, it may be kept.
        effects = effects_so_far()
        return CANCELLED if effects.committed or effects.raw else CANCELLED_INSIDE
    if not isinstance(error, Exception | BaseExceptionGroup):
        return Failure(class_name(error))
    try:
        return classify(error)
    except BaseException:  # an application's exception may do anything when it is looked at
        return Failure(class_name(error))


def check_work(operation: Operation, value: list[object], effects: Effects) -> None:
    """
    Raise `WorkNotDone` where what was returned, or not committed, says that it is not.

    The value is taken out of its list, so that nobody holds it: a coroutine in it, however deep,
    ends with it, and says that it was not awaited.
    """
    if value[0] is not None:
        _check_value(operation, value[0])
    value.clear()
    flight = holder.get()
    if isinstance(flight, Flight) and flight.unawaited is not None:
        raise WorkNotDone(NOT_AWAITED, f"nobody awaited {flight.unawaited}")
    if not operation.rolls_back and (why := effects.not_done) is not None:
        raise WorkNotDone(
            NOT_COMMITTED, f"{why} (an operation that is to roll back says rolls_back=True)"
        )


def _check_value(operation: Operation, value: object) -> None:
    for one in _values(value):
        if isinstance(one, BaseException):
            raise WorkNotDone(classify(one).name, f"returned {type(one).__name__}: {one}") from one
        if isinstance(one, Awaitable | AsyncIterator) and not isinstance(one, Future):
            _close(one)
            raise WorkNotDone(NOT_AWAITED, f"returned {_described(one)} that nobody awaited")
        if (what := _not_begun(one)) is not None:
            raise WorkNotDone(NOT_AWAITED, f"returned {what}, of which nothing was done")
        status = _status_of(one)
        limit = operation.failing_status
        if status is not None and limit is not None and status >= limit:
            raise WorkNotDone(f"HTTP {status}", f"returned a response with status {status}")


def _values(value: object) -> Iterable[object]:
    """Return what was returned, or the first of several."""
    if type(value) is dict:
        return islice(value.values(), _MOST)
    return value[:_MOST] if type(value) in (list, tuple) else (value,)  # type: ignore[index]


def _not_begun(value: object) -> str | None:
    """Return what a value is that does nothing until it is iterated or entered, and was not."""
    if isinstance(value, map | filter):  # which do not say how far they are
        return f"a {type(value).__name__}"
    if isinstance(value, GeneratorType) and inspect.getgeneratorstate(value) == "GEN_CREATED":
        return f"a generator ({value.__qualname__})"
    if is_session_to_begin(value):
        return "a session to begin"
    if isinstance(value, AbstractAsyncContextManager | AbstractContextManager):
        made = inspect.getattr_static(value, "gen", None)  # as contextlib's decorators make it
        if isinstance(made, GeneratorType) and inspect.getgeneratorstate(made) == "GEN_CREATED":
            return f"a context manager ({made.__qualname__})"
        if isinstance(made, AsyncGeneratorType) and is_created(made):
            return f"a context manager ({made.__qualname__})"
    return None


def is_created(generator: AsyncGeneratorType[Any, Any]) -> bool:
    """Return whether an async generator has not begun; Python 3.11 does not tell by itself."""
    asked = getattr(inspect, "getasyncgenstate", None)
    if asked is not None:
        return bool(asked(generator) == "AGEN_CREATED")
    frame = generator.ag_frame
    at = frame.f_code.co_code[frame.f_lasti] if frame is not None else -1
    return at == dis.opmap["RETURN_GENERATOR"]


def _status_of(value: object) -> int | None:
    """Return the status of an HTTP response, of whatever library; None for anything else."""
    with suppress(Exception):  # any attribute of a user's object may raise
        status = getattr(value, "status_code", None)
        if status is None and hasattr(value, "headers"):
            status = getattr(value, "status", None)
        if isinstance(status, int) and not isinstance(status, bool):
            return int(status)
    return None


def _described(value: object) -> str:
    kind = "an async generator" if isinstance(value, AsyncIterator) else "a coroutine"
    name = getattr(value, "__qualname__", type(value).__name__)
    return f"{kind} ({name})"


def _close(value: object) -> None:
    """Have no warning of it besides."""
    if inspect.iscoroutine(value):
        value.close()


@contextmanager
def unawaited_noted() -> Iterator[None]:
    """Note in the operation at work each coroutine that is dropped without having been awaited."""
    name = "_warn_unawaited_coroutine"  # what Python itself calls, by this name
    warn: Callable[[Any], None] | None = getattr(warnings, name, None)
    if warn is None:
        yield
        return

    def note_and_warn(coroutine: Any) -> None:
        flight = holder.get()
        if isinstance(flight, Flight) and flight.unawaited is None:
            code = coroutine.cr_code
            flight.unawaited = (
                f"{coroutine.__qualname__} ({short_path(code.co_filename)}:{code.co_firstlineno})"
            )
        warn(coroutine)

    setattr(warnings, name, note_and_warn)
    try:
        yield
    finally:
        setattr(warnings, name, warn)
