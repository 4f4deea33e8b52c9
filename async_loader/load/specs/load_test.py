"""What a whole load test is: the workload, the load, the database, the processes, the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...verdict.regression import Check
from ..pacing.schedules import Arrivals, Profile, Stage
from ..pacing.throttles import ArrivalRate, Chunks, Ramp, Semaphore, Throttle, Unbounded
from ..partition import WHOLE, Partition
from ..workloads import BUILT_IN
from .run import InstrumentSpec, LoadSpec, RunSpec, SamplingSpec, TimeoutSpec, VerdictSpec

if TYPE_CHECKING:  # whoever runs a workload of their own needs no model of ours
    from ..workloads.mixed import ReadFrom, ReadVia

Mode = Literal["semaphore", "chunks", "unbounded", "sync", "threads"]
SYNC_MODES = ("sync", "threads")
Loop = Literal["auto", "uvloop", "asyncio"]

# The ~100 connections of a stock server.
UNBOUNDED_POOL = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadModel:
    """
    What lets operations in, for the whole run: each part of it has a throttle of its own.

    With a `rate`, in arrivals a second, it is the open model; `stages` go on from it. Else
    stages are of the concurrency.
    """

    mode: Mode
    concurrency: int
    rate: float | None
    arrivals: Arrivals
    max_in_flight: int
    stages: tuple[Stage, ...]

    @property
    def is_open(self) -> bool:
        """Whether operations start when they are due."""
        return self.rate is not None

    @property
    def most_in_flight(self) -> int:
        """How many operations there can be at once, within reason where that has no limit."""
        if self.is_open:
            return self.max_in_flight
        return self.throttle().concurrency or UNBOUNDED_POOL

    @property
    def connections(self) -> int:
        """As many as operations can use at once, within reason where that has no limit."""
        if self.mode == "unbounded":
            return UNBOUNDED_POOL
        if self.stages and not self.is_open:
            return max(1, math.ceil(Profile(stages=self.stages).highest))
        return self.concurrency

    def throttle(self, part: Partition = WHOLE) -> Throttle:
        """Return the policy that lets operations in, or that of a part of the run."""
        if self.rate is not None:
            most = part.of(self.max_in_flight)
            return ArrivalRate(self.rate, self.arrivals, most, self.stages, part.number, part.parts)
        if self.stages:
            return Ramp(self.stages, part.number, part.parts)
        if self.mode == "unbounded":
            return Unbounded()
        policy = Chunks if self.mode == "chunks" else Semaphore
        return policy(part.of(self.concurrency))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """Which workload; `read_via` and `read_from` are of the built-in mixed one."""

    target: str
    read_via: ReadVia
    read_from: ReadFrom
    arguments: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_built_in(self) -> bool:
        """Whether the workload is one of ours, and not what somebody's application does."""
        return self.target in BUILT_IN

    @property
    def place(self) -> str:
        """The module or file of somebody's workload; empty for one of ours."""
        return self.target.rpartition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSpec:
    """On which server, through which pool; without a `url` an embedded server is started."""

    url: str | None = field(default=None, repr=False)
    server_directory: Path | None = None
    pool_size: int | None = None
    """None: as the load model needs, below the server's limit."""
    keep_data: bool = False
    reads_autocommit: bool = False
    batches_inserts: bool = False
    has_fast_paths: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardingSpec:
    """Over which processes the operations are divided."""

    processes: int
    at_most: bool
    """Whether fewer will do where the load has no work for so many."""
    cluster: str | None
    on_worker_loss: Literal["stop", "continue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineSpec:
    """What the result is held against afterwards."""

    files: tuple[Path, ...] = ()
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTestSpec:
    """A load test from its workload to its verdict; it can be pickled and shows no secret."""

    workload: WorkloadSpec
    load: LoadSpec
    load_model: LoadModel
    timeouts: TimeoutSpec
    verdict: VerdictSpec
    sampling: SamplingSpec
    instruments: InstrumentSpec
    database: DatabaseSpec
    sharding: ShardingSpec
    baseline: BaselineSpec
    loop: Loop
    debug: bool
    strict: bool
    """Whether an option without effect is an error."""
    given: frozenset[str]
    """The options that somebody gave, by the names of the command's settings."""
    shown: Mapping[str, Any] = field(repr=False)
    """The settings as reports show them."""

    def run_spec(self) -> RunSpec:
        """Return what the one process is to do that performs it all."""
        return RunSpec(
            load=self.load,
            throttle=self.load_model.throttle(),
            timeouts=self.timeouts,
            verdict=self.verdict,
            sampling=self.sampling,
            instruments=self.instruments,
        )

    def part_spec(self, part: Partition) -> RunSpec:
        """Return what of it a part is to do: it judges nothing and does not ask the server."""
        warmup = self.load.warmup
        return RunSpec(
            load=replace(
                self.load,
                limit=part.limit(self.load.limit),
                warmup=part.limit(warmup) if warmup is not None else None,
            ),
            throttle=self.load_model.throttle(part),
            timeouts=self.timeouts,
            verdict=replace(self.verdict, abort_on_fail=None),
            sampling=self.sampling,
            instruments=replace(self.instruments, server_side=False),
        )

    def for_worker(self) -> LoadTestSpec:
        """Return what a worker needs to know: no password, and no file of this machine."""
        database = replace(self.database, url=None, server_directory=None)
        nothing = BaselineSpec()
        return replace(self, database=database, baseline=nothing, given=frozenset(), shown={})
