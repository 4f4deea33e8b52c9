"""
The event loop of a run, which ends when the run does and not when somebody's code says so.

`sys.exit()` in a task of its own, `loop.stop()` and a cancellation of all tasks end what
`asyncio.run` runs; here the loop goes on, and whoever awaits the task meets the exception. What
does not end when the run is over is left behind: nothing that is waited for here has no bound.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self, TypeVar

from ..concurrency.tasks import frames_of, in_our_process, owned_tasks
from ..failures.source_lines import line_of, user_line
from ..failures.tracebacks import source_of

T = TypeVar("T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]

# How long what is left of a run has to end: its tasks, its generators.
_LAST_SECONDS = 0.5
# A thread that is about to end has nothing else to wait for.
_LAST_OF_THREADS = 1.0
_BEAT_EVERY = 0.25

# Tasks that did not end. Kept: a coroutine that is collected goes on to its end, outside of its
# context and its loop, and prints what that comes to.
tasks_left: list[asyncio.Task[Any]] = []


class LoopRunner:
    """
    A context manager that runs coroutines on one loop of its own, as `asyncio.Runner` does.

    `last_beat` is when it was last at work (`time.monotonic`). `on_interrupt` is told of a
    `KeyboardInterrupt` that came out of somebody's task, `on_exit` of whatever would have ended
    another loop, and where it came from. Leaving closes the loop, whatever is
    still going on in it; `left` says what that was.
    """

    def __init__(
        self,
        factory: LoopFactory | None = None,
        on_interrupt: Callable[[], object] | None = None,
        on_exit: Callable[[str], object] | None = None,
    ) -> None:
        self._factory = factory or asyncio.new_event_loop
        self._on_interrupt = on_interrupt
        self._on_exit = on_exit
        self.left: list[str] = []
        self.survived: list[str] = []
        """What would have ended another loop: an exception that came out of a task or callback."""

    def __enter__(self) -> Self:
        self._loop = self._factory()
        self._before = in_our_process.set(True)
        self.beat()
        self._loop.set_task_factory(owned_tasks)
        asyncio.set_event_loop(self._loop)
        return self

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, and return what it returns."""
        main = self._loop.create_task(work)
        while True:
            try:
                return self._loop.run_until_complete(main)
            except BaseException as error:
                if main.done() or self._loop.is_closed():
                    raise
                self.survived.append(_told(error))
                if isinstance(error, KeyboardInterrupt) and self._on_interrupt is not None:
                    self._on_interrupt()
                if self._on_exit is not None:
                    self._on_exit(self.survived[-1])

    def beat(self) -> None:
        """Note that the loop is at work, now and every quarter of a second."""
        self.last_beat = time.monotonic()
        self._loop.call_later(_BEAT_EVERY, self.beat)

    def __exit__(self, *_: object) -> None:
        try:
            self._end_tasks()
            with suppress(BaseException):
                self._loop.run_until_complete(
                    asyncio.wait_for(self._loop.shutdown_asyncgens(), _LAST_SECONDS)
                )
        finally:
            in_our_process.reset(self._before)
            asyncio.set_event_loop(None)
            with warnings.catch_warnings():
                # Of an engine that was left open: as an error it would keep uvloop from closing.
                warnings.simplefilter("ignore")
                self._loop.close()

    def _end_tasks(self) -> None:
        """Cancel all tasks, and wait for their ends, but not for long."""
        tasks = asyncio.all_tasks(self._loop)
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        with suppress(BaseException):
            self.run(_wait(tasks))
        for task in tasks:
            if not task.done():
                where = user_line(frames_of(task))
                self.left.append(f"a task{f' at {where}' if where else ''}")
                tasks_left.append(task)
                with suppress(AttributeError):
                    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is told


def told_left(left: list[str]) -> str:
    """Return what was left behind in a line, each kind of it once: `a task at shop.py:3 ×20`."""
    counts = Counter(left)
    return ", ".join(f"{what} ×{count}" if count > 1 else what for what, count in counts.items())


def _told(error: BaseException) -> str:
    where = source_of(error)
    what = "loop.stop()" if isinstance(error, RuntimeError) else type(error).__name__
    return f"{what}{f' at {where}' if where else ''}"


async def _wait(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks, timeout=_LAST_SECONDS)


def threads_left() -> list[str]:
    """Return where threads are that would keep the process from ending, a moment from now."""
    others = [
        thread
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and not thread.daemon
    ]
    found = []
    for thread in others:
        thread.join(_LAST_OF_THREADS / len(others))
        if thread.is_alive():
            frame = sys._current_frames().get(thread.ident or 0)
            where = None
            if frame is not None:
                lines = [line_of(f) for f, _ in traceback.walk_stack(frame)]
                where = user_line(lines)
            found.append(f"thread {thread.name}{f' at {where}' if where else ''}")
    return found
