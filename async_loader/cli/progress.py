"""How far a command is, on stderr: a bar on a terminal, a line every few seconds in a pipe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TextIO, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from ..load.progress import LINE_EVERY, Style

State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class HowFar:
    """`done` of `total` (None where nobody knows), in any unit; `figures` say it in words."""

    done: int
    total: int | None
    figures: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class ProgressView(Generic[State]):
    """What shows a state, and what writes a line above it."""

    update: Callable[[State], None]
    say: Callable[[str], None]


@contextmanager
def progress_view(
    stream: TextIO, style: Style, how_far: Callable[[State], HowFar]
) -> Iterator[ProgressView[State]]:
    """Yield what shows a state: a bar on a terminal, else a line now and then, or nothing."""
    if style == "auto":
        style = "bar" if stream.isatty() else "lines"
    if style == "bar":
        with _bar(stream) as (show, say_above):
            yield ProgressView(lambda state: show(how_far(state)), say_above)
        return

    def say(text: str) -> None:
        print(text, file=stream, flush=True)

    if style == "lines":
        lines = _lines(say)
        yield ProgressView(lambda state: lines(how_far(state)), say)
    else:
        yield ProgressView(lambda _state: None, say)


@contextmanager
def _bar(stream: TextIO) -> Iterator[tuple[Callable[[HowFar], None], Callable[[str], None]]]:
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=20),
        TextColumn("{task.fields[figures]}"),
        console=Console(file=stream), auto_refresh=False, transient=True,
    )  # fmt: skip
    bar = progress.add_task("", total=None, figures="")

    def update(now: HowFar) -> None:
        progress.update(
            bar,
            description=escape(now.name),
            total=now.total,
            completed=now.done,
            figures=now.figures,
            refresh=True,
        )

    def say(text: str) -> None:
        progress.console.print(text, markup=False, highlight=False)

    with progress:
        yield update, say


def _lines(say: Callable[[str], None]) -> Callable[[HowFar], None]:
    shown = -LINE_EVERY

    def update(now: HowFar) -> None:
        nonlocal shown
        time = asyncio.get_running_loop().time()
        if time - shown >= LINE_EVERY:
            shown = time
            say(f"{now.name}  {now.figures}" if now.name else now.figures)

    return update
