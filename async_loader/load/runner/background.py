"""What operations leave behind when they end: tasks in the background, and what becomes of them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ...concurrency.tasks import CLOSING, frames_of, holder, owned_tasks, users_tasks
from ...failures.source_lines import user_line
from ...failures.tracebacks import Sample
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
        settle(self._metrics)

    def leave(self, *, made_by_us: bool) -> None:
        """Leave the loop as it was, or as the workload has set it since."""
        if self._loop.get_exception_handler() == self._take:
            self._loop.set_exception_handler(self._their_handler)
        factory = self._loop.get_task_factory()
        if factory is self._factory and factory is not None:
            self._loop.set_task_factory(self._their_factory)
        elif made_by_us and factory is owned_tasks:
            self._loop.set_task_factory(None)

    def _take(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        future, error = context.get("task") or context.get("future"), context.get("exception")
        if isinstance(error, BaseException):
            flight = _owner(future) or owner_of(error)
            if flight is not None:
                note_failed(flight, error)
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
