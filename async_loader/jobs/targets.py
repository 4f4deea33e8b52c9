"""Finding a job by its name: one that ships, `package.module:name` or `path/file.py:name`."""

from __future__ import annotations

from ..errors import ConfigurationError
from ..runtime.user_modules import load_module
from .job import BatchJob

SHIPPED = {
    "top20": "async_loader.load.workloads.music:top20",
    "derive-chords": "async_loader.load.workloads.music:derive_chords",
}


def place_of(target: str) -> tuple[str, str]:
    """Return the module or file that a job is in, and its name there."""
    place, separator, name = SHIPPED.get(target, target).rpartition(":")
    if not separator:
        names = ", ".join(SHIPPED)
        raise ConfigurationError(f"no job {target!r}: the jobs are {names}, or give module:name")
    return place, name


def load_job(target: str) -> BatchJob:
    """Return the job that ships under a name, or that `module:name` or `file.py:name` is."""
    place, name = place_of(target)
    job = getattr(load_module(place), name, None)
    if not isinstance(job, BatchJob):
        raise ConfigurationError(f"{place} has no BatchJob {name!r}")
    return job
