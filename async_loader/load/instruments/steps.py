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
        steps, since = meter.steps, now
        wait = _wait() if times.inside else None  # else what is awaited is not SQLAlchemy's
        try:
            value, resume = (yield awaited), coroutine.send
        except BaseException as error:
            value, resume = error, coroutine.throw
        now = perf_counter_ns()
        times.went_on(wait, since, now, meter, steps)


def _wait() -> Wait:
    """Return what SQLAlchemy awaits in this task."""
    within = window.get()
    return within.wait if within is not None else "database"


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
            times.ran_aside(since, now)
            meter.left()
        wait, steps, since = _wait(), meter.steps, now
        try:
            value, resume = (yield awaited), coroutine.send
        except BaseException as error:
            value, resume = error, coroutine.throw
        now = perf_counter_ns()
        times.went_on(wait, since, now, meter, steps)


def spawning(
    greenlet_spawn: Callable[..., Coroutine[Any, Any, Any]],
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """
    Return SQLAlchemy's `greenlet_spawn`, with what it runs and waits for counted.

    All of SQLAlchemy's asyncio goes through it; what is awaited in it is the driver's.
    """

    def spawn(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        times = current_times.get()
        if times is None or (meter := times.meter) is None:
            return greenlet_spawn(function, *args, **kwargs)
        if current_task() is times.task:
            module = getattr(function, "__module__", None) or "sqlalchemy"
            orm = module.startswith("sqlalchemy")
            return greenlet_spawn(_within, times, orm, function, *args, **kwargs)
        coroutine = greenlet_spawn(function, *args, **kwargs)
        if get_running_loop() is meter.loop:
            return _stepped_aside(coroutine, times, meter)
        return coroutine  # in a thread, with a loop of its own

    return spawn


def _is_sqlalchemys(task: asyncio.Task[Any] | None) -> bool:
    """Whether SQLAlchemy has made a task, to close what a cancellation must not reach."""
    coroutine = task.get_coro() if task is not None else None
    code = getattr(coroutine, "cr_code", None)
    return code is not None and _SQLALCHEMY in code.co_filename


def _within(
    times: OperationTimes, orm: bool, function: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    """
    Call a function in a greenlet of SQLAlchemy's; `orm` False: one of the user's, for `run_sync`.

    In the greenlet, not around it: that would be one more coroutine to go through at each step.
    """
    outer = times.orm
    times.lap(perf_counter_ns())
    times.inside += 1
    times.orm = orm
    try:
        return function(*args, **kwargs)
    finally:
        times.lap(perf_counter_ns())
        times.inside -= 1
        times.orm = outer
        if times.incomplete and times.meter is not None:
            times.meter.sampler.complete(times)
