"""The state of a run at an instant, as its progress is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# The percentiles that it has.
WATCHED = {"p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    The state of a run at an instant; `rate` is of the last second.

    Percentiles are over the run so far; the `recent` ones, by the same names, over the last 5 s,
    None where nothing ended well in them. `time_split`: the seconds that all operations so far
    spent on each part (see `TimeSplit`), None where that is not timed. `errors`: the most
    frequent ones, by name. What a run in several processes does not tell is None or empty.
    """

    seconds: float
    planned: int | None
    duration: float | None
    completed: int
    bad: int
    rate: float
    p95_ms: float
    in_use: int | None
    dropped: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    waiting: int | None = None
    time_split: Mapping[str, float] | None = None
    errors: Mapping[str, int] = field(default_factory=dict)
    recent: Mapping[str, float] | None = None
