"""How well a run kept to its schedule of arrivals: a part of a `RunResult`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from .annotations import Count, EncodedHistogram, Summary
from .histogram import sum_of
from .notes import Key, shown
from .part import Part


@dataclass(frozen=True, slots=True)
class ScheduleResult(Part):
    """The arrivals of an open model, and how late they were started; null in a closed one."""

    due: Count
    dropped: Annotated[
        Count, Meta(description="could not start: too many in flight, or the run was stopped")
    ]
    lag: Annotated[EncodedHistogram, Key("lag_histogram")]

    @property
    @shown
    def lag_ms(self) -> Summary:
        """From when an operation was due to when it began, for each that did."""
        return self.lag.summary_ms()

    @property
    @shown
    def started(self) -> Count:
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
