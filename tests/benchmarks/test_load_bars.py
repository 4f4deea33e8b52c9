"""The bars of honest latency: the schedule is kept, and what is reported is what was."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import AsyncExitStack
from itertools import takewhile

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader import (
    ArrivalRate,
    Histogram,
    Limit,
    OperationContext,
    Semaphore,
    Throttle,
    Workload,
    run,
)
from async_loader.database.postgresql import closing, create_engine, session_factories
from async_loader.load.pacing.schedules import Profile, arrival_times
from async_loader.load.workloads import mixed

from .conftest import load, quote

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600)]

PERCENTILES = (50.0, 95.0, 99.0)


def exact(values: list[int], percentile: float) -> int:
    """Return the value at the percentile's rank of sorted values."""
    return values[max(int(percentile / 100 * len(values) + 0.5), 1) - 1]


def bare_timer_lag() -> float:
    """Return how late, in ms at p99, this machine wakes a thread that does nothing else."""
    late = []
    for _ in range(3000):
        due = time.perf_counter_ns() + 1_000_000
        time.sleep(0.001)
        late.append(time.perf_counter_ns() - due)
    return exact(sorted(late), 99.0) / 1e6


def test_the_open_model_starts_all_that_is_due_and_in_time() -> None:
    """Bar: 1,000/s of noop, Poisson, 30 s: started count exact, p99 schedule lag under 2 ms."""
    found = load("--workload", "noop", "--rate", "1000/s", "--arrivals", "poisson",
                 "--duration", "30s")  # fmt: skip
    dues = arrival_times(Profile(1000), "poisson", 0)
    expected = sum(1 for _ in takewhile(lambda due: due < 30 * 10**9, dues))
    schedule = found["schedule"]
    lag = schedule["lag_ms"]
    quote(
        "open model, 1,000/s of noop, Poisson, 30 s",
        [
            f"started {schedule['started']:,} of {expected:,}",
            f"lag p50 {lag['p50']:.3f}, p99 {lag['p99']:.3f}, max {lag['max']:.2f} ms",
            f"loop {found['process']['loop_busy']:.0%} busy",
        ],
    )
    assert schedule["started"] == found["operations"]["completed"] == expected
    assert schedule["dropped"] == 0
    if lag["p99"] >= 2 and (bare := bare_timer_lag()) > 0.5:
        pytest.skip(f"no idle core: a bare timer is {bare:.1f} ms late at p99 here")
    assert lag["p99"] < 2


@pytest.mark.parametrize("throttle", [Semaphore(16), ArrivalRate(2000, "poisson")])
async def test_percentiles_are_those_of_the_raw_latencies(
    monkeypatch: pytest.MonkeyPatch, throttle: Throttle
) -> None:
    """Bar: p50, p95 and p99 within 0.1 % of the same latencies kept raw and sorted."""
    raw: list[int] = []
    record = Histogram.record

    def keep(histogram: Histogram, ns: int) -> None:
        if histogram._fresh is not None:  # an operation's own; splits and lags are beside it
            raw.append(ns)
        record(histogram, ns)

    monkeypatch.setattr(Histogram, "record", keep)
    workload = Workload("waiting")

    @workload.operation("wait", kind="read")
    async def wait(op: OperationContext) -> None:
        await asyncio.sleep(op.rng.lognormvariate(math.log(0.003), 0.7))

    result = await run(workload, ops=20_000, throttle=throttle)
    raw.sort()
    assert len(raw) == result.completed == 20_000
    found = result.latency().percentiles_ns(PERCENTILES)
    off = {p: found[p] / exact(raw, p) - 1 for p in PERCENTILES}
    quote(
        f"percentiles against raw, {result.mode}",
        [f"p{p:g} {found[p] / 1e6:.3f} ms, {off[p]:+.4%}" for p in PERCENTILES],
    )
    assert all(abs(error) <= 0.001 for error in off.values())


async def test_operations_that_time_themselves() -> None:
    """Bar: the reported percentiles within 2 % of those that the operations measured."""
    workload = Workload("timed")
    measured: list[int] = []

    @workload.operation("wait", kind="read")
    async def wait(op: OperationContext) -> None:
        began = time.perf_counter_ns()
        await asyncio.sleep(op.rng.lognormvariate(math.log(0.02), 0.5))
        measured.append(time.perf_counter_ns() - began)

    result = await run(workload, ops=10_000, concurrency=16, warmup=Limit(ops=100))
    own = sorted(measured[100:])
    found = result.latency().percentiles_ns(PERCENTILES)
    drawn = {p: 0.02 * math.exp(0.5 * z) for p, z in zip(PERCENTILES, (0, 1.645, 2.326))}  # noqa: B905  three of each
    off = {p: found[p] / exact(own, p) - 1 for p in PERCENTILES}
    quote(
        "operations that time themselves",
        [
            f"p{p:g} {found[p] / 1e6:.2f} ms, {off[p]:+.3%} of theirs,"
            f" {found[p] / 1e9 / drawn[p] - 1:+.1%} of the distribution's"
            for p in PERCENTILES
        ],
    )
    assert all(abs(error) <= 0.02 for error in off.values())


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("throttle", [Semaphore(20), ArrivalRate(200, "poisson")])
async def test_counts_equal_the_servers(
    database_url: str, engine: AsyncEngine, throttle: Throttle
) -> None:
    """Bar: equal to `pg_stat_database` and `pg_stat_statements`."""
    async with engine.begin() as connection:
        await connection.execute(text("CREATE EXTENSION pg_stat_statements"))
    await engine.dispose()  # its backend hands its own counts in when it ends
    # Connections that stay: what a new one asks of the server is a transaction to it.
    async with closing(create_engine(make_url(database_url), pool_size=20)) as own:
        async with AsyncExitStack() as stack:
            for _ in range(20):
                await stack.enter_async_context(own.connect())
        sessions, read_sessions = session_factories(own, reads_autocommit=True)
        result = await run(
            mixed.build(),
            sessions=sessions,
            read_sessions=read_sessions,
            ops=5000,
            throttle=throttle,
            warmup=Limit(ops=500),
            server_side=True,
        )
    side = result.server_side
    assert side is not None
    assert side.database is not None
    assert side.statements is not None
    assert side.calls is not None
    creates, reads = (result.by_operation[name].count for name in ("create", "read"))
    ours = sum(o.split.statements for o in result.by_operation.values() if o.split)
    framing = [s for s in side.statements if s.statement.startswith(("BEGIN", "COMMIT", "ROLL"))]
    theirs = side.calls - sum(s.calls for s in framing)
    quote(
        f"counts against the server's, {result.mode}",
        [
            f"{creates:,} creates and {reads:,} reads",
            f"commits {side.database.commits:,}, statements {ours:,} and {theirs:,}",
        ],
    )
    assert (result.failed, result.indeterminate) == (0, 0)
    assert result.completed + result.dropped == 5000
    assert side.database.commits == creates + 2 * reads
    assert theirs == ours
