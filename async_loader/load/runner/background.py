"""What operations leave behind when they end: tasks in the background, and what becomes of them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Any

from ...concurrency.tasks import CLOSING, frames_of, holder, owned_tasks, users_tasks
from ...failures.classification import Failure
from ...failures.source_lines import frames_outwards, line_of, user_line
from ...failures.tracebacks import Sample
from ..effects import forget_what_is_done
from ..metrics.metrics import Metrics
from .aside import (
    CUT_OFF,
    aside_counted,
    at_work,
    count_unasked,
    cut_off,
    note_failed,
    owner_of,
    settle,
)
from .in_flight import Flight

TaskFactory = Callable[..., Any]
STOPPED_LOOP = Failure("loop.stop()")


class Background:
    """
    Counts an operation whose background task fails as failed.

    A workload may set a task factory or an exception handler of its own: `look`, called now and
    then, puts ours around it.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._factory: Any = None
        self._their_factory: Any = None
        self._their_handler: Any = None
        with suppress(AttributeError):  # a loop of somebody's own may refuse
            vars(self._loop)["stop"] = self._stop

    def look(self) -> None:
        """Have tasks made and errors told by way of us; count what was noted meanwhile."""
        factory = self._loop.get_task_factory()
        if factory is None:
            self._loop.set_task_factory(owned_tasks)
        elif factory is not owned_tasks and factory is not self._factory:
            self._their_factory, self._factory = factory, _adopting(factory)
            self._loop.set_task_factory(self._factory)
        handler = self._loop.get_exception_handler()
        if handler != self._take:
            self._their_handler = handler
            self._loop.set_exception_handler(self._take)
        forget_what_is_done()
        settle(self._metrics)

    def leave(self, *, made_by_us: bool) -> None:
        """Leave the loop as it was, or as the workload has set it since."""
        if self._loop.get_exception_handler() == self._take:
            self._loop.set_exception_handler(self._their_handler)
        vars(self._loop).pop("stop", None)
        factory = self._loop.get_task_factory()
        if factory is self._factory and factory is not None:
            self._loop.set_task_factory(self._their_factory)
        elif made_by_us and factory is owned_tasks:
            self._loop.set_task_factory(None)

    def _stop(self) -> None:
        flight = holder.get()
        if isinstance(flight, Flight):
            flight.left_undone(
                STOPPED_LOOP,
                None,
                Sample("it stopped the event loop", user_line(map(line_of, frames_outwards()))),
            )
        type(self._loop).stop(self._loop)

    def _take(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        future, error = context.get("task") or context.get("future"), context.get("exception")
        if isinstance(error, BaseException):
            flight, what = _owner(future) or owner_of(error), "task"
            if flight is None and "handle" in context:
                flight, what = _scheduled_by(context["handle"]), "callback"
            if flight is not None:
                note_failed(flight, error, what)
                return
        if self._their_handler is not None:
            self._their_handler(loop, context)
        else:
            loop.default_exception_handler(context)


@contextmanager
def background_counted(metrics: Metrics) -> Iterator[Background]:
    """Count an operation whose background work fails as failed, until the block ends."""
    background = Background(metrics)
    had_none = asyncio.get_running_loop().get_task_factory() is None
    with aside_counted():
        background.look()
        try:
            yield background
        finally:
            settle(metrics)
            background.leave(made_by_us=had_none)


def _adopting(theirs: TaskFactory) -> TaskFactory:
    """Return somebody's task factory, by which tasks know the operation that they are of."""

    def make(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
        task = theirs(loop, work, **options)
        owner = holder.get()
        if owner is not None:
            with suppress(AttributeError, TypeError):  # it may be anything
                task.of = owner
                users_tasks.add(task)
        return task

    return make


def _owner(future: Any) -> Flight | None:
    """Return the operation of a task, or of the tasks that were gathered."""
    for one in (future, *getattr(future, "_children", ())[:1]):
        owner = getattr(one, "of", None)
        if isinstance(owner, Flight):
            return owner
    return None


def _scheduled_by(handle: Any) -> Flight | None:
    """Return the operation in which a callback was scheduled."""
    # uvloop calls the handler within the callback's context, asyncio before Python 3.12 does not.
    context = getattr(handle, "_context", None)
    found = context.get(holder) if isinstance(context, Context) else holder.get()
    return found if isinstance(found, Flight) else None


async def end_background(metrics: Metrics, seconds: float) -> None:
    """
    Wait so long for what operations have left behind; cut off and count the rest.

    Then all tasks have ended, and those are counted that failed and are kept by somebody who does
    not ask: no collector tells of these.
    """
    left: dict[Any, Flight] = {t: f for t, f in _tasks_of_operations() if not t.done()}
    threads = {asyncio.wrap_future(one): flight for one, flight in at_work(metrics).items()}
    late: set[Any] = set()
    if left or threads:
        _, late = await asyncio.wait({*left, *threads}, timeout=seconds)
    for future, flight in threads.items():
        if future in late:
            cut_off(flight, seconds)
        elif not future.cancelled() and (error := future.exception()) is not None:
            note_failed(flight, error)
    late -= threads.keys()
    for task in late:
        task.cancel()
        told = f"{_name_of(task)} had not ended {seconds:g} s after the last operation"
        sample = Sample(f"{told} (what lives on is started in the set-up)", _line_of(task))
        left[task].left_undone(CUT_OFF, None, sample)
    if late:
        await asyncio.wait(late, timeout=CLOSING)
    _note_unasked()
    count_unasked(metrics)


def _note_unasked() -> None:
    """Note what has failed and is kept: what asyncio goes by itself, whether anybody has asked."""
    for one in (*users_tasks, *_futures_kept()):
        unasked = one.done() and not one.cancelled() and getattr(one, "_log_traceback", True)
        if unasked and (error := one.exception()) is not None:
            flight = _owner(one) or owner_of(error)
            if flight is not None:
                note_failed(flight, error)


def _futures_kept() -> list[asyncio.Future[Any]]:
    """Return the futures that are no tasks, of which nobody has a list: some 10 ms at the end."""
    # By their type: what an object says of its class may be anybody's code.
    return [
        one
        for one in gc.get_objects()
        if issubclass(type(one), asyncio.Future) and not issubclass(type(one), asyncio.Task)
    ]


def _tasks_of_operations() -> list[tuple[asyncio.Task[Any], Flight]]:
    return [(task, task.of) for task in users_tasks if isinstance(task.of, Flight)]


def _name_of(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", task.get_name())


def _line_of(task: asyncio.Task[Any]) -> str | None:
    return user_line(frames_of(task))
