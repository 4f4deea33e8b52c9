"""The bars of the runner: what the generator can do, and what it adds."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance.conftest import environment

from .conftest import ROUNDS, in_turns, load, quote

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

NOOP = ("--workload", "noop")


def test_noop_throughput() -> None:
    """Bar: 300,000 operations/s in one process, everything counted."""
    rates = [load(*NOOP, "--ops", "1000000")["throughput"] for _ in range(ROUNDS)]
    quote("noop, a million operations", [f"median {statistics.median(rates):,.0f} operations/s"])


def test_memory_does_not_grow_with_the_operations() -> None:
    """Bar: at most 5 MB more for 10 million operations than for 100,000."""

    def peak(ops: int) -> float:
        return float(load(*NOOP, "--ops", str(ops))["process"]["peak_memory_bytes"]) / 1e6

    few, many = peak(100_000), peak(10_000_000)
    quote("peak memory", [f"100,000: {few:.1f} MB", f"10,000,000: {many:.1f} MB"])
    assert many - few <= 5


@pytest.mark.parametrize(("mode", "bar"), [("chunks", 1.25), ("sync", 1.4)])
def test_mixed_against_the_plain_script(
    database_url: str, peer: Path, mode: str, bar: float
) -> None:
    url = database_url.replace("+asyncpg", "")

    def plain() -> float:
        done = subprocess.run(
            [sys.executable, str(peer), mode, "5000", url],
            check=True,
            capture_output=True,
            text=True,
        )
        return float(json.loads(done.stdout)["ops_per_s"])

    def ours() -> float:
        return float(load("--ops", "5000", "--database-url", database_url)["throughput"])

    a, b, ratio = in_turns(ours, plain)
    quote(f"mixed against plain {mode}", [f"{a:,.0f}", f"{b:,.0f} operations/s", f"{ratio:.2f} x"])
    assert ratio >= bar


def test_the_split_costs_little(database_url: str) -> None:
    """Bar: at most 3 % of throughput."""

    def split(flag: str) -> float:
        argv = ("--ops", "5000", flag, "--database-url", database_url)
        return float(load(*argv)["throughput"])

    on, off, ratio = in_turns(
        lambda: split("--time-split"), lambda: split("--no-time-split"), rounds=2 * ROUNDS
    )
    quote("time split", [f"on {on:,.0f}", f"off {off:,.0f} operations/s", f"{ratio:.3f} x"])
    assert ratio >= 0.97


def test_the_first_operation_comes_soon(server_directory: Path) -> None:
    """Bars: 5 s from nothing, 2 s with a data directory (here: the whole command)."""

    def whole_command(home: str) -> float:
        started = time.perf_counter()
        load("--ops", "1", "--server-directory", str(server_directory / home))
        return time.perf_counter() - started

    fresh = [whole_command(f"fresh{n}") for n in range(ROUNDS)]
    again = [whole_command("fresh0") for _ in range(ROUNDS)]
    quote(
        "one operation, whole command",
        [
            f"from nothing {statistics.median(fresh):.2f} s",
            f"then {statistics.median(again):.2f} s",
        ],
    )


def test_importing_costs_little() -> None:
    """Bar: 1.3 x the import of sqlalchemy.ext.asyncio."""

    def seconds(module: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True, env=environment())
        return time.perf_counter() - started

    ours, theirs, ratio = in_turns(
        lambda: seconds("async_loader"), lambda: seconds("sqlalchemy.ext.asyncio"), rounds=15
    )
    quote("import", [f"{ours:.3f} s", f"{theirs:.3f} s", f"{ratio:.2f} x"])
    assert ratio <= 1.3
