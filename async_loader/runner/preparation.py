"""What goes before a run and after it: the workload's own set-up and tear-down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

from ..database.postgresql import first_line
from ..errors import AsyncLoaderError, SetupError, TeardownError
from ..instruments import attached, break_off, holder
from ..limits import Stop
from ..redaction import redacted
from ..tasks import end, first_of
from ..tracebacks import source_of
from ..workload import Workload
from .calls import Sessions


@asynccontextmanager
async def prepared(
    workload: Workload, *, sessions: Sessions | None, seed: int, stop: Stop
) -> AsyncIterator[Any]:
    """
    Yield what the workload's set-up returns; its tear-down always runs.

    A stop cancels the set-up, and yields None; `at_once` cancels the tear-down. Raises
    `SetupError`, and `TeardownError` unless something else has gone wrong before.
    """
    shared = None
    try:
        shared = await _set_up(workload, sessions, seed, stop)
        yield shared
    except BaseException:
        with suppress(TeardownError):  # what has ended the run says more
            await _tear_down(workload, sessions, shared, stop)
        raise
    await _tear_down(workload, sessions, shared, stop)


async def _set_up(workload: Workload, sessions: Sessions | None, seed: int, stop: Stop) -> Any:
    """Return what the workload's set-up returns; a stop cancels it."""
    if workload.setup_hook is None:
        return None
    task = await _ended(
        partial(workload.setup_hook, sessions=sessions, seed=seed),
        workload,
        sessions,
        stop.requested,
    )
    if task.cancelled() or (stop.requested.is_set() and task.exception() is not None):
        return None  # it was ended, and may say so in its own way
    try:
        return task.result()
    except AsyncLoaderError:
        raise
    except Exception as error:
        raise SetupError(_told("set-up", workload, error)) from error


async def _tear_down(
    workload: Workload, sessions: Sessions | None, shared: Any, stop: Stop
) -> None:
    if workload.teardown_hook is None:
        return
    task = await _ended(
        partial(workload.teardown_hook, sessions=sessions, shared=shared),
        workload,
        sessions,
        stop.at_once,
    )
    if task.cancelled() or (stop.at_once.is_set() and task.exception() is not None):
        raise TeardownError(f"the tear-down of workload {workload.name!r} was cut off")
    try:
        task.result()
    except Exception as error:
        raise TeardownError(_told("tear-down", workload, error)) from error


async def _ended(
    call: Callable[[], Coroutine[Any, Any, Any]],
    workload: Workload,
    sessions: Sessions | None,
    stopped: asyncio.Event,
) -> asyncio.Task[Any]:
    """Return the task of a call that has ended, by itself or because it was stopped."""
    with ExitStack() as stack:
        pool = attached(sessions, stack, time_split=False).pool
        token = holder.set(workload)
        task = asyncio.create_task(call())
        holder.reset(token)
        try:
            await first_of(task, stopped)
        finally:
            await end(task, lambda: break_off(pool, (workload,)))
    return task


def _told(hook: str, workload: Workload, error: Exception) -> str:
    """Return where a hook raised what, in one line."""
    where = source_of(error)
    text = redacted(first_line(error), error)
    return (
        f"{f'{where}: ' if where else ''}the {hook} of workload {workload.name!r} raised "
        f"{type(error).__name__}: {text}"
    )
