"""
One run on several processes: which operations each performs, and what they find together.

`shard` is the inside of a worker, `split` and `coordinator` are its outside.
"""

from __future__ import annotations

from functools import partial

from ..app import Finished, run_workload
from ..databases import Say
from ..errors import ConfigurationError
from ..limits import Stop
from ..load_settings import UNBOUNDED_POOL
from ..phase import OnProgress
from ..settings import RunSettings
from ..workers import ProcessWorkers
from .coordinator import run_split
from .split import ShardError

__all__ = ["ShardError", "number_of_shards", "run_as_asked"]


async def run_as_asked(
    settings: RunSettings, *, stop: Stop, on_progress: OnProgress, say: Say, note: Say
) -> Finished:
    """
    Run what the settings ask for, in this process or split over several.

    `say` is told of each phase, `note` of what went wrong meanwhile. Raises as `run_workload`.
    """
    shards = number_of_shards(settings)
    way = None
    if shards > 1:
        way = partial(
            run_split, shards=shards, make_workers=partial(ProcessWorkers, shards), note=note
        )
    return await run_workload(settings, stop=stop, on_progress=on_progress, say=say, way=way)


def number_of_shards(settings: RunSettings) -> int:
    """
    Return over how many processes a run is divided.

    Each has one operation in flight and one connection at least: `auto` is as many as that
    leaves, and a larger number raises `ConfigurationError`.
    """
    most = settings.throttle().concurrency or UNBOUNDED_POOL
    what = "--max-in-flight" if settings.is_open else "--stage" if settings.stage else "concurrency"
    if settings.pool_size is not None and settings.pool_size < most:
        most, what = settings.pool_size, "--pool-size"
    wanted = settings.number_of_processes
    if wanted > most and settings.processes != "auto":
        raise ConfigurationError(
            f"--processes {wanted} cannot share a {what} of {most}: each needs one"
        )
    return min(wanted, most)
