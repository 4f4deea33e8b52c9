"""What ran before a run and is in none of its figures: a part of a `RunResult`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from .annotations import Count, EncodedHistogram, NotNegative, Summary
from .histogram import sum_of
from .notes import shown
from .part import Part


@dataclass(frozen=True, slots=True)
class WarmUpResult(Part):
    """What ran before the run and is in no other figure; null without one."""

    seconds: NotNegative
    failed: Annotated[Count, Meta(description="whatever the database did of them")]
    dropped: Annotated[Count, Meta(description="could not start")]
    histogram: EncodedHistogram

    @property
    @shown
    def latency_ms(self) -> Summary:
        """The latencies of those that ended well."""
        return self.histogram.summary_ms()

    @property
    @shown
    def completed(self) -> Count:
        """Operations that ended well."""
        return self.histogram.count

    def merged(self, other: WarmUpResult) -> WarmUpResult:
        """Return the two together; the time is the longer one."""
        return WarmUpResult(
            seconds=max(self.seconds, other.seconds),
            failed=self.failed + other.failed,
            dropped=self.dropped + other.dropped,
            histogram=sum_of(self.histogram, other.histogram),
        )
