"""What each process of a split run did, beside what all of them did together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class ShardResult:
    """
    One shard of a run: so that a slow machine, or a worker that died, is seen.

    `seconds`: its part of the run took. `loop_busy`: a share, 0 to 1, of a core at most.
    `loop_lag_ms` is the 99th percentile of how late its event loop was, `schedule_lag_ms` of how
    late its operations began where they were due. `clock_offset_ms`: its clock is ahead of the
    coordinator's. `lost`: how its worker died; the figures are then those of its last snapshot.
    """

    name: str
    seconds: float
    completed: int
    failed: int
    indeterminate: int
    loop_busy: float
    loop_lag_ms: float
    schedule_lag_ms: float | None = None
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    clock_offset_ms: float = 0.0
    lost: str | None = None

    @property
    def throughput(self) -> float:
        """Operations per second that ended well."""
        return self.completed / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self) | {"throughput": round(self.throughput, 3)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote."""
        return cls(**{name: value for name, value in data.items() if name != "throughput"})
