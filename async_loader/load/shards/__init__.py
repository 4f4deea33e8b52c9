"""
One run on several processes: which operations each performs, and what they find together.

    coordinator: set-up once -> begin, together -> snapshots, 1/s -> results -> merged, tear-down
        |             ^                                  ^               ^   a loss is told at once:
    shard 1..n:    ready  ->  at the instant  ->  operations i % n == k  ->  done  stop, or go on

    coordinator.py, split.py    the outside: prepares, follows the shards, adds them up
    shard.py                    the inside of a worker: its part of the operations, in step
    snapshots.py                what a shard tells each second, in at most 4 KB
    messages.py                 what goes up and down
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from ...concurrency.stop import Stop
from ...errors import ConfigurationError
from ...workers import ProcessWorkers
from ...workers.cluster import DaskWorkers, is_local, joined
from ...workers.shipping import Shipped
from ..app import Finished, RunPerformer, check_workload, run_workload, uses_database
from ..run_database import Say
from ..runner.phase import OnProgress
from ..specs.load_test import LoadTestSpec
from .coordinator import run_split

__all__ = ["number_of_shards", "run_as_asked"]


async def run_as_asked(
    spec: LoadTestSpec, *, stop: Stop, on_progress: OnProgress, say: Say, note: Say
) -> Finished:
    """
    Run what the spec asks for, in this process or split over several.

    `say` is told of each phase, `note` of what went wrong meanwhile. Raises as `run_workload`,
    and `ClusterError` for a cluster that cannot be used.
    """
    async with _way(spec, say, note) as way:
        return await run_workload(
            spec, stop=stop, on_progress=on_progress, say=say, note=note, way=way
        )


@asynccontextmanager
async def _way(spec: LoadTestSpec, say: Say, note: Say) -> AsyncIterator[RunPerformer | None]:
    """Yield how the run is performed, None for in this process."""
    cluster_address = spec.sharding.cluster
    if cluster_address is not None:
        shipped = _to_ship(spec)
        say("joining the cluster")
        async with joined(cluster_address) as cluster:
            shards = number_of_shards(spec, len(cluster.members))
            make = partial(DaskWorkers, cluster, shipped=shipped)
            yield partial(run_split, shards=shards, make_workers=make, note=note)
        return
    shards = number_of_shards(spec)
    make_processes = partial(ProcessWorkers, shards)
    split = partial(run_split, shards=shards, make_workers=make_processes, note=note)
    yield split if shards > 1 else None


def _to_ship(spec: LoadTestSpec) -> Shipped | None:
    """Return what the workers of a cluster must have; raises for what cannot run there."""
    workload = check_workload(spec)
    ours = spec.database.url is None and workload.sessions_hook is None
    if ours and uses_database(workload) and not is_local(spec.sharding.cluster or ""):
        raise ConfigurationError(
            "`cluster` needs `database_url`: the embedded server is this machine's alone"
        )
    place = spec.workload.place
    return Shipped.of(place) if place else None


def number_of_shards(spec: LoadTestSpec, wanted: int | None = None) -> int:
    """
    Return over how many of the wanted processes, by default the spec's, a run is divided.

    Each has one operation in flight and one connection at least: where fewer will do it is as
    many as that leaves, else a larger number raises `ConfigurationError`.
    """
    model, sharding, pool_size = spec.load_model, spec.sharding, spec.database.pool_size
    most = model.most_in_flight
    what = "`max_in_flight`" if model.is_open else "`stage`" if model.stages else "concurrency"
    if pool_size is not None and pool_size < most:
        most, what = pool_size, "`pool_size`"
    wanted = wanted or sharding.processes
    if wanted > most and not sharding.at_most:
        who = f"`processes` {wanted}"
        if sharding.cluster is not None:
            who = f"the {wanted} workers of `cluster` {sharding.cluster}"
        raise ConfigurationError(f"{who} cannot share a {what} of {most}: each needs one")
    return min(wanted, most)
