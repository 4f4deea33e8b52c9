"""
Driving a coroutine step by step, so that each moment of it is known for what it is.

What a task's coroutine yields is what it waits for. In between it runs, and nobody else does.
"""

from __future__ import annotations

import asyncio
import os
import types
from asyncio import current_task, get_running_loop
from collections.abc import Callable, Coroutine, Generator
from time import perf_counter_ns
from typing import Any

from .loop_meter import LoopMeter
from .times import OperationTimes, Wait, current_times
from .windows import window

_SQLALCHEMY = f"{os.sep}sqlalchemy{os.sep}"


@types.coroutine
def stepped(
    coroutine: Coroutine[Any, Any, Any], times: OperationTimes, meter: LoopMeter
) -> Generator[Any, Any, Any]:
    """Run an operation's coroutine in its task, and return what that returns."""
    resume, value = coroutine.send, None
    now = perf_counter_ns()
    meter.stepped(times, now)
    while True:
        times.began(now)
        try:
            awaited = resume(value)
        except StopIteration as ended:
            return ended.value
        finally:
            now = perf_counter_ns()
            times.paused(now)
            meter.left()
        steps = meter.steps
        wait: Wait | None = None
        if times.inside:  # else what is awaited is not SQLAlchemy's
            within = window.get()
            wait = within.wait if within is not None else "database"
        since = now
        try:
            value, resume = (yield awaited), coroutine.send
        except BaseException as error:
            value, resume = error, coroutine.throw
        now = perf_counter_ns()
        _count(times, meter, wait, since, now, steps=steps)


def _count(
    times: OperationTimes,
    meter: LoopMeter,
    wait: Wait | None,
    since: int,
    now: int,
    *,
    steps: int,
) -> None:
    """Count a wait that is over: for what it was, and for the loop."""
    meter.stepped(times, now)
    # What an operation waited for in a task beside its own came when that was done.
    beside = times.covered_ns if wait is None and times.covered_ns > since else None
    came = meter.came(times.operation, wait, since, now, steps=steps, probably_ns=beside)
    times.went_on(wait, since, came, now)


@types.coroutine
def _stepped_aside(
    coroutine: Coroutine[Any, Any, Any], times: OperationTimes, meter: LoopMeter
) -> Generator[Any, Any, Any]:
    """Run a call of SQLAlchemy's in a task that an operation has started beside its own."""
    resume, value = coroutine.send, None
    now = perf_counter_ns()
    if times.paused_ns and _is_sqlalchemys(current_task()):
        times.queued(times.paused_ns, now)  # until the task that closes a session began
    meter.stepped(times, now)
    while True:
        since = now
        try:
            awaited = resume(value)
        except StopIteration as ended:
            return ended.value
        finally:
            now = perf_counter_ns()
            times.ran(since, now, inside=True)
            meter.left()
        within = window.get()
        wait: Wait = within.wait if within is not None else "database"
        steps = meter.steps
        since = now
        try:
            value, resume = (yield awaited), coroutine.send
        except BaseException as error:
            value, resume = error, coroutine.throw
        now = perf_counter_ns()
        _count(times, meter, wait, since, now, steps=steps)


def spawning(
    greenlet_spawn: Callable[..., Coroutine[Any, Any, Any]],
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """
    Return SQLAlchemy's `greenlet_spawn`, with what it runs and waits for counted.

    All of SQLAlchemy's asyncio goes through it; what is awaited in it is the driver's.
    """

    def spawn(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        coroutine = greenlet_spawn(function, *args, **kwargs)
        times = current_times.get()
        if times is None or times.meter is None:
            return coroutine
        if current_task() is times.task:
            module = getattr(function, "__module__", None) or "sqlalchemy"
            return _inside(coroutine, times, orm=module.startswith("sqlalchemy"))
        if get_running_loop() is times.meter.loop:
            return _stepped_aside(coroutine, times, times.meter)
        return coroutine  # in a thread, with a loop of its own

    return spawn


def _is_sqlalchemys(task: asyncio.Task[Any] | None) -> bool:
    """Whether SQLAlchemy has made a task, to close what a cancellation must not reach."""
    coroutine = task.get_coro() if task is not None else None
    code = getattr(coroutine, "cr_code", None)
    return code is not None and _SQLALCHEMY in code.co_filename


async def _inside(coroutine: Coroutine[Any, Any, Any], times: OperationTimes, *, orm: bool) -> Any:
    """Await a call of SQLAlchemy's; `orm` False: of `run_sync`, with a function of the user's."""
    outer = times.orm
    times.lap(perf_counter_ns())
    times.inside += 1
    times.orm = orm
    try:
        return await coroutine
    finally:
        times.lap(perf_counter_ns())
        times.inside -= 1
        times.orm = outer
        if times.incomplete and times.meter is not None:
            times.meter.sampler.complete(times)
