"""Think time: in no latency, taken from the user's share, and never in the way of the end."""

from __future__ import annotations

import asyncio

import pytest

from async_loader import ConfigurationError, Limit, OperationContext, Stop, Workload, run
from async_loader.load.pacing.throttles import ArrivalRate
from async_loader.load.runner.sync_runner import run_sync
from async_loader.load.specs.run import LoadSpec, RunSpec
from async_loader.testing import FakeClock


def workload(think: float | tuple[float, float]) -> Workload:
    thinking = Workload("shop", think=think)

    @thinking.operation("browse", kind="read")
    async def browse(op: OperationContext) -> None: ...

    @browse.sync
    def browse_sync(op: OperationContext) -> None: ...

    return thinking


async def test_it_passes_between_operations_and_in_no_latency() -> None:
    result = await run(workload(10.0), ops=4, concurrency=1, clock=FakeClock())
    assert result.completed == 4
    # Whatever else sleeps moves this clock as well: at least the three thoughts.
    assert result.seconds >= 30
    assert result.latency().max_ns < 10e9


async def test_more_users_think_at_the_same_time() -> None:
    """Ten users with 0.1 s each: twenty operations are two thoughts, not twenty."""
    result = await run(workload(0.1), ops=20, concurrency=10)
    assert result.completed == 20
    assert result.seconds >= 0.1
    assert max(result.series.throughput) >= 10


def test_it_is_drawn_evenly_by_seed_and_index() -> None:
    mix = workload((1.0, 3.0)).mix(seed=7)
    drawn = [mix.think_time(i) for i in range(2_000)]
    assert drawn == [workload((1.0, 3.0)).mix(seed=7).think_time(i) for i in range(2_000)]
    assert drawn[:9] != [workload((1.0, 3.0)).mix(seed=8).think_time(i) for i in range(9)]
    assert 1.0 <= min(drawn) < 1.01
    assert 2.99 < max(drawn) <= 3.0
    assert sum(drawn) / len(drawn) == pytest.approx(2.0, abs=0.05)


def test_an_operations_own_outranks_the_workloads() -> None:
    shop = workload(5.0)

    @shop.operation("checkout", kind="write", weight=1e9, think=0.0)
    async def checkout() -> None: ...

    assert shop.mix().think_time(3) == 0.0
    assert shop.operations["browse"].think == (5.0, 5.0)


async def test_nobody_thinks_after_the_last_operation_or_past_the_end() -> None:
    async with asyncio.timeout(20):
        assert (await run(workload(600.0), ops=3, concurrency=3)).completed == 3
        assert (await run(workload(600.0), duration=0.1, concurrency=3)).completed == 3
        stop = Stop()
        running = asyncio.create_task(run(workload(600.0), ops=9, concurrency=3, stop=stop))
        await asyncio.sleep(0.05)
        stop.request()
        result = await running
    assert (result.outcome, result.completed) == ("interrupted", 3)


async def test_who_arrives_at_a_rate_does_not_wait_for_a_thought() -> None:
    result = await run(workload(600.0), ops=50, throttle=ArrivalRate(rate=1000.0))
    assert result.completed == 50


@pytest.mark.parametrize("threads", [None, 3])
@pytest.mark.parametrize("limit", [Limit(ops=3), Limit(duration=0.1)])
@pytest.mark.timeout(20)
def test_threads_think_too(threads: int | None, limit: Limit) -> None:
    thinking = workload((0.05, 600.0)) if limit.ops is None else workload(0.05)
    spec = RunSpec(load=LoadSpec(limit=limit))
    result = run_sync(thinking, spec, sessions=None, threads=threads)
    assert result.completed >= 1
    if limit.ops is not None and threads is None:
        assert result.completed == 3
        assert result.seconds >= 0.1


@pytest.mark.parametrize("think", [-1.0, (2.0, 1.0), float("inf"), (0.0, float("nan"))])
def test_nonsense_is_refused(think: float | tuple[float, float]) -> None:
    with pytest.raises(ConfigurationError, match="workload 'shop': think is seconds"):
        workload(think)
