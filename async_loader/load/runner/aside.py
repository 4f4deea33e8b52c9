"""
What operations give to threads: to pools, to a loop from elsewhere, to threads of their own.

Such a future, unlike asyncio's, tells nobody of an exception that nobody has asked for. So those
that are made within an operation know it, and say so when they are forgotten. It is noted from
any thread, in `Metrics.late`, and counted where the run is watched.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from typing import Any
from weakref import WeakSet

from ...concurrency.tasks import holder
from ...failures.classification import Failure, classify
from ...failures.tracebacks import Sample
from ..effects import left_undone
from ..metrics.metrics import Metrics
from .in_flight import Flight

CUT_OFF = Failure("background task cut off")
NOT_KEPT = Failure("background task: not committed")
_OF = "_of_operation"  # in the dictionary of a future, a thread, an exception
_ASKED = "_was_asked"

_futures: WeakSet[Future[Any]] = WeakSet()


@contextmanager
def aside_counted() -> Iterator[None]:
    """Have what operations give to threads known as theirs, until the block ends."""
    with ExitStack() as stack:
        for owner, name, wrap in (
            (ThreadPoolExecutor, "submit", _submit),
            (asyncio, "run_coroutine_threadsafe", _marking),
            (asyncio.tasks, "run_coroutine_threadsafe", _marking),
            (Future, "result", _asking),
            (Future, "exception", _asking),
            (Future, "__del__", _forgetting),
            (threading.Thread, "start", _start),
            (threading, "excepthook", _taking),
        ):
            stack.callback(_replaced(owner, name, wrap))
        yield


def owner_of(error: BaseException) -> Flight | None:
    """Return the operation in whose thread an exception was raised, as far as that is known."""
    return _flight(vars(error).get(_OF))


def note_failed(flight: Flight, error: BaseException, what: str = "task") -> None:
    """Note, in any thread, that what an operation left in the background has failed."""
    failure = Failure(f"background {what}: {classify(error).name}")
    flight.metrics.late.append((flight.left_undone, failure, error, None))


def settle(metrics: Metrics) -> None:
    """Count what was noted; where the counting is done."""
    while metrics.late:
        left_undone, *how = metrics.late.popleft()
        left_undone(*how)


def at_work(metrics: Metrics) -> dict[Future[Any], Flight]:
    """Return the futures that operations which ended well have left, and that are not done."""
    found = {future: vars(future)[_OF] for future in tuple(_futures) if not future.done()}
    return {
        future: flight
        for future, flight in found.items()
        if flight.metrics is metrics and flight.ended and flight.failure is None
    }


def cut_off(flight: Flight, seconds: float) -> None:
    """Count what is at work in a thread as cut off."""
    told = f"a thread's work had not ended {seconds:g} s after the last operation"
    flight.left_undone(CUT_OFF, None, Sample(f"{told} (what lives on is started in the set-up)"))


def end_aside(metrics: Metrics, seconds: float) -> None:
    """Wait so long for what was given to threads; count the rest as cut off. Blocks."""
    left = at_work(metrics)
    _, late = concurrent.futures.wait(left, timeout=seconds)
    for future in late:
        cut_off(left[future], seconds)
    count_unasked(metrics)


def count_unasked(metrics: Metrics) -> None:
    """Count what failed and is kept by somebody who does not ask, and what was not committed."""
    for flight, why in left_undone():
        if isinstance(flight, Flight):
            flight.left_undone(NOT_KEPT, None, Sample(f"behind the operation's end, {why}"))
    for future in tuple(_futures):
        if vars(future)[_OF].metrics is metrics and future.done():
            _tell_if_unasked(future)
    settle(metrics)


def _flight(found: object) -> Flight | None:
    return found if isinstance(found, Flight) else None


def _submit(submit: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    @wraps(submit)
    def submit_as_its(
        self: ThreadPoolExecutor, work: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        flight = _flight(holder.get())
        if flight is None:
            return submit(self, work, *args, **kwargs)

        def as_its(*args: Any, **kwargs: Any) -> Any:
            token = holder.set(flight)
            try:
                return work(*args, **kwargs)
            finally:
                holder.reset(token)

        return _marked(submit(self, as_its, *args, **kwargs), flight)

    return submit_as_its


def _marking(hand_over: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    @wraps(hand_over)
    def hand_over_as_its(*args: Any, **kwargs: Any) -> Future[Any]:
        flight = _flight(holder.get())
        future = hand_over(*args, **kwargs)
        return future if flight is None else _marked(future, flight)

    return hand_over_as_its


def _marked(future: Future[Any], flight: Flight) -> Future[Any]:
    vars(future)[_OF] = flight
    _futures.add(future)
    return future


def _asking(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def ask(self: Future[Any], *args: Any, **kwargs: Any) -> Any:
        flight = vars(self).get(_OF)
        if flight is None:
            return method(self, *args, **kwargs)
        vars(self)[_ASKED] = True
        answer = method(self, *args, **kwargs)
        if isinstance(answer, BaseException):  # which may be handed on to asyncio's future
            vars(answer)[_OF] = flight
        return answer

    return ask


def _forgetting(forget: Callable[..., None] | None) -> Callable[..., None]:
    def forget_and_tell(self: Future[Any]) -> None:
        if forget is not None:
            forget(self)
        _tell_if_unasked(self)

    return forget_and_tell


def _tell_if_unasked(future: Future[Any]) -> None:
    flight = _flight(vars(future).get(_OF))
    if flight is None or _ASKED in vars(future):
        return
    with suppress(concurrent.futures.CancelledError, TimeoutError):
        error = future.exception(timeout=0)
        if error is not None:
            note_failed(flight, error)


def _start(start: Callable[..., None]) -> Callable[..., None]:
    @wraps(start)
    def start_as_its(self: threading.Thread) -> None:
        vars(self)[_OF] = _flight(holder.get())
        start(self)

    return start_as_its


def _taking(hook: Callable[[Any], object]) -> Callable[[Any], None]:
    def take(args: Any) -> None:
        flight = _flight(vars(args.thread).get(_OF)) if args.thread is not None else None
        if flight is not None and args.exc_value is not None and args.exc_type is not SystemExit:
            note_failed(flight, args.exc_value, "thread")
        hook(args)

    return take


def _replaced(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Callable[[], None]:
    """Replace an attribute; return what puts it back, unless somebody has replaced ours."""
    before = vars(owner).get(name)
    ours = wrap(before)
    setattr(owner, name, ours)

    def restore() -> None:
        if vars(owner).get(name) is not ours:
            return
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)

    return restore
