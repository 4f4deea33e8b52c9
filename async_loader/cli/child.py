"""
One run in a process of its own, so that no run inherits another's memory or garbage.

The process is forked from the command, which has imported what a run needs and has run nothing: a
new interpreter would take longer to start than a short run takes. The result comes back as JSON
through a pipe; progress is on stderr. When the other pipe ends the parent is gone, and so is the
run.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from ..concurrency.stop import Stop
from ..errors import AsyncLoaderError, WorkerLostError
from ..load.app import Finished, give_back
from ..load.progress import Style, progress_view
from ..load.shards import run_as_asked
from ..load.workloads import BUILT_IN
from ..results.run import RunResult
from ..runtime.process import SIGNALS, Signals, leave_errors_to_the_report
from ..runtime.streams import flush_all, stderr, tell
from ..settings.run import RunSettings
from ..settings.spec import spec_of
from ..workers.supervision import Line, Lost, ended, supervise, watched_by


class ChildError(AsyncLoaderError):
    """What ended a child's run, in the child's words and with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # an instance stands for any of the tree


class Stopped(Exception):  # noqa: N818  not an error: somebody asked
    """The run was stopped before there was anything to report."""


def run_in_child(settings: RunSettings, progress: Style) -> RunResult:
    """
    Run in a new process and return its result; blocks.

    SIGINT and SIGTERM are passed on, so the child drains as a run of its own would. Raises
    `ChildError`, and `Stopped` when it was stopped before its run.
    """
    answers, answering = os.pipe()
    living, lifeline = os.pipe()
    flush_all()
    # None is lost between the fork and the handlers, which the child is not to have.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    process = os.fork()
    if not process:
        os.close(answers)
        os.close(lifeline)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _be_the_child(settings, progress, answering, living)
    os.close(answering)
    os.close(living)
    try:
        with _passing_signals_on(process), open(answers, "rb") as answer:  # noqa: PTH123
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            found = answer.readline()  # whoever it has forked may hold the pipe for longer
            _, status = os.waitpid(process, 0)
    finally:
        os.close(lifeline)
    return _result_of(found, os.waitstatus_to_exitcode(status))


def _be_the_child(settings: RunSettings, progress: Style, answering: int, living: int) -> NoReturn:
    """Perform the run and end the process, with nothing that is the command's to do at its end."""
    code = 1
    try:
        os.setsid()  # a terminal's Ctrl-C reaches it once, through the command
        code = _Run(settings, progress, answering, living).perform()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        flush_all()
        os._exit(code)


def _result_of(answer: bytes, code: int) -> RunResult:
    if not answer:
        raise ChildError(f"a run's process ended with {code} and no result", 1)
    document = json.loads(answer)
    if document.get("stopped"):
        raise Stopped
    if "error" in document:
        raise ChildError(document["error"], document["exit_code"])
    return RunResult.from_dict(document["result"])


@contextmanager
def _passing_signals_on(process: int) -> Iterator[None]:
    def pass_on(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(process, number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Run:
    """The run in its process; `answering` and `living` are its ends of the pipes."""

    def __init__(self, settings: RunSettings, progress: Style, answering: int, living: int) -> None:
        self._settings = settings
        self._progress: Style = progress
        self._answering = answering
        self._living = living

    def perform(self) -> int:
        """Perform the run, answer, and return the process's exit code."""
        settings = self._settings
        if not settings.debug:
            leave_errors_to_the_report()
        if settings.workload in BUILT_IN:
            return self._serve(None)
        return supervise(
            lambda line: ended(self._serve(line), line),
            self._answer_for,
            op_timeout=settings.op_timeout,
            grace=settings.grace,
        )

    def _serve(self, line: Line | None) -> int:
        settings = self._settings
        with progress_view(stderr(), self._progress) as view:

            async def work(stop: Stop) -> Finished:
                loop = asyncio.get_running_loop()
                loop.add_reader(self._living, partial(self._on_parent_gone, stop))
                return await run_as_asked(
                    spec_of(settings),
                    stop=stop,
                    on_progress=view.update,
                    say=view.phase,
                    note=view.note,
                )

            answer: dict[str, Any]
            try:
                with (
                    Signals() as signals,
                    watched_by(line, signals, settings.op_timeout, settings.grace),
                ):
                    finished = signals.run(work, settings.loop)
                answer = {"result": finished.result.to_dict()}
            except (asyncio.CancelledError, KeyboardInterrupt):
                answer = {"stopped": True}
            except AsyncLoaderError as error:
                answer = {"error": str(error), "exit_code": error.exit_code}
        self._answer(answer)
        return 0

    def _answer_for(self, lost: Lost) -> int:
        """Answer for a run that cannot do so any more: of it the figures are the answer."""
        if lost.result is not None:
            tell(f"async_loader: the run was ended from outside: {lost.how}")
            self._answer({"result": lost.result.to_dict()})
        else:
            error = f"the run was ended from outside: {lost.how}, and nothing is known of it"
            self._answer({"error": error, "exit_code": WorkerLostError.exit_code})
        if lost.own_server:
            give_back(spec_of(self._settings))
        return 0

    def _answer(self, answer: dict[str, Any]) -> None:
        with os.fdopen(os.dup(self._answering), "wb") as pipe:
            pipe.write(json.dumps(answer).encode() + b"\n")

    def _on_parent_gone(self, stop: Stop) -> None:
        """End the run at once: nobody waits for its result."""
        asyncio.get_running_loop().remove_reader(self._living)
        stop.request()
        stop.request()
