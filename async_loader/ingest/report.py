"""An ingest in words: a line of progress, a summary, and what the other ways would have cost."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..reports.console import printed
from .strategies import Measure
from .tally import Ingested, Progress

_NOTE = (
    "`CPU`, `files` and `database` are seconds spent in each: one after the other in "
    "`sequential`, and side by side in the others, where their sum may be more than `seconds`. "
    "Threads read and scale side by side too, but each still commits its one row, and waits for "
    "the others' commits: where `database` is most of it, threads alone hardly help. Rows that "
    "share a transaction do."
)


def progress_line(progress: Progress) -> str:
    """Return the figures that change while files are read."""
    return (
        f"{progress.pairs:,} of {progress.all_pairs:,} files"
        f"  {_megabytes(progress.size)} of {_megabytes(progress.all_size)}"
    )


def summary(done: Ingested, place: str) -> str:
    """Return what has become of a directory; `place` is where the rows are."""
    counts = done.counts
    lines = [
        f"{done.state}  {done.found:,} pairs of files: {counts.added:,} added, "
        f"{done.before:,} were in before, {counts.same:,} of the same content, "
        f"{len(done.failed):,} failed",
        f"read      {counts.read:,} pairs, {_megabytes(counts.size)} in {done.seconds:.2f} s"
        + (f": {counts.read / done.seconds:,.1f} pairs/s" if done.seconds else ""),
        f"database  {place}",
    ]
    if done.state != "done":
        lines.append("the same command goes on with the rest")
    if done.failed:
        lines.append("failed")
        lines += [f"  {shown(one.name)}: {shown(one.reason)}" for one in done.failed]
    return "\n".join(lines) + "\n"


def comparison(measures: Sequence[Measure], *, width: int = 80, color: bool = False) -> str:
    """Return the table of ways; `width` in columns, `color` adds ANSI codes."""
    title = f"[bold]{measures[0].pairs:,} rows[/], medians in turns"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("way", min_width=18, no_wrap=True)
    for heading in ("seconds", "CPU", "files", "database", "rows/s", "x sequential"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in measures:
        table.add_row(
            one.way,
            f"{one.seconds:.2f}",
            f"{one.computing:.2f}",
            f"{one.reading:.2f}",
            f"{one.database:.2f}",
            f"{one.pairs / one.seconds:,.1f}",
            f"{one.ratio:.2f}",
        )
    return printed([title, table, _NOTE], width=min(width, 100), color=color)


def shown(name: str) -> str:
    """Return a name on one line that moves no cursor: what cannot be printed is escaped."""
    return "".join(c if c.isprintable() else _escaped(c) for c in name)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
