"""From the settings of a run to what is to be run: the one place that reads them for that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..load.specs.load_test import (
    BaselineSpec,
    DatabaseSpec,
    LoadTestSpec,
    ShardingSpec,
    WorkloadSpec,
)
from ..load.specs.run import InstrumentSpec, LoadSpec, SamplingSpec, TimeoutSpec, VerdictSpec
from ..verdict.regression import parse_check
from ..verdict.thresholds import parse
from .run import RunSettings, ServerOptions

# What changes nothing in a run.
_NOT_SHOWN = {"calibrate", "profile", "debug", "config", "out", "html", "junit", "progress"}


def spec_of(settings: RunSettings) -> LoadTestSpec:
    """Return the load test that the settings ask for."""
    return LoadTestSpec(
        workload=WorkloadSpec(
            target=settings.workload,
            read_via=settings.read_via,
            read_from=settings.read_from,
            arguments=settings.arguments,
        ),
        load=LoadSpec(limit=settings.limit, warmup=settings.warmup, max_tries=settings.max_tries),
        load_model=settings.load_model,
        timeouts=TimeoutSpec(
            op_timeout=settings.op_timeout, grace=settings.grace, give_up=settings.give_up
        ),
        verdict=VerdictSpec(
            latency_limit=settings.latency_limit,
            thresholds=tuple(map(parse, settings.threshold)),
            abort_on_fail=settings.abort_on_fail,
        ),
        sampling=SamplingSpec(seed=settings.seed, write_ratio=settings.write_ratio),
        instruments=InstrumentSpec(
            time_split=settings.time_split,
            n_plus_one=settings.n_plus_one,
            profile=Path(settings.profile) if settings.profile is not None else None,
            server_side=settings.server_side,
            explain_slowest=settings.explain_slowest,
            explain_parameters=settings.explain_parameters,
        ),
        database=replace(
            server_of(settings),
            pool_size=settings.pool_size,
            keep_data=settings.keep_data,
            reads_autocommit=settings.reads_autocommit,
            batches_inserts=settings.batches_inserts,
            has_fast_paths=settings.has_fast_paths,
        ),
        sharding=ShardingSpec(
            processes=settings.number_of_processes,
            at_most=settings.processes == "auto",
            cluster=settings.cluster,
            on_worker_loss=settings.on_worker_loss,
        ),
        baseline=BaselineSpec(
            files=tuple(settings.baseline), checks=tuple(map(parse_check, settings.compare_fail))
        ),
        loop=settings.loop,
        debug=settings.debug,
        strict=settings.strict,
        given=frozenset(_given(settings)),
        shown=shown(settings),
    )


def server_of(settings: ServerOptions) -> DatabaseSpec:
    """Return which server the settings name; the URL has its password."""
    url = settings.database_url
    return DatabaseSpec(
        url=url.get_secret_value() if url is not None else None,
        server_directory=settings.server_directory,
    )


def shown(settings: RunSettings) -> dict[str, Any]:
    """Return the settings for the report, as JSON has them and without secrets."""
    shown = settings.model_dump(mode="json", exclude=_NOT_SHOWN)
    shown["ops"], shown["duration"] = settings.limit.ops, settings.limit.duration
    shown["read_autocommit"] = settings.reads_autocommit
    shown["batch_inserts"] = settings.batches_inserts
    shown["fast_paths"] = settings.has_fast_paths
    shown.pop("database_url")
    return shown


def _given(settings: RunSettings) -> list[str]:
    """Return the options that ask for something else than by default."""
    return [
        name
        for name, option in RunSettings.model_fields.items()
        if getattr(settings, name) not in (option.get_default(call_default_factory=True), False)
    ]
