"""What each process of a split run did, beside what all of them did together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from .annotations import Count, NotNegative, PerSecondRate, Share
from .notes import shown
from .part import Part


@dataclass(frozen=True, slots=True)
class ShardResult(Part):
    """One process of a run that was split: so that a slow machine, or a dead worker, is seen."""

    name: str
    seconds: Annotated[NotNegative, Meta(description="its part of the run took")]
    completed: Count
    failed: Count
    indeterminate: Count
    loop_busy: Annotated[Share, Meta(description="of a core at most")]
    loop_lag_ms: Annotated[NotNegative, Meta(description="milliseconds at p99")]
    schedule_lag_ms: Annotated[
        float | None, Meta(description="at p99: from due to begun; null in a closed model")
    ] = None
    cpu_seconds: NotNegative = 0.0
    peak_memory_bytes: Count = 0
    clock_offset_ms: Annotated[float, Meta(description="ahead of the coordinator's")] = 0.0
    lost: Annotated[
        str | None, Meta(description="how it died, after its last snapshot, which this is")
    ] = None

    @property
    @shown
    def throughput(self) -> PerSecondRate:
        """Operations per second that ended well."""
        return self.completed / self.seconds if self.seconds else 0.0
