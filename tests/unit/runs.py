"""Runs made up from distributions, for tests of what is said of them."""

from __future__ import annotations

import random
from collections import Counter
from math import exp, sqrt

from async_loader import Histogram, OperationResult, RunResult
from async_loader.load.metrics.slice_tally import FIRST_WIDTH_NS, SliceTally
from async_loader.results.parts import ProcessResult, Series

_SECOND = 10**9
_REMEMBERED = 0.9


def made_up_run(
    rng: random.Random,
    *,
    ops: int = 3000,
    seconds: float = 8.0,
    slower: float = 0.0,
    spread: float = 0.4,
    waves: float = 0.0,
    level: float = 0.0,
    stages: tuple[float, ...] = (1.0,),
    failing: float = 0.0,
) -> RunResult:
    """
    Return a run of one operation, "read", whose latencies are lognormal around 2 ms.

    `spread` is the standard deviation of their logarithm; `waves` that of noise which lasts
    about a second, `level` that of noise which lasts for the whole run. `stages` multiply
    the latency, each for its part of the run. `failing` is the share that fails.
    """
    histogram, tally, failed = Histogram(), SliceTally(["read"]), 0
    slices = int(seconds * _SECOND / FIRST_WIDTH_NS)
    whole, wave = rng.gauss(0, level), rng.gauss(0, waves)
    for number in range(slices):
        wave = _REMEMBERED * wave + sqrt(1 - _REMEMBERED**2) * rng.gauss(0, waves)
        middle = 2e6 * (1 + slower) * stages[number * len(stages) // slices] * exp(whole + wave)
        latencies: Counter[int] = Counter()
        for _ in range(ops // slices):
            if failing and rng.random() < failing:
                tally.fail("read")
                failed += 1
            else:
                ns = int(rng.lognormvariate(0, spread) * middle) + 1
                histogram.record(ns)
                latencies[ns] += 1
        tally.add("read", latencies)
        tally.advance((number + 1) * FIRST_WIDTH_NS)
    return RunResult(
        outcome="done",
        mode="semaphore",
        workload="made up",
        seconds=seconds,
        planned=None,
        by_operation={
            "read": OperationResult("read", histogram.count, failed, 0, histogram),
        },
        errors={},
        pool=None,
        series=Series(),
        process=ProcessResult(0, 0, 0, Histogram()),
        slices=tally.result(int(seconds * _SECOND)),
    )
