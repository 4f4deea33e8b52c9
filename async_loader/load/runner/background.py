"""What operations leave behind when they end: tasks in the background, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...concurrency.tasks import CLOSING, frames_of, owned_tasks, users_tasks
from ...failures.classification import Failure, classify
from ...failures.source_lines import user_line
from ...failures.tracebacks import Sample
from .in_flight import Flight

CUT_OFF = Failure("background task cut off")


@contextmanager
def background_counted() -> Iterator[None]:
    """
    Count an operation whose background task fails as failed, until the block ends.

    Where the loop has a task factory of somebody else's, tasks cannot be told apart.
    """
    loop = asyncio.get_running_loop()
    factory, handler = loop.get_task_factory(), loop.get_exception_handler()

    def count(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        task = context.get("task") or context.get("future")
        owner, error = getattr(task, "of", None), context.get("exception")
        if isinstance(owner, Flight) and isinstance(error, BaseException):
            _count_failed(owner, error)
        elif handler is not None:
            handler(loop, context)
        else:
            loop.default_exception_handler(context)

    if factory is None:
        loop.set_task_factory(owned_tasks)
    loop.set_exception_handler(count)
    try:
        yield
    finally:
        loop.set_exception_handler(handler)
        if factory is None:
            loop.set_task_factory(None)


async def end_background(seconds: float) -> None:
    """
    Wait so long for the tasks that operations have left behind; cut off and count the rest.

    Then all have ended, and those are counted that failed and are kept by somebody who does not
    ask: no collector tells of these.
    """
    left = {task: flight for task, flight in _tasks_of_operations() if not task.done()}
    late: set[asyncio.Task[Any]] = set()
    if left:
        _, late = await asyncio.wait(left, timeout=seconds)
    for task in late:
        task.cancel()
        told = f"{_name_of(task)} had not ended {seconds:g} s after the last operation"
        sample = Sample(f"{told} (what lives on is started in the set-up)", _line_of(task))
        left[task].left_undone(CUT_OFF, None, sample)
    if late:
        await asyncio.wait(late, timeout=CLOSING)
    for task, flight in _tasks_of_operations():
        # What asyncio goes by itself: whether anybody has asked for the exception.
        unasked = task.done() and not task.cancelled() and getattr(task, "_log_traceback", True)
        if unasked and (error := task.exception()) is not None:
            _count_failed(flight, error)


def _tasks_of_operations() -> list[tuple[asyncio.Task[Any], Flight]]:
    return [(task, task.of) for task in users_tasks if isinstance(task.of, Flight)]


def _count_failed(flight: Flight, error: BaseException) -> None:
    name = f"background task: {classify(error).name}"
    flight.left_undone(Failure(name), error)


def _name_of(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", task.get_name())


def _line_of(task: asyncio.Task[Any]) -> str | None:
    return user_line(frames_of(task))
