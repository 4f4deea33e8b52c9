"""
The coordinator of a split run: it prepares, has the shards begin together, and adds them up.

Shard k of n performs the operations i with i mod n = k, so that together they perform the very
operations of one process. The workload's set-up and tear-down, the run's schema and the questions
to the server are the coordinator's.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from ...concurrency.stop import Stop
from ...errors import ConfigurationError, TeardownError
from ...results.run import RunResult
from ...runtime.user_modules import load_module
from ...workers import Arrived, Workers
from ..app import build_workload
from ..partition import Partition
from ..run_database import Database, Say
from ..runner.phase import OnProgress
from ..runner.preparation import prepared
from ..server.statistics import server_watch
from ..specs.load_test import LoadTestSpec
from .shard import Task
from .split import Split

MakeWorkers = Callable[[Callable[[int, Arrived], object]], Workers]


async def run_split(
    spec: LoadTestSpec,
    database: Database | None,
    stop: Stop,
    on_progress: OnProgress,
    *,
    shards: int,
    make_workers: MakeWorkers,
    note: Say,
) -> RunResult:
    """
    Run what the spec asks for on workers, and return what all of them found together.

    `note` is told at once of a worker that died. Raises as `runner.run`, `ConfigurationError`
    for what cannot be divided, and `WorkerLostError` for one that died before the run began.
    """
    workload = build_workload(spec.workload, database)
    mix = workload.mix(seed=spec.sampling.seed, write_ratio=spec.sampling.write_ratio)
    sessions = database.sessions if database is not None else None
    stop.heeded = True
    split = Split(spec, mix, shards, stop=stop, on_progress=on_progress, note=note)
    result = None
    try:
        async with AsyncExitStack() as stack:
            workers = await stack.enter_async_context(make_workers(split.hear))
            async with (
                prepared(workload, sessions=sessions, seed=spec.sampling.seed, stop=stop) as shared,
                stack.pop_all(),  # the shards end before what they work on is torn down
            ):
                tasks = _tasks(spec, database, shards, shared)
                engines = database.engines if database is not None else ()
                for engine in engines:
                    await engine.dispose()  # its connections are the shards' now
                first = next(iter(engines), None)
                wanted = spec.instruments.server_side
                async with server_watch(first, None, wanted=wanted) as server:
                    result = await split.run(workers, tasks, server)
                by = stop.by if result.outcome == "interrupted" else None
                result = replace(result, workload=workload.name, stopped_by=result.stopped_by or by)
    except TeardownError as error:
        error.result = result
        raise
    return result


def _tasks(spec: LoadTestSpec, database: Database | None, shards: int, shared: Any) -> list[Task]:
    """Return what each shard is to do."""
    try:
        pickled = pickle.dumps(shared)
    except Exception as error:
        raise ConfigurationError(
            f"what the set-up of workload {spec.workload.target!r} returns goes to other processes "
            f"as op.shared, and cannot be pickled: {type(error).__name__}: {error}"
        ) from error
    place = spec.workload.place
    module = load_module(place).__name__ if place.endswith(".py") else None
    told = spec.for_worker()
    tasks = [
        Task(told, Partition(number, shards), pickled, module=module) for number in range(shards)
    ]
    if database is None or database.connections is None:
        return tasks
    if database.connections < shards:
        raise ConfigurationError(
            f"{database.connections} connections to the database are too few for {shards} "
            "processes: raise `pool_size` or the server's max_connections, or use fewer processes"
        )
    assert database.url is not None
    url = database.url.render_as_string(hide_password=False)
    return [
        replace(
            task,
            url=url,
            namespace=database.namespace,
            connections=task.part.of(database.connections),
        )
        for task in tasks
    ]
