"""What operations leave behind when they end: tasks in the background, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..failures import Failure, classify
from ..source_lines import user_line
from ..tasks import CLOSING, OwnedTask, frames_of, owned_tasks
from ..tracebacks import Sample
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
            name = f"background task: {classify(error).name}"
            owner.metrics.undone(owner.name, Failure(name), error)
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
    """Wait so long for the tasks that operations have left behind; cut off and count the rest."""
    left = {
        task: task.of
        for task in asyncio.all_tasks()
        if isinstance(task, OwnedTask) and isinstance(task.of, Flight)
    }
    if not left:
        return
    _, late = await asyncio.wait(left, timeout=seconds)
    counted: set[Flight] = set()
    for task in late:
        task.cancel()
        flight = left[task]
        if flight not in counted and not flight.let_go:
            counted.add(flight)
            told = f"{_name_of(task)} had not ended {seconds:g} s after the last operation"
            sample = Sample(f"{told} (what lives on is started in the set-up)", _line_of(task))
            flight.metrics.undone(flight.name, CUT_OFF, None, sample)
    if late:
        await asyncio.wait(late, timeout=CLOSING)


def _name_of(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", task.get_name())


def _line_of(task: asyncio.Task[Any]) -> str | None:
    return user_line(frames_of(task))
