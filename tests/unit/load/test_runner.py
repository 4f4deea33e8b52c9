"""The runner without a database: limits, timeouts, stopping and cancelling."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import pytest

from async_loader import (
    ArrivalRate,
    Chunks,
    ConfigurationError,
    Limit,
    OperationContext,
    Ramp,
    RunResult,
    SetupError,
    Snapshot,
    Stage,
    Stop,
    Throttle,
    Workload,
    run,
)
from async_loader.errors import TeardownError
from async_loader.reports.console import render
from async_loader.results.parts import CheckResult

Operation = Callable[[OperationContext], Awaitable[None]]


def workload_of(function: Operation, kind: str = "read") -> Workload:
    workload = Workload("test")

    @workload.operation("only", kind=kind)  # type: ignore[arg-type]  # parametrised
    async def only(op: OperationContext) -> None:
        await function(op)

    return workload


def counts(result: RunResult) -> tuple[int, int, int]:
    return result.completed, result.failed, result.indeterminate


async def no_task_is_left() -> None:
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_each_operation_runs_once_with_its_number() -> None:
    seen: list[int] = []

    async def note(op: OperationContext) -> None:
        seen.append(op.index)

    result = await run(workload_of(note), ops=1000, concurrency=7)
    assert sorted(seen) == list(range(1000))
    assert counts(result) == (1000, 0, 0)
    assert result.outcome == "done"
    assert sum(result.series.throughput) == 1000
    await no_task_is_left()


async def test_a_duration_ends_a_run() -> None:
    async def wait(op: OperationContext) -> None:
        await asyncio.sleep(0.001)

    result = await run(workload_of(wait), duration=0.2, concurrency=3)
    assert result.planned is None
    assert result.completed > 0
    assert result.seconds >= 0.2


async def test_the_warm_up_is_run_and_not_counted() -> None:
    seen: list[int] = []

    async def note(op: OperationContext) -> None:
        seen.append(op.index)
        if op.index == -3:
            raise ValueError("too early")

    result = await run(workload_of(note), ops=10, warmup=Limit(ops=5))
    assert sorted(seen) == list(range(-5, 10))
    assert (result.completed, result.failed, result.errors) == (10, 0, {})
    assert result.warm_up is not None
    assert (result.warm_up.completed, result.warm_up.failed) == (4, 1)
    assert "4 operations in" in render(result)
    assert (await run(workload_of(note), ops=10)).warm_up is None


async def test_failures_are_counted_by_name_and_the_run_goes_on() -> None:
    async def fail(op: OperationContext) -> None:
        if op.index % 4 == 0:
            raise ValueError(f"number {op.index}")

    result = await run(workload_of(fail), ops=100)
    assert counts(result) == (75, 25, 0)
    assert result.errors["ValueError"].by_operation == {"only": 25}
    assert result.errors["ValueError"].sample == "number 0"
    assert sum(result.series.failed) == 25


@pytest.mark.parametrize(("kind", "expected"), [("read", (9, 1, 0)), ("write", (9, 0, 1))])
async def test_an_operation_past_its_time_is_cancelled(
    kind: str, expected: tuple[int, int, int]
) -> None:
    """A read has failed; of a write nobody knows."""

    async def hang_once(op: OperationContext) -> None:
        if op.index == 3:
            await asyncio.Event().wait()

    result = await run(workload_of(hang_once, kind), ops=10, concurrency=2, op_timeout=0.05)
    assert counts(result) == expected
    assert result.errors["timeout"].count == 1
    await no_task_is_left()


async def test_a_stop_drains_what_is_in_flight() -> None:
    stop, gate, full = Stop(), asyncio.Event(), asyncio.Event()
    started: list[int] = []

    async def wait(op: OperationContext) -> None:
        started.append(op.index)
        if len(started) == 4:
            full.set()
        await gate.wait()

    task = asyncio.create_task(run(workload_of(wait), ops=100, concurrency=4, stop=stop))
    await full.wait()
    stop.request()
    await asyncio.sleep(0)
    gate.set()
    result = await task
    assert result.outcome == "interrupted"
    assert counts(result) == (4, 0, 0)
    assert len(started) == 4


@pytest.mark.parametrize("twice", [False, True])
async def test_a_stop_waits_for_the_grace_or_the_second_request(twice: bool) -> None:
    stop = Stop()

    async def hang(op: OperationContext) -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(
        run(workload_of(hang, "write"), ops=100, concurrency=4, stop=stop, grace=60 if twice else 0)
    )
    await asyncio.sleep(0.01)
    stop.request()
    if twice:
        stop.request()
    result = await task
    assert counts(result) == (0, 0, 4)
    assert result.errors["cancelled"].count == 4
    await no_task_is_left()


async def test_cancelling_a_run_leaves_no_task_and_tears_down() -> None:
    torn_down: list[object] = []
    started = asyncio.Event()

    async def never_return(_op: OperationContext) -> None:
        started.set()
        await asyncio.Event().wait()

    workload = workload_of(never_return)

    @workload.setup
    async def prepare(seed: int) -> str:
        return f"seed {seed}"

    @workload.teardown
    async def clear(shared: object) -> None:
        torn_down.append(shared)

    task = asyncio.create_task(run(workload, ops=100, seed=9, throttle=Chunks(5)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert torn_down == ["seed 9"]
    await no_task_is_left()


async def test_what_set_up_returns_is_shared() -> None:
    seen: set[object] = set()

    async def look(op: OperationContext) -> None:
        seen.add(op.shared)

    workload = workload_of(look)

    @workload.setup
    async def prepare() -> str:
        return "the catalogue"

    await run(workload, ops=3)
    assert seen == {"the catalogue"}


async def test_checks_are_counted_and_fail_no_operation() -> None:
    async def look(op: OperationContext) -> None:
        assert op.check("even", op.index % 2 == 0) == (op.index % 2 == 0)
        op.check("there", op)

    result = await run(workload_of(look), ops=10, warmup=Limit(ops=3))
    assert counts(result) == (10, 0, 0)
    assert result.checks == {"even": CheckResult(5, 5), "there": CheckResult(10, 0)}
    again = RunResult.from_dict(result.to_dict())
    assert again.merged(again).checks["even"] == CheckResult(10, 10)


async def test_a_set_up_that_raises_is_named() -> None:
    workload = workload_of(lambda op: asyncio.sleep(0))

    @workload.setup
    async def prepare() -> None:
        raise KeyError("no catalogue")

    with pytest.raises(SetupError, match="set-up of workload 'test' raised KeyError"):
        await run(workload, ops=3)
    await no_task_is_left()


async def test_a_stop_during_set_up_ends_the_run() -> None:
    workload = workload_of(lambda op: asyncio.sleep(0))
    stop = Stop()

    @workload.setup
    async def prepare() -> None:
        stop.request()
        await asyncio.Event().wait()

    result = await run(workload, ops=3, stop=stop)
    assert result.outcome == "interrupted"
    assert counts(result) == (0, 0, 0)


async def test_an_operation_that_never_waits_lets_timers_run() -> None:
    ticks: list[Snapshot] = []

    async def instant(op: OperationContext) -> None:
        pass

    await run(workload_of(instant), duration=1.2, on_progress=ticks.append)
    assert len(ticks) >= 3
    assert ticks[0].completed < ticks[-1].completed
    assert ticks[-1].duration == 1.2


async def test_what_a_run_needs() -> None:
    workload = workload_of(lambda op: asyncio.sleep(0))
    with pytest.raises(ConfigurationError, match="number of operations or a duration"):
        await run(workload)
    with pytest.raises(ConfigurationError, match="number of operations or a duration"):
        await run(workload, ops=1, duration=1)

    @workload.operation("with_session", kind="read")
    async def with_session(session: object) -> None: ...

    with pytest.raises(ConfigurationError, match="needs `sessions`"):
        await run(workload, ops=1)


async def test_a_task_group_that_failed_takes_nothing_with_it() -> None:
    """Before Python 3.13 its parent counts as cancelled from then on."""
    workload = Workload("groups")

    async def fail() -> None:
        raise KeyError

    @workload.operation("group", kind="read")
    async def group(op: OperationContext) -> None:
        if op.index < 2:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
        await asyncio.sleep(0 if op.index > 2 else 60)

    result = await run(workload, ops=6, concurrency=1, op_timeout=0.05)
    assert {name: error.count for name, error in result.errors.items()} == {
        "KeyError": 2,
        "timeout": 1,
    }
    assert (result.outcome, result.completed) == ("done", 3)


async def test_latency_over_the_limit_is_counted() -> None:
    async def sometimes_slow(op: OperationContext) -> None:
        await asyncio.sleep(0.1 if op.index % 4 == 0 else 0)

    result = await run(workload_of(sometimes_slow), ops=40, latency_limit=0.09)
    assert result.late == 10
    assert (await run(workload_of(sometimes_slow), ops=8)).late == 0


async def test_the_open_model_drops_what_cannot_start_and_counts_from_when_it_was_due() -> None:
    async def slow(op: OperationContext) -> None:
        if op.index == 0:
            time.sleep(0.3)
        await asyncio.sleep(0.05)

    rate = ArrivalRate(100, max_in_flight=10)
    result = await run(workload_of(slow), duration=1.0, throttle=rate)
    assert result.mode == "open"
    assert result.schedule is not None
    assert result.schedule.due == 100
    assert result.dropped == result.schedule.dropped > 0
    assert result.completed == result.schedule.started == result.schedule.lag.count
    assert result.completed + result.dropped == 100
    # What was due at 10 ms started when the loop was free again.
    assert result.schedule.lag.max_ns > 250_000_000
    assert result.by_operation["only"].histogram.max_ns > 300_000_000
    await no_task_is_left()


async def test_a_stop_does_not_wait_for_the_next_arrival() -> None:
    stop, started = Stop(), asyncio.Event()

    async def note(op: OperationContext) -> None:
        started.set()

    throttle = ArrivalRate(1 / 3600)
    task = asyncio.create_task(run(workload_of(note), ops=100, throttle=throttle, stop=stop))
    await started.wait()
    stop.request()
    result = await task
    assert (result.outcome, result.completed, result.dropped) == ("interrupted", 1, 0)


async def test_a_broken_threshold_ends_the_run() -> None:
    async def fail(op: OperationContext) -> None:
        await asyncio.sleep(0.001)
        raise ValueError

    result = await run(
        workload_of(fail), duration=60, thresholds=["errors:rate<1%"], abort_on_fail=0.1
    )
    assert result.outcome == "failed"
    assert result.seconds < 30
    await no_task_is_left()


async def test_a_threshold_that_holds_ends_nothing() -> None:
    async def wait(op: OperationContext) -> None:
        await asyncio.sleep(0.01)

    thresholds = ["errors:rate<1%", "ops:count>=10000"]
    result = await run(
        workload_of(wait), duration=0.3, thresholds=thresholds, abort_on_fail=0.05, concurrency=1
    )
    assert result.outcome == "done"


async def test_a_tear_down_runs_after_a_set_up_that_raised() -> None:
    workload = workload_of(lambda op: asyncio.sleep(0))
    torn_down: list[object] = []

    @workload.setup
    async def prepare() -> None:
        raise KeyError("no catalogue")

    @workload.teardown
    async def clear(shared: object) -> None:
        torn_down.append(shared)
        raise RuntimeError("nothing to clear")

    with pytest.raises(SetupError, match="raised KeyError: 'no catalogue'"):
        await run(workload, ops=3)
    assert torn_down == [None]


async def test_a_tear_down_that_raises_hands_the_result_over() -> None:
    workload = workload_of(lambda op: asyncio.sleep(0))

    @workload.teardown
    async def clear() -> None:
        raise RuntimeError("still there")

    with pytest.raises(TeardownError, match="tear-down of workload 'test' raised") as caught:
        await run(workload, ops=3)
    assert caught.value.result.completed == 3


async def test_a_tear_down_that_hangs_can_be_stopped() -> None:
    workload = workload_of(lambda op: asyncio.sleep(0))
    stop = Stop()

    @workload.teardown
    async def clear() -> None:
        stop.request()
        stop.request()
        await asyncio.Event().wait()

    with pytest.raises(TeardownError, match="was cut off"):
        await run(workload, ops=3, stop=stop)
    await no_task_is_left()


async def test_a_tear_down_after_a_run_that_gave_up_has_the_grace_only() -> None:
    async def fail(op: OperationContext) -> None:
        await asyncio.sleep(0.01)
        raise ConnectionResetError

    workload = workload_of(fail)

    @workload.teardown
    async def clear() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TeardownError, match="was cut off") as caught:
        await run(workload, duration=600, op_timeout=0.05, give_up=0.1, grace=0.1)
    assert caught.value.result.outcome == "aborted"
    await no_task_is_left()


@pytest.mark.parametrize(
    "throttle", [ArrivalRate(1000, max_in_flight=5), Ramp((Stage(0, 5), Stage(60, 5)))]
)
async def test_a_stop_ends_every_model_within_its_grace(throttle: Throttle) -> None:
    stop, full = Stop(), asyncio.Event()
    started: list[int] = []

    async def hang(op: OperationContext) -> None:
        started.append(op.index)
        if len(started) == 5:
            full.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(
        run(workload_of(hang, "write"), duration=60, throttle=throttle, stop=stop, grace=0)
    )
    await full.wait()
    stop.request("somebody's script")
    result = await task
    assert (result.outcome, result.stopped_by) == ("interrupted", "somebody's script")
    assert counts(result) == (0, 0, 5)
    assert result.errors["cancelled"].count == 5
    assert (result.schedule is None) == (result.mode == "ramp")
    await no_task_is_left()


@pytest.mark.parametrize("throttle", [ArrivalRate(1000), Ramp((Stage(0, 5), Stage(60, 5)))])
async def test_cancelling_every_model_leaves_no_task(throttle: Throttle) -> None:
    started = asyncio.Event()

    async def hang(op: OperationContext) -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(run(workload_of(hang), duration=60, throttle=throttle))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await no_task_is_left()


async def test_arrivals_that_begin_while_all_are_cancelled_are_cancelled_too() -> None:
    """Their tasks are made by then, and have not had their first step."""
    began = 0

    async def hang(op: OperationContext) -> None:
        nonlocal began
        began += 1
        if began == 1:
            time.sleep(0.5)  # so that some hundred are due at once
        if began == 3:
            task.cancel()
        await asyncio.Event().wait()

    task = asyncio.create_task(run(workload_of(hang), duration=60, throttle=ArrivalRate(1000)))
    with pytest.raises(asyncio.CancelledError):
        await task
    await no_task_is_left()


async def test_an_arrival_past_its_time_is_cancelled() -> None:
    """Its time counts from when it began: what it waited before is not the operation's."""

    async def hang_once(op: OperationContext) -> None:
        if op.index == 3:
            await asyncio.Event().wait()

    result = await run(workload_of(hang_once), ops=10, throttle=ArrivalRate(1000), op_timeout=0.05)
    assert counts(result) == (9, 1, 0)
    assert result.errors["timeout"].count == 1


def test_what_an_operation_calls_is_imported_before_it() -> None:
    """`insert_rows` imports at its first call, which would be an operation's time."""
    script = (
        "import asyncio, sys\n"
        "from async_loader import Workload, insert_rows, run\n"
        "workload, seen = Workload('seen'), []\n"
        "@workload.operation('look')\n"
        "async def look():\n"
        "    seen.append('async_loader.inserts.bulk.inserting' in sys.modules)\n"
        "asyncio.run(run(workload, ops=1))\n"
        "print(seen)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[True]\n", done.stderr
