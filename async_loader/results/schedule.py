"""How well a run kept to its schedule of arrivals: a part of a `RunResult`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from .histogram import Histogram, sum_of


@dataclass(frozen=True, slots=True)
class ScheduleResult:
    """
    The arrivals of an open model, and how late they were started.

    `due` came due; `dropped` of them could not start, as too many were in flight or the run
    was stopped. `lag`: from when an operation was due to when it began, for each that did.
    """

    due: int
    dropped: int
    lag: Histogram

    @property
    def started(self) -> int:
        """Arrivals that began their operation."""
        return self.due - self.dropped

    @property
    def drop_rate(self) -> float:
        """The share (0 to 1) of the arrivals that could not start."""
        return self.dropped / self.due if self.due else 0.0

    def merged(self, other: ScheduleResult) -> ScheduleResult:
        """Return the two together."""
        return ScheduleResult(
            due=self.due + other.due,
            dropped=self.dropped + other.dropped,
            lag=sum_of(self.lag, other.lag),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "due": self.due,
            "started": self.started,
            "dropped": self.dropped,
            "lag_ms": self.lag.summary_ms(),
            "lag_histogram": self.lag.encode(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote."""
        return cls(data["due"], data["dropped"], Histogram.decode(data["lag_histogram"]))
