"""The outside of a supervised run: the command, which waits for it and outlives it."""

from __future__ import annotations

import faulthandler
import gc
import os
import re
import select
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import FrameType
from typing import IO

from ...failures.source_lines import user_line
from ...results.run import Outcome, RunResult
from ...runtime.process import SIGNALS, heeded_signals
from ...runtime.streams import flush_all
from ...runtime.under_way import BOUNDED
from ..ends import Patience, killed_by
from .inside import Line
from .messages import Ended, Hung, Progress, Told, message_of

# How long a run that has said that it ended may take to do so, with what its process has left.
_LAST_SECONDS = 5.0
_KILLED_AT = 4  # requests; the run itself heeds three
# Writes the stack of a process whose interpreter is held up. Nobody else's signal, as a rule.
_DUMP = signal.SIGUSR1
_DUMPED = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>.+)$', re.M)


@dataclass(frozen=True, slots=True)
class Lost:
    """A run that could not report itself: what is known of it, and how it ended, in words."""

    result: RunResult | None
    how: str
    stage: str
    own_server: bool
    exit_code: int


def supervise(
    work: Callable[[Line], int],
    report: Callable[[Lost], Ended],
    *,
    op_timeout: float,
    grace: float,
    watched: bool = True,
) -> Ended:
    """
    Perform `work` in a process of its own and return how it says that it has ended.

    Where that process does not end, or does not say how, `report` is called here with what it has
    told, and its own is returned. Signals are passed on. `watched`: the run has itself `watched_by`
    its line; one of ours alone, which nothing can block, goes without, and tells of its end only.
    """
    reading, writing = os.pipe()
    hearing, asking = os.pipe()
    with tempfile.TemporaryFile() as dump:
        flush_all()
        gc.freeze()  # pages that both have stay as they are
        # None is lost between the fork and the handlers, which the run is not to have.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        process = os.fork()
        if process == 0:
            os.close(reading)
            os.close(asking)
            line = _begin(writing, hearing, dump)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return Ended(work(line))
        gc.unfreeze()
        os.close(writing)
        os.close(hearing)
        try:
            supervisor = _Supervisor(
                process,
                reading=reading,
                asking=asking,
                dump=dump,
                patience=Patience.outside(op_timeout, grace),
                watched=watched,
            )
            with supervisor.passing_signals_on():
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                supervisor.watch()
                return supervisor.ended or report(supervisor.lost())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(reading)
            os.close(asking)


def _begin(writing: int, hearing: int, dump: IO[bytes]) -> Line:
    """Make this process the run's: a terminal's signals come through the command, once."""
    os.setpgid(0, 0)
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)  # it may write there, and reading fails
    faulthandler.register(_DUMP, file=dump, all_threads=True)
    return Line(writing, hearing)


class _Supervisor:
    def __init__(
        self,
        process: int,
        *,
        reading: int,
        asking: int,
        dump: IO[bytes],
        patience: Patience,
        watched: bool,
    ) -> None:
        self._process = process
        self._reading = reading
        self._asking = asking
        self._dump = dump
        self._patience = patience
        self._watched = watched
        self._buffer = b""
        self._heard = time.monotonic()
        self._asked: list[float] = []
        self._asked_by: str | None = None  # the first signal's name
        self._stage: str = "starting"
        self._own_server = False
        self._so_far: RunResult | None = None
        self.ended: Ended | None = None  # as it has told
        self._hung: Hung | None = None
        self._status: int | None = None
        self._killed_for: str | None = None

    def watch(self) -> None:
        """Wait for the end of the process, or make it."""
        while not self._has_ended():
            self._read(0.25)
            if (how := self._overdue()) is not None:
                self._killed_for = how
                self._kill()
        self._read(0.0)

    def lost(self) -> Lost:
        """Return what is known of a run that has not said how it ended."""
        how = self._killed_for
        outcome: Outcome = "interrupted" if self._asked else "hung"
        if self._hung is not None:
            how, where = self._hung.why, self._hung.where
            how = f"{how}{f' at {where}' if where else ''}"
        elif how is not None:
            where = self._dumped_line()
            how = f"{how}{f', at {where}' if where else ''}"
        else:
            how = f"its process {_ended(self._status or 0)} before its end"
            outcome = "interrupted" if self._asked else "lost"
        result = self._so_far
        if result is not None and (self._asked or not (self._hung and self._stage == "running")):
            finished = self._stage in ("tear-down", "over")
            if not finished:
                result = replace(result, outcome=outcome, stopped_by=self._asked_by)
        code = os.waitstatus_to_exitcode(self._status or 0)
        return Lost(result, how, self._stage, self._own_server, code)

    def _read(self, seconds: float) -> None:
        """Take what the process tells, waiting so long for something."""
        while select.select([self._reading], [], [], seconds)[0]:
            chunk = os.read(self._reading, 1 << 16)
            if not chunk:
                time.sleep(min(seconds, 0.02))  # it is ending
                return
            self._buffer += chunk
            *lines, self._buffer = self._buffer.split(b"\n")
            for line in lines:
                self._take(message_of(line))
            seconds = 0.0

    def _take(self, message: Told) -> None:
        self._heard = time.monotonic()
        match message:
            case Ended():
                self.ended = message
            case Progress() | Hung():
                self._stage = message.stage
                if message.so_far is not None:
                    self._so_far = RunResult.from_dict(message.so_far)
        match message:
            case Progress():
                self._own_server = message.own_server
            case Hung():
                self._hung = message

    def _overdue(self) -> str | None:
        """Return why the process is not waited for any longer."""
        silent = time.monotonic() - self._heard
        if self.ended is not None:
            return "it did not end" if silent > _LAST_SECONDS else None
        if len(self._asked) >= _KILLED_AT:
            return "it was asked to end again and again"
        return self._stands_still(time.monotonic(), silent) if self._watched else None

    def _stands_still(self, now: float, silent: float) -> str | None:
        unheard = bool(self._asked) and self._heard < self._asked[0]
        bound = self._patience.silence_once_asked(len(self._asked))
        if unheard and now - self._asked[0] > bound:
            return f"its interpreter has stood still for {silent:.1f} s"
        if self._asked and now - self._asked[0] > self._patience.end:
            return f"it has not ended {now - self._asked[0]:.1f} s after it was asked to"
        if self._stage in BOUNDED and silent > self._patience.silence:
            return f"its interpreter has stood still for {silent:.1f} s"
        return None

    def _has_ended(self) -> bool:
        if self._status is None:
            process, status = os.waitpid(self._process, os.WNOHANG)
            self._status = status if process else None
        return self._status is not None

    def _kill(self) -> None:
        """End the process, which first writes where it is, without its interpreter's doing."""
        os.kill(self._process, _DUMP)
        time.sleep(0.2)
        os.kill(self._process, signal.SIGCONT)
        os.kill(self._process, signal.SIGKILL)
        _, self._status = os.waitpid(self._process, 0)

    def _dumped_line(self) -> str | None:
        """Return the user's line that the event loop's thread was at, or else all the others'."""
        self._dump.seek(0)
        dumped = self._dump.read().decode(errors="replace")
        others, _, first = dumped.rpartition("Current thread")
        in_the_loop = first.partition(f'{os.sep}event_loop.py"')[0]
        if (where := _user_line_in(in_the_loop)) is not None:
            return where
        lines = dict.fromkeys(map(_user_line_in, others.split("\n\n")))
        return ", or ".join(line for line in lines if line is not None) or None

    @contextmanager
    def passing_signals_on(self) -> Iterator[None]:
        """Have what this process is asked asked of the run, for the length of a block."""

        def pass_on(number: int, _frame: FrameType | None) -> None:
            self._asked.append(time.monotonic())
            name = signal.Signals(number).name
            self._asked_by = self._asked_by or name
            self._send(number)
            with suppress(OSError):  # a workload may have handlers of its own for the signal
                os.write(self._asking, f"{name}\n".encode())

        def pause(_number: int, _frame: FrameType | None) -> None:
            self._send(signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
            self._heard = time.monotonic()
            self._send(signal.SIGCONT)

        handlers = dict.fromkeys(heeded_signals(), pass_on) | {signal.SIGTSTP: pause}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _send(self, number: int) -> None:
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self._process, number)


def _user_line_in(dumped: str) -> str | None:
    frames = _DUMPED.finditer(dumped)
    return user_line((f["file"], int(f["line"]), f["name"]) for f in frames)


def _ended(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return killed_by(code) or f"ended with exit code {code}"
