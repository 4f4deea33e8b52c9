"""The bar of what a run tells beside its latencies: what it costs."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from .conftest import ROUNDS, in_turns, load, quote

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

OFF = ("--no-time-split", "--n-plus-one", "0", "--no-server-side")


def test_everything_on_costs_little(database_url: str) -> None:
    """
    Bar: time split, N+1 and the server's side together at most 5 % of throughput.

    The CPU of the process is quoted beside it: what others do on the machine is not in it.
    """
    cpu: dict[bool, list[float]] = {True: [], False: []}

    def throughput(on: bool) -> float:
        argv = ("--ops", "5000", "--warmup", "300", "--database-url", database_url)
        result: dict[str, Any] = load(*argv, *(() if on else OFF))
        assert ("time_split_ms" in result["by_operation"]["read"]) == on
        assert (result["server_side"] is not None) == on
        cpu[on].append(result["process"]["cpu_seconds"])
        return float(result["throughput"])

    on, off, ratio = in_turns(
        lambda: throughput(True), lambda: throughput(False), rounds=2 * ROUNDS
    )
    costs = statistics.median(a / b for a, b in zip(cpu[True], cpu[False], strict=True))
    quote(
        "everything on against off",
        [f"on {on:,.0f}", f"off {off:,.0f} operations/s", f"{ratio:.3f} x", f"CPU {costs:.3f} x"],
    )
    assert ratio >= 0.95
