"""The inside of a supervised run: its line to the command, and the thread that watches its loop."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import NoReturn

from ...failures.source_lines import line_of, user_line
from ...results.run import RunResult
from ...runtime.event_loop import tasks_left, threads_left, told_left
from ...runtime.process import Signals
from ...runtime.streams import flush_all, keep_from_forks, tell
from ...runtime.under_way import BOUNDED, under_way
from ..answers import Answer
from ..ends import Patience
from .messages import Alive, Ended, Hung, Progress, Told
from .messages import line_of as encoded

ALIVE_EVERY = 0.25
# Of the time, one part in so many goes to telling the figures.
_SHARE = 400
HUNG = 70
_exit_at_once = os._exit  # by which others' code is told of, too


class Line:
    """
    What a run tells the command that started it, and is told by it: see `messages`.

    `asking` is where the command says that it was asked to end, once for each time.
    """

    def __init__(self, descriptor: int, asking: int) -> None:
        self._descriptor = descriptor
        self._asking = asking
        self._sending = threading.Lock()
        self._heard = b""
        self.asked: tuple[int, str] | None = None
        """How often the command was asked to end, and by which signal first."""

    def listen(self, seconds: float) -> None:
        """Wait so long for what the command says."""
        try:
            if not select.select([self._asking], [], [], seconds)[0]:
                return
            self._heard += os.read(self._asking, 1024)
        except (OSError, ValueError):  # closed by somebody
            time.sleep(seconds)
            return
        *names, self._heard = self._heard.split(b"\n")
        if names:
            times, by = self.asked or (0, names[0].decode())
            self.asked = times + len(names), by
        else:  # the command is gone, which the next word to it meets
            time.sleep(seconds)

    def when_alone(self, alone: Callable[[], object]) -> None:
        """Have it called by the running loop when the command is gone, for who never listens."""
        loop = asyncio.get_running_loop()

        def heard() -> None:
            if not os.read(self._asking, 1024):  # else it is the name of a signal, which came, too
                loop.remove_reader(self._asking)
                alone()

        loop.add_reader(self._asking, heard)

    def tell(self, message: Told) -> None:
        """Send a message; from any thread. Raises `OSError` where nobody is there any more."""
        text = encoded(message)
        with self._sending:
            while text:
                text = text[os.write(self._descriptor, text) :]

    def tell_stage(self) -> None:
        """Send where the run is, and what is known of it."""
        found = under_way.result()
        so_far = found.to_dict() if found else None
        with suppress(OSError):
            self.tell(Progress(under_way.stage, under_way.own_server, so_far))

    def tell_exit(self, code: int) -> None:
        """Send that somebody's code ends the process, and at which line."""
        where = user_line(line_of(frame) for frame, _ in traceback.walk_stack(sys._getframe(1)))
        self.tell_hung(
            f"os._exit({code}) ended its process", where, under_way.result("lost", where)
        )

    def tell_hung(self, why: str, where: str | None, result: RunResult | None) -> None:
        """Send that the run ends here, by no doing of ours, and what is known of it."""
        so_far = result.to_dict() if result is not None else None
        with suppress(OSError):
            self.tell(Hung(why, where, under_way.stage, so_far))


@contextmanager
def watched_by(
    line: Line | None, signals: Signals, op_timeout: float, grace: float
) -> Iterator[None]:
    """Have a thread watch the loop of a run, where somebody is to be told of it."""
    if line is None:
        yield
        return
    keep_from_forks()
    under_way.on_stage = line.tell_stage
    process = os.getpid()

    def exit_and_tell(status: int) -> NoReturn:
        if os.getpid() == process:
            line.tell_exit(status)
        _exit_at_once(status)

    os._exit = exit_and_tell
    watchdog = Watchdog(line, signals, op_timeout=op_timeout, grace=grace)
    watchdog.start()
    try:
        yield
    finally:
        os._exit = _exit_at_once
        under_way.on_stage = None
        watchdog.stop()


def ended(code: int, line: Line, answer: Answer | None = None) -> int:
    """
    Tell that all is done and said; threads that would keep the process are named, and left.

    `answer` is what came of it, where that is the command's to report.

    With a task that did not end, the interpreter's own end would go through its code once more.
    """
    left = threads_left()
    if left:
        tell(f"async_loader: left behind: {told_left(left)}")
    flush_all()
    with suppress(OSError):
        line.tell(Ended(code, answer))
    if left or tasks_left:
        os._exit(code)
    return code


class Watchdog(threading.Thread):
    """
    The thread that tells that the process is alive, and ends it where its event loop is not.

    `op_timeout` and `grace` bound what an operation and the end of the run may take, in seconds.
    """

    def __init__(self, line: Line, signals: Signals, *, op_timeout: float, grace: float) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._line = line
        self._signals = signals
        self._patience = Patience.inside(op_timeout, grace)
        self._over = threading.Event()

    def stop(self) -> None:
        """Watch no more."""
        self._over.set()

    def run(self) -> None:
        """See `threading.Thread.run`."""
        due = 0.0
        while not self._over.is_set():
            asked = self._line.asked
            self._line.listen(ALIVE_EVERY)
            if asked is not None:  # a signal is there sooner, where the run heeds it
                self._signals.told(*asked)
            if self._over.is_set():
                return
            try:
                self._line.tell(Alive())
                if time.monotonic() > due and under_way.stage == "running":
                    due = self._tell_figures()
            except OSError:  # the command is gone: nobody waits for a report
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGTERM)
                return
            if (why := self._hangs()) is not None:
                self._end(why)

    def _tell_figures(self) -> float:
        """Tell what is known so far, and return when it is worth its time again."""
        began = time.thread_time()
        self._line.tell_stage()
        return time.monotonic() + _SHARE * (time.thread_time() - began)

    def _hangs(self) -> str | None:
        """Return for how long the loop, or the end of the run, has kept us waiting too long."""
        beat, now = self._signals.last_beat, time.monotonic()
        if beat is None:
            return None
        asked = self._signals.asked_at
        if asked:
            bound = self._patience.silence_once_asked(len(asked))
            if beat < asked[-1] and now - asked[-1] > bound:
                return f"the event loop has stood still for {now - beat:.1f} s"
            if now - asked[0] > self._patience.end:
                return f"it has not ended {now - asked[0]:.1f} s after it was asked to"
        if under_way.stage in BOUNDED and now - beat > self._patience.silence:
            return f"the event loop has stood still for {now - beat:.1f} s"
        return None

    def _end(self, why: str) -> None:
        """Say where the process is, tell what is known, and end it: nothing else can."""
        main = threading.main_thread().ident or 0
        frame = sys._current_frames().get(main)
        stack = list(traceback.walk_stack(frame)) if frame is not None else []
        where = user_line(line_of(f) for f, _ in stack)
        tell(f"async_loader: {why}; the stack of its thread:")
        tell("".join(traceback.format_stack(frame)).rstrip())
        result = under_way.result("interrupted" if self._signals.asked_at else "hung", where)
        if result is not None:
            result = replace(result, stopped_by=self._signals.stop.by)
        self._line.tell_hung(why, where, result)
        _exit_at_once(HUNG)
