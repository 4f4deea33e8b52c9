"""
One run in a process of its own, so that no run inherits another's memory or garbage.

The process is forked from the command, which has imported what a run needs and has run nothing: a
new interpreter would take longer to start than a short run takes. See `workers.supervision`; the
result comes back by its line, progress is on stderr.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import NoReturn

from ..concurrency.stop import Stop
from ..errors import AsyncLoaderError, WorkerLostError
from ..load.app import Finished, give_back
from ..load.progress import Style, progress_view
from ..load.shards import run_as_asked
from ..load.workloads import BUILT_IN
from ..results.run import RunResult
from ..runtime.process import Signals, leave_errors_to_the_report
from ..runtime.streams import flush_all, stderr, tell
from ..settings.run import RunSettings
from ..settings.spec import spec_of
from ..workers.answers import Answer, Failed, Found, Unbegun
from ..workers.supervision import Ended, Line, Lost, ended, supervise, watched_by


class Stopped(Exception):  # noqa: N818  not an error: somebody asked
    """The run was stopped before there was anything to report."""


def run_in_child(settings: RunSettings, progress: Style) -> RunResult:
    """
    Run in a new process and return its result; blocks.

    SIGINT and SIGTERM are passed on, so the child drains as a run of its own would. Raises
    `FailedElsewhereError`, and `Stopped` when it was stopped before its run.
    """
    run = _Run(settings, progress)
    answer = supervise(
        run.perform,
        run.report,
        op_timeout=settings.op_timeout,
        grace=settings.grace,
        watched=run.is_watched,
    ).answer
    match answer:
        case Found():
            return RunResult.from_dict(answer.result)
        case Failed():
            raise answer.error()
        case _:
            raise Stopped


class _Run:
    """The run: `perform` is its process's, and `report` the command's where that is lost."""

    def __init__(self, settings: RunSettings, progress: Style) -> None:
        self._settings = settings
        self._progress: Style = progress
        self.is_watched = settings.workload not in BUILT_IN
        """Whether it is somebody's, which may block it: ours does not, and is measured alone."""

    def perform(self, line: Line) -> NoReturn:
        """Perform the run and end the process, with nothing that is the command's at its end."""
        code = 1
        try:
            if not self._settings.debug:
                leave_errors_to_the_report()
            answer = self._answer(line)
            if self.is_watched:
                code = ended(0, line, answer)
            else:
                line.tell(Ended(answer=answer))
                code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            flush_all()
            os._exit(code)

    def _answer(self, line: Line) -> Answer:
        settings, alone = self._settings, None if self.is_watched else line
        with progress_view(stderr(), self._progress) as view:

            async def work(stop: Stop) -> Finished:
                if alone is not None:
                    alone.when_alone(lambda: _end_at_once(stop))
                return await run_as_asked(
                    spec_of(settings),
                    stop=stop,
                    on_progress=view.update,
                    say=view.phase,
                    note=view.note,
                )

            try:
                with (
                    Signals() as signals,
                    watched_by(
                        line if self.is_watched else None,
                        signals,
                        settings.op_timeout,
                        settings.grace,
                    ),
                ):
                    finished = signals.run(work, settings.loop)
            except (asyncio.CancelledError, KeyboardInterrupt):
                return Unbegun()
            except AsyncLoaderError as error:
                return Failed.of(error)
            return Found(finished.result.to_dict())

    def report(self, lost: Lost) -> Ended:
        """Answer for a run that cannot do so any more: of it the figures are the answer."""
        if lost.own_server:
            give_back(spec_of(self._settings))
        if lost.result is not None:
            tell(f"async_loader: the run was ended from outside: {lost.how}")
            return Ended(answer=Found(lost.result.to_dict()))
        if not self.is_watched:
            what = f"a run's process ended with {lost.exit_code} and no result"
            return Ended(answer=Failed(what, 1))
        what = f"the run was ended from outside: {lost.how}, and nothing is known of it"
        return Ended(answer=Failed(what, WorkerLostError.exit_code))


def _end_at_once(stop: Stop) -> None:
    """End the run: nobody waits for its result."""
    stop.request()
    stop.request()
