"""Progress on stderr: a bar on a terminal, a line every few seconds in a pipe."""

from __future__ import annotations

import time
from typing import Literal, Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from .metrics.snapshot import Snapshot

LINE_EVERY = 5.0
Style = Literal["auto", "bar", "lines", "none"]


class ProgressView(Protocol):
    """Something that shows how far a run is."""

    def __enter__(self) -> Self:
        """Start to show."""
        ...

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        ...

    def phase(self, name: str) -> None:
        """Show what goes on outside the run itself."""
        ...

    def note(self, text: str) -> None:
        """Show a line that stays, whatever comes."""
        ...

    def update(self, snapshot: Snapshot) -> None:
        """Show the state of the run."""
        ...


def progress_view(stream: TextIO, style: Style = "auto") -> ProgressView:
    """Return the view for this stream: `auto` is a bar on a terminal, else lines."""
    if style == "auto":
        style = "bar" if stream.isatty() else "lines"
    views = {"bar": BarView, "lines": LineView, "none": SilentView}
    return views[style](stream)


class SilentView:
    """Shows nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def phase(self, name: str) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Print the line: nobody asked not to know what goes wrong."""
        print(text, file=self._stream, flush=True)

    def update(self, snapshot: Snapshot) -> None:
        """Show nothing."""


class LineView(SilentView):
    """A line at each phase and every five seconds."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._next = time.monotonic() + LINE_EVERY

    def phase(self, name: str) -> None:
        """Print the phase."""
        print(name, file=self._stream, flush=True)

    def update(self, snapshot: Snapshot) -> None:
        """Print the figures, at most every five seconds."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LINE_EVERY
        of = f" of {snapshot.planned:,}" if snapshot.planned is not None else ""
        line = f"{snapshot.seconds:6.1f} s  {snapshot.completed:,}{of}  {_figures(snapshot)}"
        print(line, file=self._stream, flush=True)


class BarView(SilentView):
    """A bar with operations, rate, p95, connections and the time to go."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        # No refresh thread: it would take turns with the loop that is being measured.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}"),
            console=Console(file=stream),
            auto_refresh=False,
            transient=True,
        )
        self._bar = self._progress.add_task("", total=None, figures="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def phase(self, name: str) -> None:
        """Show the phase in front of an empty bar."""
        self._progress.update(self._bar, description=name, figures="", refresh=True)

    def note(self, text: str) -> None:
        """Print the line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def update(self, snapshot: Snapshot) -> None:
        """Show the figures."""
        total = snapshot.planned if snapshot.planned is not None else snapshot.duration
        ended = snapshot.completed + snapshot.bad + snapshot.dropped
        done = ended if snapshot.planned is not None else snapshot.seconds
        self._progress.update(
            self._bar,
            description=f"{snapshot.completed:,}",
            total=total,
            completed=done,
            figures=_figures(snapshot),
            refresh=True,
        )


def _figures(snapshot: Snapshot) -> str:
    parts = [f"{snapshot.rate:,.0f}/s", f"p95 {snapshot.p95_ms:,.1f} ms"]
    if snapshot.in_use is not None:
        parts.append(f"{snapshot.in_use} conn")
    if snapshot.bad:
        parts.append(f"{snapshot.bad:,} failed")
    if snapshot.dropped:
        parts.append(f"{snapshot.dropped:,} dropped")
    if (left := seconds_left(snapshot)) is not None:
        parts.append(f"ETA {left:.0f} s")
    return "  ".join(parts)


def seconds_left(snapshot: Snapshot) -> float | None:
    """Return the time to go at the pace so far; None while nobody can know."""
    if snapshot.duration is not None:
        return max(snapshot.duration - snapshot.seconds, 0.0)
    ended = snapshot.completed + snapshot.bad + snapshot.dropped
    if snapshot.planned is None or not ended:
        return None
    return (snapshot.planned - ended) * snapshot.seconds / ended
