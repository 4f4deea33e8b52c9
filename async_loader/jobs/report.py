"""A run in words: a line of progress, a summary, a list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from ..failures.redaction import printable
from .dry_run import DryRun
from .status import JobStatus

_SHOWN = 10  # rows that failed
_RESUME = "`job run` goes on with it"


def progress_line(status: JobStatus) -> str:
    """Return the figures that change while a run goes on."""
    parts = [_rows(status)]
    if status.rate is not None:
        parts.append(f"{status.rate:,.0f} rows/s")
    parts += [
        f"{count:,} {name}"
        for count, name in (
            (status.rows_prepared, "prepared"), (status.rows_written, "written"),
            (status.rows_skipped, "skipped"), (status.retried, "retried"),
        )
        if count
    ]  # fmt: skip
    if status.eta_seconds is not None:
        parts.append(f"ETA {status.eta_seconds:.0f} s")
    if status.throttled_why:
        parts.append(f"throttled: {_line(status.throttled_why)}")
    return "  ".join(parts)


def summary(status: JobStatus) -> str:
    """Return a run's lines for a terminal."""
    state = "done already" if status.done_already else status.state
    prepared = f"prepared {status.rows_prepared:,}, " if status.rows_prepared else ""
    lines = [
        f"{state}  {_title(status)}: {_rows(status)} in {status.chunks:,} chunks",
        f"rows      read {status.rows_read:,}, {prepared}written {status.rows_written:,}, "
        f"skipped {status.rows_skipped:,}, chunks retried {status.retried:,}",
    ]
    if status.rate is not None:
        eta = "" if status.eta_seconds is None else f", ETA {status.eta_seconds:.0f} s"
        lines.append(f"pace      {status.rate:,.0f} rows/s, busy {status.busy_seconds:.1f} s{eta}")
    if status.throttled_seconds:
        why = f" ({_line(status.throttled_why)})" if status.throttled_why else ""
        lines.append(f"throttled {status.throttled_seconds:.1f} s{why}")
    if status.state == "done" and status.message:
        lines.append(f"but       {_line(status.message)}")
    lines.append(f"run       {status.run}, {_standing(status)}")
    if (begun := _begun(status)) is not None:
        lines.append(
            f"begun     {begun}{f', over after {took}' if (took := _took(status)) else ''}"
        )
    return "\n".join(lines) + "\n"


def dry_summary(tried: DryRun) -> str:
    """Return the lines of a dry run for a terminal."""
    arguments = ", ".join(f"{name}={value}" for name, value in tried.arguments.items())
    title = _line(f"{tried.job} ({arguments})" if arguments else tried.job)
    done = tried.rows_read + len(tried.failed)
    state = "interrupted" if tried.interrupted else "dry run"
    prepared = f"prepared {tried.rows_prepared:,}, " if tried.rows_prepared else ""
    lines = [
        f"{state}  {title}: {done:,} of {tried.selected:,} rows in {tried.chunks:,} chunks, each "
        "rolled back",
        f"rows      read {tried.rows_read:,}, {prepared}written {tried.rows_written:,}, "
        f"failed {len(tried.failed):,}",
        f"pace      busy {tried.busy_seconds:.1f} s, slowest chunk {tried.slowest_chunk:.2f} s",
    ]
    lines += [f"failed    the row {_line(row)}: {_line(why)}" for row, why in tried.failed[:_SHOWN]]
    if len(tried.failed) > _SHOWN:
        lines.append(f"          and {len(tried.failed) - _SHOWN:,} more")
    lines.append("note      no chunk saw what the ones before it would have written")
    if tried.without:
        lines.append(f"note      not called: {', '.join(tried.without)}")
    if tried.stopped_at:
        lines.append(f"stops     a run would stop at {_line(tried.stopped_at)}")
    return "\n".join(lines) + "\n"


def listing(runs: Sequence[JobStatus]) -> str:
    """Return a line for each run."""
    if not runs:
        return "no job has run here\n"
    rows = [
        (str(r.run), _title(r), _begun(r) or "", _took(r) or "", _standing(r), _rows(r))
        for r in runs
    ]
    widths = [max(len(row[n]) for row in rows) for n in range(5)]
    return "".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[5]]) + "\n"
        for row in rows
    )


def _line(text: str) -> str:
    """Return anybody's text as one line that does nothing to a terminal."""
    return printable(text).replace("\n", "\\n")


def _title(status: JobStatus) -> str:
    arguments = ", ".join(f"{name}={value}" for name, value in status.arguments.items())
    return _line(f"{status.job} ({arguments})" if arguments else status.job)


def _rows(status: JobStatus) -> str:
    done = status.rows_read + status.rows_skipped
    return f"{done:,} rows" if status.total is None else f"{done:,} of {status.total:,} rows"


def _begun(status: JobStatus) -> str | None:
    """Return when a run began, to the second."""
    return None if status.started_at is None else f"{status.started_at:%Y-%m-%d %H:%M:%S} UTC"


def _took(status: JobStatus) -> str | None:
    """Return what lies between a run's beginning and its end, pauses included."""
    if status.started_at is None or status.ended_at is None:
        return None
    return str(timedelta(seconds=round((status.ended_at - status.started_at).total_seconds())))


def _standing(status: JobStatus) -> str:
    if status.state == "running":
        return f"{status.tasks} at work" if status.tasks else f"interrupted: {_RESUME}"
    if status.state == "failed":
        return f"failed: {_line(status.message or '')}"
    by = f" by {_line(status.message)}" if status.message else ""
    if status.state == "paused":
        return f"paused{by}: {_RESUME}"
    return f"cancelled{by}" if status.state == "cancelled" else status.state
