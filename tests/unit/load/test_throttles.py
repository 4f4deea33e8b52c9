from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine, Iterator
from itertools import count
from typing import Any

import pytest

from async_loader import (
    ArrivalRate,
    Chunks,
    ConfigurationError,
    Limit,
    Ramp,
    Semaphore,
    Stage,
    Throttle,
)
from async_loader.load.pacing.schedules import Arrivals, Profile, arrival_times


class VirtualClock:
    """A clock that jumps to the next time anybody waits for, once nobody has work left."""

    def __init__(self) -> None:
        self._now_ns = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()

    def now_ns(self) -> int:
        return self._now_ns

    def advance(self, seconds: float) -> None:
        """Be that much later, as after a pause of the whole loop."""
        self._now_ns += round(seconds * 1e9)

    async def sleep(self, seconds: float) -> None:
        until = self._now_ns + round(seconds * 1e9)
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (until, next(self._order), future))
        await future

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        while not task.done():
            for _ in range(6):
                await asyncio.sleep(0)
            if self._sleepers:
                until, _, future = heapq.heappop(self._sleepers)
                self._now_ns = max(self._now_ns, until)
                if not future.done():
                    future.set_result(None)
        await task


class Gauge:
    """Work that waits until it is let go, and the most of it that waited at once."""

    seed = 7

    def __init__(self, ops: int | None = None, duration: float | None = None) -> None:
        self.clock = VirtualClock()
        self.limit = Limit(ops, duration)
        self.numbers: Iterator[int] = count()
        self.closed = False
        self.in_flight: dict[int, asyncio.Event] = {}
        self.peak = 0
        self.done: list[int] = []
        self.taken = 0

    def take(self) -> Iterator[int]:
        indexes = self.limit.cut(self.numbers, self.clock, self.is_closed)

        def taken() -> Iterator[int]:
            for index in indexes:
                self.taken += 1
                yield index

        return taken()

    def is_closed(self) -> bool:
        return self.closed

    def drop(self, index: int) -> None:
        raise AssertionError(f"{index} was dropped")

    async def perform(self, index: int, due_ns: int | None = None) -> None:
        self.in_flight[index] = asyncio.Event()
        self.peak = max(self.peak, len(self.in_flight))
        try:
            await self.in_flight[index].wait()
        finally:
            del self.in_flight[index]
        self.done.append(index)

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def release(self, index: int) -> None:
        self.in_flight[index].set()
        await self.settle()


async def test_semaphore_lets_one_in_as_one_gets_out() -> None:
    gauge = Gauge(10)
    task = asyncio.create_task(Semaphore(3).drive(gauge))
    await gauge.settle()
    assert sorted(gauge.in_flight) == [0, 1, 2]
    assert gauge.taken == 3, "operations are taken only when they can start"
    await gauge.release(1)
    assert sorted(gauge.in_flight) == [0, 2, 3]
    while not task.done():
        await gauge.release(next(iter(gauge.in_flight)))
    assert sorted(gauge.done) == list(range(10))
    assert gauge.peak == 3


async def test_chunks_wait_for_their_slowest() -> None:
    gauge = Gauge(5)
    task = asyncio.create_task(Chunks(3).drive(gauge))
    await gauge.settle()
    await gauge.release(0)
    await gauge.release(1)
    assert sorted(gauge.in_flight) == [2]
    assert gauge.taken == 3
    await gauge.release(2)
    assert sorted(gauge.in_flight) == [3, 4]
    await gauge.release(3)
    await gauge.release(4)
    await task
    assert gauge.done == [0, 1, 2, 3, 4]
    assert gauge.peak == 3


@pytest.mark.parametrize("throttle", [Semaphore(4), Chunks(4)])
async def test_a_cancellation_reaches_all_in_flight(throttle: Throttle) -> None:
    gauge = Gauge(100)
    task = asyncio.create_task(throttle.drive(gauge))
    await gauge.settle()
    assert len(gauge.in_flight) == 4
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gauge.in_flight == {}
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("throttle", [Semaphore(4), Chunks(4), ArrivalRate(4)])
async def test_no_operation_at_all_ends_at_once(throttle: Throttle) -> None:
    await throttle.drive(Gauge(0))


@pytest.mark.parametrize("policy", [Semaphore, Chunks])
def test_concurrency_is_at_least_one(policy: type[Semaphore]) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        policy(0)


class Traffic(Gauge):
    """Work of the open model: what was started and dropped, and a loop that pauses."""

    def __init__(
        self, *, pauses: dict[int, float] | None = None, takes: float = 0.0, **limit: float
    ) -> None:
        super().__init__(**limit)  # type: ignore[arg-type]  # ops or duration
        self.pauses = pauses or {}
        self.takes = takes
        self.started: dict[int, tuple[int, int]] = {}
        self.dropped: list[int] = []

    def drop(self, index: int) -> None:
        self.dropped.append(index)

    async def perform(self, index: int, due_ns: int | None = None) -> None:
        assert due_ns is not None
        assert index not in self.started
        self.started[index] = (due_ns, self.clock.now_ns())
        if pause := self.pauses.get(index):
            self.clock.advance(pause)  # nothing else runs meanwhile
        if self.takes:
            await self.clock.sleep(self.takes)


POLICIES = [
    ArrivalRate(500),
    ArrivalRate(500, "poisson"),
    ArrivalRate(0, "poisson", stages=(Stage(1.0, 900), Stage(1.0, 100))),
]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("pauses", [{}, {0: 0.5}, {100: 1.0, 101: 0.3}, {300: 0.001, 700: 60.0}])
async def test_the_schedule_is_absolute(policy: ArrivalRate, pauses: dict[int, float]) -> None:
    """No drift and none lost: a pause moves no arrival, and all that were due are started."""
    traffic = Traffic(duration=2.0, pauses=pauses)
    await traffic.clock.run(policy.drive(traffic))
    profile = Profile(policy.rate, policy.stages)
    dues = arrival_times(profile, policy.arrivals, traffic.seed)
    expected = [due for due, _ in zip(dues, range(5000), strict=False) if due < 2e9]
    assert len(expected) > 900
    assert traffic.dropped == []
    assert [due for due, _ in traffic.started.values()] == expected
    assert list(traffic.started) == list(range(len(expected)))
    assert all(began >= due for due, began in traffic.started.values())
    if not pauses:
        assert all(began == due for due, began in traffic.started.values())


async def test_after_a_pause_the_latency_counts_from_when_it_was_due() -> None:
    traffic = Traffic(ops=1000, pauses={100: 1.0})
    await traffic.clock.run(ArrivalRate(1000).drive(traffic))
    lags = [began - due for due, began in traffic.started.values()]
    assert max(lags[:101]) == 0
    assert max(lags) == pytest.approx(0.999e9, rel=0.01), "the one that was due first"
    assert sum(lag > 0 for lag in lags) == 899, "all that were due before the clock caught up"


async def test_an_arrival_that_finds_too_many_in_flight_is_dropped_and_counted() -> None:
    traffic = Traffic(duration=1.0, takes=0.5)
    await traffic.clock.run(ArrivalRate(100, max_in_flight=10).drive(traffic))
    assert len(traffic.started) + len(traffic.dropped) == 100
    assert list(traffic.started) == [*range(10), *range(50, 60)]


async def test_a_stop_drops_what_was_due_and_forgets_what_was_not() -> None:
    traffic = Traffic(duration=10.0, pauses={100: 0.5})
    perform = traffic.perform

    async def stop_at_100(index: int, due_ns: int | None = None) -> None:
        await perform(index, due_ns)
        traffic.closed = index == 100

    traffic.perform = stop_at_100  # type: ignore[method-assign]  # this one only
    await traffic.clock.run(ArrivalRate(100).drive(traffic))
    assert list(traffic.started) == list(range(101))
    assert traffic.dropped == list(range(101, 151))


@pytest.mark.parametrize("arrivals", ["uniform", "poisson"])
async def test_shards_share_one_schedule(arrivals: Arrivals) -> None:
    whole = Traffic(duration=2.0)
    await whole.clock.run(ArrivalRate(300, arrivals).drive(whole))
    parts: dict[int, tuple[int, int]] = {}
    for shard in range(3):
        part = Traffic(duration=2.0)
        part.numbers = count(shard, 3)
        await part.clock.run(ArrivalRate(300, arrivals, shard=shard, shards=3).drive(part))
        parts |= part.started
    assert dict(sorted(parts.items())) == whole.started


async def test_a_ramp_has_as_many_workers_as_its_line_says() -> None:
    """Also downwards: a worker too many ends with its operation."""
    traffic = Traffic(duration=9.0)
    seen: dict[int, int] = {}
    in_flight = 0

    async def perform(index: int, due_ns: int | None = None) -> None:
        nonlocal in_flight
        in_flight += 1
        second = traffic.clock.now_ns() // 10**9
        seen[second] = max(seen.get(second, 0), in_flight)
        await traffic.clock.sleep(0.01)
        in_flight -= 1

    traffic.perform = perform  # type: ignore[method-assign]  # this one only
    stages = (Stage(3, 30), Stage(3, 30), Stage(2, 0), Stage(0, 5), Stage(1, 5))
    await traffic.clock.run(Ramp(stages).drive(traffic))
    assert seen == {0: 10, 1: 20, 2: 30, 3: 30, 4: 30, 5: 30, 6: 30, 7: 15, 8: 5}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ArrivalRate(0),
        lambda: ArrivalRate(-1),
        lambda: ArrivalRate(float("inf")),
        lambda: ArrivalRate(1, max_in_flight=0),
        lambda: ArrivalRate(1, shard=2, shards=2),
        lambda: Ramp(()),
        lambda: Ramp((Stage(1, 0),)),
        lambda: Ramp((Stage(0, 5),)),
        lambda: Stage(-1, 5),
        lambda: Stage(1, -5),
    ],
)
def test_a_policy_that_cannot_be_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        wrong()
