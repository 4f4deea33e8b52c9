"""What goes before a run and after it: the workload's own set-up and tear-down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...concurrency.stop import Stop
from ...concurrency.tasks import CLOSING, first_of, frames_of, holder
from ...database.postgresql import first_line
from ...database.session_factories import Sessions
from ...errors import AsyncLoaderError, SetupError, TeardownError
from ...failures.redaction import redacted
from ...failures.source_lines import user_line
from ...failures.tracebacks import source_of
from ..instruments import attached, break_off
from ..workload import Workload

PATIENCE = 40.0
"""Seconds that a tear-down may take where nobody says how many."""


@asynccontextmanager
async def prepared(
    workload: Workload,
    *,
    sessions: Sessions | None,
    seed: int,
    stop: Stop,
    patience: float = PATIENCE,
) -> AsyncIterator[Any]:
    """
    Yield what the workload's set-up returns; its tear-down always runs.

    A stop cancels the set-up, and yields None; `at_once`, or the end of its `patience` in
    seconds, cancels the tear-down. What does not end by that is left where it is. Raises
    `SetupError`, and `TeardownError` unless something else has gone wrong before.
    """
    shared = None
    try:
        shared = await _set_up(workload, sessions, seed, stop)
        yield shared
    except BaseException:
        with suppress(TeardownError):  # what has ended the run says more
            await _tear_down(workload, sessions, shared, stop, patience)
        raise
    await _tear_down(workload, sessions, shared, stop, patience)


@dataclass(slots=True)
class _Ended:
    """What came of a hook: a value, or what it raised; `hangs` at a line, if it does not end."""

    value: Any = None
    error: BaseException | None = None
    cancelled: bool = False
    """Whether we wanted its end."""
    hangs: str | None = None


async def _set_up(workload: Workload, sessions: Sessions | None, seed: int, stop: Stop) -> Any:
    """Return what the workload's set-up returns; a stop cancels it."""
    if workload.setup_hook is None:
        return None
    ended = await _called(
        partial(workload.setup_hook, sessions=sessions, seed=seed),
        workload,
        sessions,
        stop.requested,
    )
    if isinstance(ended.error, KeyboardInterrupt):
        raise ended.error
    if ended.error is None or ended.cancelled:
        return ended.value  # None where it was ended, and it may say so in its own way
    if isinstance(ended.error, AsyncLoaderError):
        raise ended.error
    raise SetupError(_told("set-up", workload, ended.error)) from ended.error


async def _tear_down(
    workload: Workload, sessions: Sessions | None, shared: Any, stop: Stop, patience: float
) -> None:
    if workload.teardown_hook is None:
        return
    ended = await _called(
        partial(workload.teardown_hook, sessions=sessions, shared=shared),
        workload,
        sessions,
        stop.at_once,
        patience,
    )
    if ended.cancelled and (ended.error is not None or ended.hangs is not None):
        asked = stop.at_once.is_set()
        why = "was cut off" if asked else f"had not ended after {patience:g} s and was cut off"
        where = f": it waits at {ended.hangs}" if ended.hangs else ""
        raise TeardownError(f"the tear-down of workload {workload.name!r} {why}{where}")
    if ended.error is not None:
        raise TeardownError(_told("tear-down", workload, ended.error)) from ended.error


async def _called(
    call: Callable[[], Coroutine[Any, Any, Any]],
    workload: Workload,
    sessions: Sessions | None,
    stopped: asyncio.Event,
    patience: float | None = None,
) -> _Ended:
    """Call a hook; return what came of it, by itself or because it was stopped."""
    ended = _Ended()

    async def settle() -> None:
        # In the task: what is no Exception would leave it through the event loop.
        try:
            ended.value = await call()
        except BaseException as error:
            ended.error = error

    with ExitStack() as stack:
        pool = attached(sessions, stack, time_split=False).pool
        token = holder.set(workload)
        task = asyncio.create_task(settle())
        holder.reset(token)
        try:
            await first_of(task, stopped, timeout=patience)
        finally:
            if not task.done():
                ended.cancelled = True
                ended.hangs = user_line(frames_of(task))
                await _end(task, lambda: break_off(pool, (workload,)))
    if task.cancelled():  # before its first step
        ended.error = asyncio.CancelledError()
    return ended


async def _end(task: asyncio.Task[Any], break_off: Callable[[], None]) -> None:
    """Cancel a task and wait for its end, but not for ever."""
    task.cancel()
    for _ in range(2):
        if (await asyncio.wait({task}, timeout=CLOSING))[0]:
            return
        break_off()


def _told(hook: str, workload: Workload, error: BaseException) -> str:
    """Return where a hook raised what, in one line."""
    where = source_of(error)
    text = redacted(first_line(error), error)
    return (
        f"{f'{where}: ' if where else ''}the {hook} of workload {workload.name!r} raised "
        f"{type(error).__name__}: {text}"
    )
