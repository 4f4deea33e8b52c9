"""What ran before a run and is in none of its figures: a part of a `RunResult`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from .histogram import Histogram, sum_of


@dataclass(frozen=True, slots=True)
class WarmUpResult:
    """
    The operations of a warm-up, in `seconds`: those that ended well are in the `histogram`.

    `failed`: those that did not, whatever the database did of them; `dropped`: could not start.
    """

    seconds: float
    failed: int
    dropped: int
    histogram: Histogram

    @property
    def completed(self) -> int:
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

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "seconds": self.seconds,
            "completed": self.completed,
            "failed": self.failed,
            "dropped": self.dropped,
            "latency_ms": self.histogram.summary_ms(),
            "histogram": self.histogram.encode(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote."""
        histogram = Histogram.decode(data["histogram"])
        return cls(data["seconds"], data["failed"], data["dropped"], histogram)
