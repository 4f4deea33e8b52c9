"""The bar of what a run tells beside its latencies: what it costs."""

from __future__ import annotations

import asyncio
import statistics

import pytest
import uvloop

from async_loader import Limit, RunResult, run
from async_loader.database.postgresql import create_engine, session_factories
from async_loader.database.urls import parse_url
from async_loader.inserts import enable_batch_inserting
from async_loader.load.workloads import mixed
from async_loader.runtime.process import spare_the_garbage_collector

from .conftest import quote

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

# Short runs in one process, the pairs in turns: what else a machine does lasts longer than a pair.
# Not so short that what a run does once, to connect and to sum up, counts as an operation's cost.
OPS = 3_000
PAIRS = 21


async def in_pairs(url: str) -> tuple[list[RunResult], list[RunResult]]:
    """Return runs with everything on and with everything off, made in turns."""
    engine = create_engine(parse_url(url), pool_size=40)
    sessions, read_sessions = session_factories(engine, reads_autocommit=True)
    enable_batch_inserting(sessions)
    workload = mixed.build()

    async def measured(everything: bool) -> RunResult:
        return await run(
            workload,
            sessions=sessions,
            read_sessions=read_sessions,
            ops=OPS,
            warmup=Limit(ops=50),
            time_split=everything,
            n_plus_one=5 if everything else 0,
            server_side=everything,
        )

    await measured(True)
    spare_the_garbage_collector()
    on: list[RunResult] = []
    off: list[RunResult] = []
    for number in range(PAIRS):
        for everything in (True, False) if number % 2 else (False, True):
            (on if everything else off).append(await measured(everything))
    await engine.dispose()
    return on, off


def test_everything_on_costs_little(database_url: str) -> None:
    """
    Bar: time split, N+1 and the server's side together at most 5 % of throughput.

    The CPU of the process is quoted beside it, and of its cheapest tenth the mean: those are
    the runs that nobody else on the machine disturbed.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        on, off = runner.run(in_pairs(database_url))
    assert all(result.server_side and result.by_operation["read"].split for result in on)
    assert not any(result.server_side or result.by_operation["read"].split for result in off)
    ratio = statistics.median(a.throughput / b.throughput for a, b in zip(on, off, strict=True))
    figures = [
        f"{name} {statistics.median(r.throughput for r in runs):,.0f} operations/s, "
        f"CPU {_undisturbed(runs) / OPS * 1e6:.0f} us each"
        for name, runs in (("on", on), ("off", off))
    ]
    cpu = _undisturbed(on) / _undisturbed(off)
    quote("everything on against off", [*figures, f"{ratio:.3f} x", f"CPU {cpu:.3f} x"])
    assert ratio >= 0.95


def _undisturbed(runs: list[RunResult]) -> float:
    seconds = sorted(result.process.cpu_seconds for result in runs)
    return statistics.mean(seconds[: len(seconds) // 10])
