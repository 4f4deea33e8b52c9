"""A job's progress on stderr: a bar on a terminal, a line every few seconds in a pipe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ...jobs import JobStatus, report
from ...jobs.run import OnProgress
from ...progress import LINE_EVERY, Style


@dataclass(frozen=True, slots=True)
class JobView:
    """What shows the state of a run, and what writes a line above it."""

    update: OnProgress
    say: Callable[[str], None]


@contextmanager
def job_progress(stream: TextIO, style: Style) -> Iterator[JobView]:
    """Yield what shows a run: a bar on a terminal, else a line now and then."""
    if style == "auto":
        style = "bar" if stream.isatty() else "lines"
    if style == "bar":
        with _bar(stream) as view:
            yield view
        return

    def say(text: str) -> None:
        print(text, file=stream, flush=True)

    yield JobView(_lines(say) if style == "lines" else lambda _status: None, say)


@contextmanager
def _bar(stream: TextIO) -> Iterator[JobView]:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20))
    progress = Progress(
        *columns, TextColumn("{task.fields[figures]}"), console=Console(file=stream),
        auto_refresh=False, transient=True,
    )  # fmt: skip
    bar = progress.add_task("", total=None, figures="")

    def update(status: JobStatus) -> None:
        progress.update(
            bar,
            description=status.job,
            total=status.total,
            completed=status.rows_read + status.rows_skipped,
            figures=report.progress_line(status),
            refresh=True,
        )

    def say(text: str) -> None:
        progress.console.print(text, markup=False, highlight=False)

    with progress:
        yield JobView(update, say)


def _lines(say: Callable[[str], None]) -> OnProgress:
    shown = -LINE_EVERY

    def update(status: JobStatus) -> None:
        nonlocal shown
        now = asyncio.get_running_loop().time()
        if now - shown >= LINE_EVERY:
            shown = now
            say(f"{status.job}  {report.progress_line(status)}")

    return update
