"""
One run on several processes: which operations each performs, and what they find together.

`shard` is the inside of a worker, `split` and `coordinator` are its outside.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from ..app import Finished, Way, check_workload, run_workload, uses_database
from ..errors import ConfigurationError
from ..limits import Stop
from ..run_database import Say
from ..runner.phase import OnProgress
from ..settings.load import UNBOUNDED_POOL
from ..settings.run import RunSettings
from ..workers import ProcessWorkers
from ..workers.cluster import DaskWorkers, is_local, joined
from ..workers.shipping import Shipped
from .coordinator import run_split
from .split import ShardError

__all__ = ["ShardError", "number_of_shards", "run_as_asked"]


async def run_as_asked(
    settings: RunSettings, *, stop: Stop, on_progress: OnProgress, say: Say, note: Say
) -> Finished:
    """
    Run what the settings ask for, in this process or split over several.

    `say` is told of each phase, `note` of what went wrong meanwhile. Raises as `run_workload`,
    and `ClusterError` for a cluster that cannot be used.
    """
    async with _way(settings, say, note) as way:
        return await run_workload(
            settings, stop=stop, on_progress=on_progress, say=say, note=note, way=way
        )


@asynccontextmanager
async def _way(settings: RunSettings, say: Say, note: Say) -> AsyncIterator[Way | None]:
    """Yield how the run is performed, None for in this process."""
    if settings.cluster is not None:
        shipped = _to_ship(settings)
        say("joining the cluster")
        async with joined(settings.cluster) as cluster:
            shards = number_of_shards(settings, len(cluster.members))
            make = partial(DaskWorkers, cluster, shipped=shipped)
            yield partial(run_split, shards=shards, make_workers=make, note=note)
        return
    shards = number_of_shards(settings)
    make_processes = partial(ProcessWorkers, shards)
    split = partial(run_split, shards=shards, make_workers=make_processes, note=note)
    yield split if shards > 1 else None


def _to_ship(settings: RunSettings) -> Shipped | None:
    """Return what the workers of a cluster must have; raises for what cannot run there."""
    workload = check_workload(settings)
    ours = settings.database_url is None and workload.sessions_hook is None
    if ours and uses_database(workload) and not is_local(settings.cluster or ""):
        raise ConfigurationError(
            "--cluster needs --database-url: the embedded server is this machine's alone"
        )
    place = settings.workload.rpartition(":")[0]
    return Shipped.of(place) if place else None


def number_of_shards(settings: RunSettings, wanted: int | None = None) -> int:
    """
    Return over how many of the wanted processes, by default `--processes`, a run is divided.

    Each has one operation in flight and one connection at least: `auto` is as many as that
    leaves, and a larger number raises `ConfigurationError`.
    """
    most = settings.max_in_flight
    if not settings.is_open:
        most = settings.throttle().concurrency or UNBOUNDED_POOL
    what = "--max-in-flight" if settings.is_open else "--stage" if settings.stage else "concurrency"
    if settings.pool_size is not None and settings.pool_size < most:
        most, what = settings.pool_size, "--pool-size"
    wanted = wanted or settings.number_of_processes
    if wanted > most and settings.processes != "auto":
        who = f"--processes {wanted}"
        if settings.cluster is not None:
            who = f"the {wanted} workers of --cluster {settings.cluster}"
        raise ConfigurationError(f"{who} cannot share a {what} of {most}: each needs one")
    return min(wanted, most)
