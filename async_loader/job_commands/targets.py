"""Finding a job by its name: one that ships, `package.module:name` or `path/file.py:name`."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigurationError
from ..jobs import BatchJob
from ..workers.shipping import Shipped

SHIPPED = {
    "top20": "async_loader.workloads.music:top20",
    "derive-chords": "async_loader.workloads.music:derive_chords",
}


@dataclass(frozen=True, slots=True)
class JobTarget:
    """Where a job is, for this process and for others that have no such file."""

    module: Shipped
    name: str

    @classmethod
    def of(cls, target: str) -> JobTarget:
        """Return what a user's name for a job means; raises `ConfigurationError`."""
        place, separator, name = SHIPPED.get(target, target).rpartition(":")
        if not separator:
            names = ", ".join(SHIPPED)
            raise ConfigurationError(
                f"no job {target!r}: the jobs are {names}, or give module:name"
            )
        return cls(Shipped.of(place), name)

    def load(self) -> BatchJob:
        """Return the job; raises `ConfigurationError`, or `WorkloadError` for its module."""
        job = getattr(self.module.load(), self.name, None)
        if not isinstance(job, BatchJob):
            raise ConfigurationError(f"{self.module.place} has no BatchJob {self.name!r}")
        return job
