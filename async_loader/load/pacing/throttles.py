"""
How operations are let in.

A throttle is an immutable policy; `drive` makes the state of one run and ends when the
operations do. It takes the next one only when it can start it, so 35,000 operations never
become 35,000 coroutines at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Protocol

from ...concurrency.clock import SECOND_NS, Clock
from ...errors import ConfigurationError
from .limits import Limit
from .schedules import Arrivals, Profile, Stage, arrival_times

# How soon a wait for the next arrival notices that the run is stopped.
_LONGEST_SLEEP = 0.1
# Arrivals that are started in a row when they are late: then those before get their turn.
_BURST = 64
# What no process keeps up with, even to drop it: a run at more would go on long after its end.
MOST_ARRIVALS = 200_000
# How often a ramp of workers is looked at.
_STEP = 0.02


class Work(Protocol):
    """What a throttle works off: operations by their numbers, for as long as the run goes on."""

    @property
    def clock(self) -> Clock:
        """The time of the run."""
        ...

    @property
    def seed(self) -> int:
        """The seed of the run."""
        ...

    @property
    def limit(self) -> Limit:
        """When the run has had enough."""
        ...

    @property
    def numbers(self) -> Iterator[int]:
        """The numbers of the operations, without an end."""
        ...

    def take(self) -> Iterator[int]:
        """Yield the number of the next operation, until the limit or a stop."""
        ...

    def is_closed(self) -> bool:
        """Return whether no more operations may start."""
        ...

    async def perform(self, index: int, due_ns: int | None = None) -> None:
        """Perform an operation; its latency counts from when it was due, if it was."""
        ...

    def drop(self, index: int) -> None:
        """Count an operation that was due and cannot start."""
        ...


class Throttle(Protocol):
    """The policy by which a run's operations are started."""

    @property
    def mode(self) -> str:
        """The name of the policy in results."""
        ...

    @property
    def concurrency(self) -> int:
        """The most operations in flight at once; 0 where there is no limit."""
        ...

    async def drive(self, work: Work) -> None:
        """Perform all the work; a cancellation reaches all that are in flight."""
        ...


@dataclass(frozen=True, slots=True)
class Semaphore:
    """
    At most `concurrency` in flight; the next one starts as soon as one ends.

    N workers on one iterator: the counting is the same as a semaphore's, without a task and
    an acquire for each operation (5 µs).
    """

    mode: ClassVar[str] = "semaphore"
    concurrency: int

    def __post_init__(self) -> None:
        _check(self.concurrency)

    async def drive(self, work: Work) -> None:
        """See `Throttle.drive`."""
        indexes = work.take()

        async def worker() -> None:
            for index in indexes:
                await work.perform(index)

        async with asyncio.TaskGroup() as group:
            for _ in range(self.concurrency):
                group.create_task(worker())


@dataclass(frozen=True, slots=True)
class Chunks:
    """`concurrency` at a time: each chunk ends before the next one starts."""

    mode: ClassVar[str] = "chunks"
    concurrency: int

    def __post_init__(self) -> None:
        _check(self.concurrency)

    async def drive(self, work: Work) -> None:
        """See `Throttle.drive`."""
        indexes = work.take()
        while chunk := list(islice(indexes, self.concurrency)):
            async with asyncio.TaskGroup() as group:
                for index in chunk:
                    group.create_task(_as_coroutine(work, index))


@dataclass(frozen=True, slots=True)
class Unbounded:
    """
    A task for every operation, the loop yielding between: only the pool throttles.

    What `asyncio.gather` over all the work does. `concurrency` has no meaning here.
    """

    mode: ClassVar[str] = "unbounded"
    concurrency: int = 0

    async def drive(self, work: Work) -> None:
        """See `Throttle.drive`."""
        async with asyncio.TaskGroup() as group:
            for index in work.take():
                group.create_task(_as_coroutine(work, index))
                await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Ramp:
    """
    A semaphore whose size follows stages, each a straight line to its target, from 0.

    Worker n takes operations while the level is above n; one that has become too many ends
    with the operation it is at. Shard k of n has every nth worker.
    """

    mode: ClassVar[str] = "ramp"
    stages: tuple[Stage, ...]
    shard: int = 0
    shards: int = 1

    def __post_init__(self) -> None:
        check_stages(self.stages)
        _check_shard(self.shard, self.shards)

    @property
    def concurrency(self) -> int:
        """The most operations in flight at once."""
        return len(self._workers(Profile(stages=self.stages).highest))

    def _workers(self, level: float) -> range:
        """Return the numbers of the workers that there are at a level."""
        return range(self.shard, math.ceil(level), self.shards)

    async def drive(self, work: Work) -> None:
        """See `Throttle.drive`."""
        profile, clock, indexes = Profile(stages=self.stages), work.clock, work.take()
        started_ns = clock.now_ns()
        working: set[int] = set()

        def level() -> float:
            return profile.at((clock.now_ns() - started_ns) / SECOND_NS)

        async def worker(number: int) -> None:
            try:
                while level() > number and (index := next(indexes, None)) is not None:
                    await work.perform(index)
            finally:
                working.discard(number)

        duration = work.limit.duration
        until_ns = math.inf if duration is None else started_ns + duration * SECOND_NS
        async with asyncio.TaskGroup() as group:
            while not work.is_closed() and clock.now_ns() < until_ns:
                for number in self._workers(level()):
                    if number not in working:
                        working.add(number)
                        group.create_task(worker(number))
                await clock.sleep(_STEP)


@dataclass(frozen=True, slots=True)
class ArrivalRate:
    """
    The open model: operations start when they are due, whether or not others have ended.

    `rate` arrivals a second, or `stages` of rates, each a straight line to its target, from
    `rate`. The schedule is absolute (see `schedules.arrival_times`): after a pause of the loop
    all that came due meanwhile starts at once, and its latency counts from when it was due.
    An arrival that finds `max_in_flight` operations under way, or the run stopped, is dropped
    and counted. Shard k of n starts every nth arrival of the same schedule.
    """

    mode: ClassVar[str] = "open"
    rate: float = 0.0
    arrivals: Arrivals = "uniform"
    max_in_flight: int = 1000
    stages: tuple[Stage, ...] = ()
    shard: int = 0
    shards: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rate < math.inf or (not self.rate and not self.stages):
            raise ConfigurationError(f"a rate must be above 0, not {self.rate:g}")
        if self.stages:
            check_stages(self.stages)
        _check_shard(self.shard, self.shards)
        _check(self.max_in_flight)
        highest = Profile(self.rate, self.stages).highest / self.shards
        if highest > MOST_ARRIVALS:
            raise ConfigurationError(
                f"a rate is at most {MOST_ARRIVALS:,}/s in one process, not {highest:,.0f}/s: "
                "lower it, or share it between processes"
            )

    @property
    def concurrency(self) -> int:
        """The most operations in flight at once."""
        return self.max_in_flight

    async def drive(self, work: Work) -> None:
        """See `Throttle.drive`."""
        clock, started_ns = work.clock, work.clock.now_ns()
        tasks: set[asyncio.Task[None]] = set()
        if work.is_closed():
            return
        async with asyncio.TaskGroup() as group:
            for number, (index, after_ns) in enumerate(self._arrivals(work)):
                due_ns = started_ns + after_ns
                if number % _BURST == 0:
                    await asyncio.sleep(0)
                await _until(due_ns, work)
                if clock.now_ns() < due_ns or index is None:
                    return  # stopped: what comes due later is nobody's; or all have arrived
                if work.is_closed() or len(tasks) >= self.max_in_flight:
                    work.drop(index)
                    continue
                task = group.create_task(_as_coroutine(work, index, due_ns))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    def _arrivals(self, work: Work) -> Iterator[tuple[int | None, int]]:
        """
        Yield number and due time, from the start, of the arrivals within the run's limit.

        The last has no number: it is when the run is over, the duration or the time of the first
        arrival that is not the run's. To end with the last one would shorten the run by the time
        between two, and its rate would be more than was asked for.
        """
        profile = Profile(self.rate, self.stages)
        dues = arrival_times(profile, self.arrivals, work.seed, self.shard, self.shards)
        arrivals = zip(work.numbers, dues, strict=False)
        duration = work.limit.duration
        if duration is None:
            yield from islice(arrivals, work.limit.ops)
            yield from ((None, after_ns) for after_ns in islice(dues, 1))
            return
        for index, after_ns in arrivals:
            if after_ns >= duration * SECOND_NS:
                break
            yield index, after_ns
        yield None, int(duration * SECOND_NS)


async def _until(due_ns: int, work: Work) -> None:
    """Wait for a time, or for the end of the run."""
    while (left_ns := due_ns - work.clock.now_ns()) > 0 and not work.is_closed():
        await work.clock.sleep(min(left_ns / SECOND_NS, _LONGEST_SLEEP))


async def _as_coroutine(work: Work, index: int, due_ns: int | None = None) -> None:
    await work.perform(index, due_ns)


def _check(concurrency: int) -> None:
    if type(concurrency) is not int or concurrency < 1:
        raise ConfigurationError(f"concurrency must be at least 1, not {concurrency!r}")


def _check_shard(shard: int, shards: int) -> None:
    if not 0 <= shard < shards:
        raise ConfigurationError(f"there is no shard {shard} of {shards}")


def stage_seconds(throttle: Throttle) -> tuple[float, ...] | None:
    """Return how long each stage of a load is, None where it has none."""
    stages: tuple[Stage, ...] = getattr(throttle, "stages", ())
    return tuple(stage.seconds for stage in stages) or None


def check_stages(stages: tuple[Stage, ...]) -> None:
    """Raise `ConfigurationError` for stages that start nothing."""
    if not any(stage.seconds for stage in stages) or not any(stage.target for stage in stages):
        raise ConfigurationError("stages need a time and a target above 0")
