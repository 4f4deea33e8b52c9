"""What a process does once for a run: its event loop, its collector, its signals."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from ..concurrency.stop import Stop
from ..errors import MissingExtraError
from .event_loop import LoopRunner

T = TypeVar("T")
Work = Callable[[Stop], Coroutine[Any, Any, T]]

# What asks a run to end: a terminal that is closed does, and so does Ctrl-backslash.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# Two requests are the run's to heed; whoever asks once more wants no clean-up either.
_PATIENCE = 2


def heeded_signals() -> tuple[signal.Signals, ...]:
    """Return those of `SIGNALS` that this process was not started to ignore (`nohup`)."""
    return tuple(s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN)


def run_until_stopped(
    work: Work[T], loop: str, *, stock_collector: bool = False, exits_stop: bool = False
) -> T:
    """
    Run `work(stop)` on a loop of the wanted kind and return what it returns.

    A signal ends it, as `Signals` has it. `stock_collector` leaves the garbage collector as
    an application has it, where its cost is part of what is measured. `exits_stop`: what exits
    in a task or callback of somebody's asks it to stop.
    """
    with Signals(exits_stop=exits_stop) as signals:
        return signals.run(work, loop, stock_collector=stock_collector)


class Signals:
    """
    The signals that end a run: first drain, then at once, then without mercy.

    Before the run there is nothing to drain, and the first one ends it there with
    `asyncio.CancelledError`. After it the first one is noted in `stop`, for the report to be
    finished, and the second raises `KeyboardInterrupt`. The handlers are the process's, not
    the loop's, which takes its own away when it closes: SIGTERM would kill the report.

    The loop lives until the block ends, so that what is shown in it waits for nobody's tasks;
    `left` is what did not end with it, `survived` what would have ended another loop.
    """

    def __init__(self, *, exits_stop: bool = False) -> None:
        self.stop = Stop()
        self._exits_stop = exits_stop
        self.left: list[str] = []
        self.survived: list[str] = []
        self.asked_at: list[float] = []
        """When each request came, by `time.monotonic`."""
        self._received = 0
        self._asked = 0
        self._late = 0
        self._interrupt: Callable[[], object] | None = None
        self._before: dict[int, Any] = {}
        self._runner: LoopRunner | None = None

    @property
    def last_beat(self) -> float | None:
        """When the loop was last at work, by `time.monotonic`; None where there is none."""
        return self._runner.last_beat if self._runner is not None else None

    def __enter__(self) -> Self:
        for number in heeded_signals():
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        if self._runner is not None:
            self._runner.__exit__(*error)
            self.left = self._runner.left
            self.survived = self._runner.survived
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, work: Work[T], loop: str, *, stock_collector: bool = False) -> T:
        """Run `work(stop)` on a loop of the wanted kind and return what it returns."""
        assert self._runner is None
        factory = loop_factory(loop)
        if self._exits_stop:
            self._runner = LoopRunner(factory, on_exit=self.stop.request)
        else:
            self._runner = LoopRunner(factory, lambda: self.stop.request("a KeyboardInterrupt"))
        self._runner.__enter__()
        if not stock_collector:
            spare_the_garbage_collector()
        return self._runner.run(self._stoppable(work))

    async def _stoppable(self, work: Work[T]) -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work(self.stop))
        if self.stop.requested.is_set():
            task.cancel()
        ours = contextvars.copy_context()  # not that of the operation that a signal meets
        self._interrupt = lambda: loop.call_soon_threadsafe(self._ask, task, context=ours)
        try:
            return await task
        finally:
            self._interrupt = None

    def _on_signal(self, number: int, _frame: object) -> None:
        self._received += 1
        if self._received > len(self.asked_at):
            self._on_request(signal.Signals(number).name)

    def told(self, times: int, by: str) -> None:
        """
        Heed what the command tells: it has been asked so often to end, first by that signal.

        In any thread. A workload may have taken the signals for itself; where it has not, they
        were here already, or come later and are not counted again.
        """
        while len(self.asked_at) < times:
            self._on_request(by)

    def _on_request(self, by: str) -> None:
        self.stop.by = self.stop.by or by
        self.asked_at.append(time.monotonic())
        if self._interrupt is not None:
            self._interrupt()
        else:
            self.stop.request()
            self._late += 1
            if self._late > 1:
                if threading.current_thread() is not threading.main_thread():
                    return  # the command ends it soon
                raise KeyboardInterrupt

    def _ask(self, task: asyncio.Task[Any]) -> None:
        self._asked += 1
        self.stop.request()
        if self._asked > _PATIENCE or not self.stop.heeded:
            task.cancel()


def loop_factory(choice: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """
    Return how to make the event loop: `uvloop`, `asyncio`, or `auto` for the faster one.

    None is asyncio's own. Raises `MissingExtraError` where uvloop is wanted and missing.
    """
    if choice == "asyncio":
        return None
    try:
        import uvloop  # noqa: PLC0415  it does not exist everywhere
    except ImportError:
        if choice == "uvloop":
            raise MissingExtraError("--loop uvloop", "cli") from None
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def leave_errors_to_the_report() -> None:
    """
    Keep libraries from writing tracebacks of broken connections between the progress.

    Without a handler of an application's logging prints errors; the report counts them.
    """
    for library in ("sqlalchemy", "asyncio"):
        logging.getLogger(library).addHandler(logging.NullHandler())


def spare_the_garbage_collector() -> None:
    """
    Let it pass by what lives as long as the process, and look less often.

    An ORM operation makes hundreds of short-lived objects, each some hundredth of a
    collection that walks all modules: 15 % of the CPU of a mixed operation.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
