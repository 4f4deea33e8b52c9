"""
The life of a run, as data: where it can be, where it can go from there, and why.

A run that was killed is still `running`: nobody was left to write anything else. Whoever
runs the job next sees that no worker lives and goes on with it.
"""

from __future__ import annotations

from typing import Literal

from ..errors import JobError

SCHEMA = "async_loader_jobs"
"""Where the state of all runs is kept, in a database that has schemas."""

State = Literal["running", "paused", "failed", "done", "cancelled"]

ACTIVE: tuple[State, ...] = ("running", "paused", "failed")
"""A job has at most one run in these states for the same arguments; the next run resumes it."""

TRANSITIONS: dict[tuple[State, State], str] = {
    ("running", "running"): "another worker joins, or somebody resumes after a kill",
    ("running", "paused"): "somebody asked, or the last worker was told to stop",
    ("running", "failed"): "a row failed and the limit of skipped rows is reached",
    ("running", "done"): "every partition is at its end",
    ("running", "cancelled"): "somebody gave the run up; what was committed stays",
    ("paused", "paused"): "asked twice",
    ("paused", "running"): "resumed: each partition goes on behind its last chunk",
    ("paused", "cancelled"): "somebody gave the run up; what was committed stays",
    ("failed", "failed"): "two workers met their rows at once",
    ("failed", "running"): "resumed, with the row or the code repaired",
    ("failed", "cancelled"): "somebody gave the run up; what was committed stays",
}


def check(before: State, after: State) -> None:
    """Raise `JobError` for a way that does not exist."""
    if (before, after) not in TRANSITIONS:
        raise JobError(f"a run that is {before} cannot become {after}")
