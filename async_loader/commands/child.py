"""
One run in a process of its own, so that no run inherits another's memory or garbage.

The settings go in as JSON on stdin (a password is in no argument list), the result comes out
as JSON on stdout; progress is on stderr. When stdin ends the parent is gone, and so is the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from ..app import Finished, give_back
from ..errors import AsyncLoaderError, WorkerLostError
from ..limits import Stop
from ..progress import Style, progress_view
from ..results.run import RunResult
from ..runtime import SIGNALS, Signals, leave_errors_to_the_report
from ..settings.run import RunSettings
from ..shards import run_as_asked
from ..streams import kept_streams, stderr, stdout, tell
from ..supervision import Line, Lost, ended, supervise, watched_by
from ..workloads import BUILT_IN


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
    with _started(progress) as child, _passing_signals_on(child):
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(_dump(settings).encode() + b"\n")
        child.stdin.flush()
        answer = child.stdout.read()
    return _result_of(answer, child.returncode)


def _started(progress: Style) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  our own interpreter and module
        [sys.executable, "-m", "async_loader.commands.child", progress],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # A session of its own: a terminal's Ctrl-C reaches it once, through us.
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


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
def _passing_signals_on(child: subprocess.Popen[bytes]) -> Iterator[None]:
    def pass_on(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _dump(settings: RunSettings) -> str:
    values = settings.model_dump(mode="json")
    if settings.database_url is not None:
        values["database_url"] = settings.database_url.get_secret_value()
    return json.dumps(values)


def main() -> int:
    """Serve one run: what `run_in_child` starts."""
    settings = RunSettings(**json.loads(sys.stdin.readline()))
    if not settings.debug:
        leave_errors_to_the_report()
    with kept_streams():
        if settings.workload in BUILT_IN:
            return _serve(settings, None)
        return supervise(
            lambda line: ended(_serve(settings, line), line),
            partial(_answer_for, settings),
            op_timeout=settings.op_timeout,
            grace=settings.grace,
        )


def _serve(settings: RunSettings, line: Line | None) -> int:
    """Perform the run and answer; return the process's exit code."""
    with progress_view(stderr(), sys.argv[1]) as view:  # type: ignore[arg-type]  # our own argument

        async def work(stop: Stop) -> Finished:
            asyncio.get_running_loop().add_reader(sys.stdin, _on_parent_gone, stop)
            return await run_as_asked(
                settings, stop=stop, on_progress=view.update, say=view.phase, note=view.note
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
    _answer(answer)
    return 0


def _answer_for(settings: RunSettings, lost: Lost) -> int:
    """Answer for a run that cannot do so any more: of it the figures are the answer."""
    if lost.result is not None:
        tell(f"async_loader: the run was ended from outside: {lost.how}")
        _answer({"result": lost.result.to_dict()})
    else:
        error = f"the run was ended from outside: {lost.how}, and nothing is known of it"
        _answer({"error": error, "exit_code": WorkerLostError.exit_code})
    if lost.own_server:
        give_back(settings)
    return 0


def _answer(answer: dict[str, Any]) -> None:
    stdout().write(json.dumps(answer))
    stdout().flush()


def _on_parent_gone(stop: Stop) -> None:
    """End the run at once: nobody waits for its result."""
    asyncio.get_running_loop().remove_reader(sys.stdin)
    stop.request()
    stop.request()


if __name__ == "__main__":
    sys.exit(main())
