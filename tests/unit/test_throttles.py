from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from async_loader import Chunks, ConfigurationError, Semaphore, Throttle


class Gauge:
    """Operations that wait until they are let go, and the most that waited at once."""

    def __init__(self) -> None:
        self.in_flight: dict[int, asyncio.Event] = {}
        self.peak = 0
        self.done: list[int] = []
        self.taken = 0

    def indexes(self, n: int) -> Iterator[int]:
        for i in range(n):
            self.taken += 1
            yield i

    async def perform(self, index: int) -> None:
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
    gauge = Gauge()
    task = asyncio.create_task(Semaphore(3).drive(gauge.indexes(10), gauge.perform))
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
    gauge = Gauge()
    task = asyncio.create_task(Chunks(3).drive(gauge.indexes(5), gauge.perform))
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
    gauge = Gauge()
    task = asyncio.create_task(throttle.drive(gauge.indexes(100), gauge.perform))
    await gauge.settle()
    assert len(gauge.in_flight) == 4
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gauge.in_flight == {}
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("throttle", [Semaphore(4), Chunks(4)])
async def test_no_operation_at_all_ends_at_once(throttle: Throttle) -> None:
    await throttle.drive(iter([]), Gauge().perform)


@pytest.mark.parametrize("policy", [Semaphore, Chunks])
def test_concurrency_is_at_least_one(policy: type[Semaphore]) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        policy(0)
