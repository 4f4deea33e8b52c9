"""Waiting for tasks, and seeing that they end."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import FrameType
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")

# A cancelled statement's driver asks the server to stop, and closes: it waits up to 2 s for the
# answers, and for ever in a session's shielded close. Then the connection is broken off.
CLOSING = 2.5


# Whose code is at work, in tasks of its own too: an operation or a hook of a workload's; None
# where it is ours.
holder: ContextVar[object | None] = ContextVar("holder", default=None)
# Whether this is a context of ours in a process of ours: a thread that somebody started has none.
in_our_process: ContextVar[bool] = ContextVar("in_our_process", default=False)


class OwnedTask(asyncio.Task[Any]):
    """
    A task that knows whose it is, `of`.

    One of ours is not cancelled by a user's code, which may well cancel all that there are.
    """

    def __init__(self, *args: Any, owner: object | None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.of = owner
        self._is_ours_alone = owner is None and in_our_process.get()

    def cancel(self, msg: object | None = None) -> bool:
        """See `asyncio.Task.cancel`."""
        if self.of is None and holder.get() is not None:
            return False
        if self._is_ours_alone and not in_our_process.get():
            return False
        return super().cancel(msg)


users_tasks: WeakSet[OwnedTask] = WeakSet()
"""The tasks that users' code has made and that are still there, ended or not."""


def owned_tasks(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a task that knows the operation or the hook that it was made in: a task factory."""
    owner = holder.get()
    task = OwnedTask(work, loop=loop, owner=owner, **options)
    if owner is not None:
        users_tasks.add(task)
    return task


def frames_of(task: asyncio.Task[Any]) -> list[tuple[str, int, str]]:
    """Return where a task is waiting, (file, line, function) of each frame, innermost first."""
    found: list[tuple[str, int, str]] = []
    link: Any = task.get_coro()
    for _ in range(_MOST_FRAMES):
        frame: FrameType | None = None
        for kind in ("cr", "gi", "ag"):
            frame = frame or getattr(link, f"{kind}_frame", None)
        if frame is None:
            break
        found.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        spawned = frame.f_locals.get("context")  # greenlet_spawn: the sync half is at work
        inner: FrameType | None = getattr(spawned, "gr_frame", None)
        sync = []
        while inner is not None:
            sync.append((inner.f_code.co_filename, inner.f_lineno, inner.f_code.co_name))
            inner = inner.f_back
        found += reversed(sync)
        link = next(
            (
                awaited
                for name in ("cr_await", "gi_yieldfrom", "ag_await")
                if (awaited := getattr(link, name, None)) is not None
            ),
            frame.f_locals.get("coroutine"),  # one that is driven step by step
        )
    return found[::-1]


_MOST_FRAMES = 100


async def first_of(
    task: asyncio.Task[Any], *events: asyncio.Event, timeout: float | None = None
) -> None:
    """Wait for the task, an event or the timeout, whichever is first; do not cancel the task."""
    waiters = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait({task, *waiters}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(*waiters)


def answer_of(asked: concurrent.futures.Future[T]) -> asyncio.Future[T]:
    """
    Return a future of this loop for one of another process or thread.

    Whoever waits for it may be cancelled first; its error is nobody's then, and asyncio's "Future
    exception was never retrieved" would be printed beside a report that has told it already.
    """
    answer = asyncio.wrap_future(asked)
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
    return answer


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end, whatever it is."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def end(task: asyncio.Task[Any], break_off: Callable[[], None]) -> None:
    """Cancel a task and wait for its end; call `break_off` whenever that takes long."""
    task.cancel()
    while not (await asyncio.wait({task}, timeout=CLOSING))[0]:
        break_off()


async def within(work: Awaitable[T], seconds: float, break_off: Callable[[], None]) -> T:
    """
    Return what the work returns; raise `TimeoutError` when it takes longer.

    Then, and when the caller is cancelled, `break_off` comes before the cancellation, so that
    a driver does not first ask a server that is gone to stop.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError(f"no answer within {seconds:g} s")
        return task.result()
    finally:
        if not task.done():
            break_off()
            await end(task, break_off)


async def to_the_end(work: Awaitable[T]) -> T:
    """
    Run clean-up to its end, however often the caller is cancelled meanwhile.

    The cancellation is raised afterwards. The work must be bounded in time by itself.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # looked at: the cancellation outranks it
        raise cancelled
    return task.result()
