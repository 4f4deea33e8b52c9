"""The bars of a run that is split over the processes of one machine."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from async_loader import Histogram, OperationResult, RunResult, Workload
from async_loader.load.shards.messages import ShardSnapshot
from async_loader.load.shards.snapshots import Standings, snapshot
from async_loader.results.parts import ProcessResult, Series
from async_loader.workers import SNAPSHOT_BYTES, encoded, read

from .conftest import in_turns, load, quote

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

TWO = ("--processes", "2")


def test_mixed_on_two_processes(database_url: str) -> None:
    """Bar: 1.3 times one process, on two cores shared with PostgreSQL."""

    def mixed(*argv: str) -> float:
        argv = ("--ops", "10000", "--warmup", "400", "--database-url", database_url, *argv)
        return float(load(*argv)["throughput"])

    two, one, ratio = in_turns(lambda: mixed(*TWO), mixed)
    quote("mixed", [f"2 processes {two:,.0f}", f"1 {one:,.0f} operations/s", f"{ratio:.2f} x"])
    assert ratio >= 1.3


def test_two_processes_against_the_plain_script(database_url: str, peer: Path) -> None:
    """Bar: 2.2 times its chunks."""
    url = database_url.replace("+asyncpg", "")

    def plain() -> float:
        argv = [sys.executable, str(peer), "chunks", "10000", url]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        return float(json.loads(done.stdout)["ops_per_s"])

    def ours() -> float:
        return float(load("--ops", "10000", *TWO, "--database-url", database_url)["throughput"])

    two, chunks, ratio = in_turns(ours, plain)
    quote("mixed against plain chunks", [f"{two:,.0f}", f"{chunks:,.0f}/s", f"{ratio:.2f} x"])
    assert ratio >= 2.2


def test_noop_on_two_processes() -> None:
    """Bar: 1.8 times one process."""

    def noop(*argv: str) -> float:
        return float(load("--workload", "noop", "--ops", "2000000", *argv)["throughput"])

    two, one, ratio = in_turns(lambda: noop(*TWO), noop)
    quote("noop", [f"2 processes {two:,.0f}", f"1 {one:,.0f} operations/s", f"{ratio:.2f} x"])
    assert ratio >= 1.8


SHARDS = 1000
SECONDS = 30
LATENCIES = 200


class SimulatedShard:
    """A shard of two operations, whose latencies are of a distribution of its own."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._middle = self._rng.uniform(2e6, 8e6)
        self._histograms = {"create": Histogram(), "read": Histogram()}
        self._seconds = 0

    def second(self) -> bytes:
        """Return the snapshot after one more second, as it travels."""
        self._seconds += 1
        for histogram in self._histograms.values():
            for _ in range(LATENCIES):
                histogram.record(int(self._rng.lognormvariate(0, 0.5) * self._middle))
        operations = {
            name: OperationResult("write", histogram.count, 0, 0, histogram)
            for name, histogram in self._histograms.items()
        }
        so_far = RunResult(
            "done", "", "", self._seconds, None, operations, {}, None, Series(),
            ProcessResult(0.0, 0, 0.5, Histogram()),
        )  # fmt: skip
        return encoded(snapshot(so_far, None, 0.5))


def test_a_thousand_shards_are_merged_live() -> None:
    """Bars: 20 % of a core, 4 KB a second of each, and memory does not grow."""
    shards = [SimulatedShard(seed) for seed in range(50)]
    seconds = [[shard.second() for shard in shards] for _ in range(SECONDS)]
    longest = max(len(message) for messages in seconds for message in messages)
    standings = Standings(_workload().mix().operations, SHARDS)
    busy, memory, this = [], [], psutil.Process()
    for messages in seconds:
        began = time.thread_time()
        for index in range(SHARDS):
            message = read(json.loads(messages[index % len(messages)]), ShardSnapshot)
            standings.take(index, message)
        progress = standings.progress(standings.together(), None, 60.0)
        busy.append(time.thread_time() - began)
        memory.append(this.memory_info().rss / 1e6)
    assert progress.completed == SHARDS * SECONDS * LATENCIES * 2
    grown = memory[-1] - memory[SECONDS // 3]
    quote(
        "1,000 shards' snapshots, each second",
        [
            f"{statistics.median(busy):.1%} of a core",
            f"at most {longest:,} bytes of each",
            f"{grown:.1f} MB more after {SECONDS} s than after {SECONDS // 3} s",
        ],
    )
    assert longest <= SNAPSHOT_BYTES
    assert statistics.median(busy) <= 0.2
    assert grown <= 2


def _workload() -> Workload:
    workload = Workload("simulated")
    for name in ("create", "read"):

        @workload.operation(name, kind="write")
        async def nothing() -> None:
            pass

    return workload
