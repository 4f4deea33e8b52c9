"""A run in slices of time: exact, mergeable, and small however long the run."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from async_loader.concurrency.clock import SystemClock
from async_loader.failures.classification import TIMEOUT
from async_loader.load.instruments import OperationTimes
from async_loader.load.metrics.metrics import Metrics
from async_loader.load.metrics.slice_tally import FIRST_WIDTH_NS, MOST_SLICES
from async_loader.load.workload import Operation, Workload
from async_loader.results.histogram import HIGHEST_NS
from async_loader.results.slices import (
    Slice,
    Slices,
    bounds_of,
    bucket_of,
    mean_ns,
    percentile_ns,
    sum_of_buckets,
)

SECOND = 1_000_000_000


class HandClock(SystemClock):
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 0

    def now_ns(self) -> int:
        return self.time


def operations(*names: str) -> list[Operation]:
    workload = Workload("test")
    for name in names:

        async def nothing() -> None: ...

        workload.operation(name, kind="read")(nothing)
    return list(workload.operations.values())


class Run:
    """Counts of a run whose clock is set by hand."""

    def __init__(self, *names: str) -> None:
        self.clock = HandClock()
        self.metrics = Metrics(operations(*names), self.clock)

    def end(self, name: str, at: float, ns: int = 1_000_000) -> None:
        self.clock.time = int(at * SECOND)
        self.metrics.succeeded(name, self.clock.time - ns, self.clock.time)

    def fail(self, name: str, at: float) -> None:
        self.clock.time = int(at * SECOND)
        self.metrics.failed(name, TIMEOUT, None)

    def slices(self, seconds: float) -> Slices:
        return self.metrics.slices(seconds)


def counts(slices: Slices, name: str) -> list[int]:
    return [one.count for one in slices.by_operation[name]]


def test_buckets_follow_each_other_and_are_at_most_a_64th_wide() -> None:
    low, high = bounds_of(0)
    assert (low, high) == (0, 1)
    for bucket in range(1, bucket_of(HIGHEST_NS) + 1):
        low, high = bounds_of(bucket)
        assert low == bounds_of(bucket - 1)[1]
        assert high - low <= max(low / 64, 1)
        assert bucket_of(low) == bucket_of(high - 1) == bucket


def test_figures_are_within_a_hundredth_of_the_exact_ones() -> None:
    rng = random.Random(3)
    values = sorted(int(5e6 * rng.lognormvariate(0, 0.7)) for _ in range(20_000))
    buckets = Slice.of(sum_of_buckets({bucket_of(v): 1} for v in values), 0).buckets()
    assert mean_ns(buckets) == pytest.approx(sum(values) / len(values), rel=0.01)
    for percentile in (50, 95, 99):
        exact = values[int(percentile / 100 * len(values))]
        assert percentile_ns(buckets, percentile) == pytest.approx(exact, rel=0.01)


def test_what_happens_is_in_the_slice_in_which_it_ends() -> None:
    run = Run("read", "write")
    for at in (0.0, 0.1, 0.1249, 0.125, 0.3):
        run.end("read", at)
    run.fail("write", 0.49)
    run.fail("write", 0.5)
    run.end("read", 0.5)
    run.end("read", 1.0)
    slices = run.slices(1.1)
    assert slices.width == FIRST_WIDTH_NS / SECOND
    assert counts(slices, "read") == [3, 1, 1, 0, 1, 0, 0, 0, 1]
    assert [one.failed for one in slices.by_operation["write"]] == [0, 0, 0, 1, 1, 0, 0, 0, 0]


def test_what_runs_counts_where_it_ran() -> None:
    run = Run("long", "short")
    run.end("short", 0.30)
    run.end("long", 1.19, ns=500_000_000)  # four slices: its end is taken as the middle of one
    run.end("long", 1.20, ns=2_000_000_000)  # from before the run, as far as one can see
    slices = run.slices(1.25)
    from_the_start = 1 / 9.5
    assert slices.running("short") == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    found = [n - from_the_start for n in slices.running("long")]
    assert found == pytest.approx([0] * 5 + [0.125, 0.25, 0.25, 0.25, 0.125 - 0.0526], abs=0.01)
    assert sum(slices.running()) == pytest.approx(3)


def test_a_run_that_ends_with_its_last_slice_has_no_empty_one_behind() -> None:
    run = Run("read")
    run.end("read", 0.2)
    assert counts(run.slices(0.25), "read") == [0, 1]


def test_a_glance_in_between_changes_nothing() -> None:
    run, watched = Run("read"), Run("read")
    for at in range(1, 60):
        for one in (run, watched):
            one.end("read", at / 20, ns=at * 1000)
        watched.metrics.snapshot(None, None, None)
    assert watched.slices(3.0).to_dict() == run.slices(3.0).to_dict()
    assert watched.metrics.series(3.0) == run.metrics.series(3.0)


def test_the_series_has_what_ended_in_each_second() -> None:
    run = Run("read")
    for at in (0.1, 0.999, 1.0, 5.5):
        run.end("read", at)
    assert run.metrics.series(6.2).throughput == (2, 1, 0, 0, 0, 1, 0)


def test_a_longer_run_has_wider_slices_and_never_more_of_them() -> None:
    run = Run("read")
    for second in range(1000):
        run.end("read", second + 0.5, ns=1000 + second)
        assert run.slices(second + 0.5).length <= MOST_SLICES
    slices = run.slices(1000)
    assert slices.width == 8
    assert counts(slices, "read") == [8] * 125
    first = slices.by_operation["read"][0]
    assert first.buckets() == sum_of_buckets({bucket_of(1000 + n): 1} for n in range(8))


def test_the_slices_together_are_the_whole_run() -> None:
    run, rng = Run("read"), random.Random(1)
    for number in range(5000):
        run.end("read", number / 100, ns=int(rng.expovariate(1e-6)) + 1)
    slices = run.slices(50)
    histogram = run.metrics.operations()["read"].histogram
    together = sum_of_buckets(one.buckets() for one in slices.by_operation["read"])
    assert sum(together.values()) == histogram.count == 5000
    for percentile, ns in histogram.percentiles_ns((50.0, 95.0)).items():
        assert percentile_ns(together, percentile) == pytest.approx(ns, rel=0.016)


def test_merged_shards_equal_the_whole() -> None:
    """Shards that ended at different times have slices of different widths."""
    rng = random.Random(2)
    whole, shards = Run("read", "write"), [Run("read", "write") for _ in range(3)]
    for number in range(8000):
        at, shard = number / 100, shards[min(number // 1000, 2)]
        name, ns = rng.choice(("read", "write")), rng.randrange(1, 10**9)
        for run in (whole, shard):
            run.fail(name, at) if number % 50 == 0 else run.end(name, at, ns)
    first, second, third = (
        shard.slices(seconds) for shard, seconds in zip(shards, (10.0, 20.0, 80.0), strict=True)
    )
    assert [first.width, second.width, third.width] == [0.125, 0.25, 1.0]
    assert first.merged(second).merged(third) == whole.slices(80.0)
    assert third.merged(first.merged(second)) == whole.slices(80.0)


def test_an_operation_that_only_one_shard_has_is_kept() -> None:
    one, other = Run("read"), Run("write")
    one.end("read", 0.2)
    other.end("write", 0.5)
    merged = one.slices(0.25).merged(other.slices(0.625))
    assert counts(merged, "read") == [0, 1, 0, 0, 0]
    assert counts(merged, "write") == [0, 0, 0, 0, 1]


def test_json_reads_back_as_the_same_slices() -> None:
    run, rng = Run("read"), random.Random(5)
    for number in range(3000):
        run.end("read", number / 300, ns=int(rng.lognormvariate(15, 2)) + 1)
    run.fail("read", 10)
    slices = run.slices(10.5)
    assert Slices.from_dict(json.loads(json.dumps(slices.to_dict()))) == slices


@pytest.mark.parametrize("buckets", ["", "x", "é", "AAAA"])
def test_damaged_slices_are_refused(buckets: str) -> None:
    document: dict[str, Any] = {
        "width": 1.0,
        "by_operation": {"read": {"count": [0], "failed": [0]}},
    }
    document["by_operation"]["read"]["buckets"] = buckets
    with pytest.raises(ValueError, match=r"^by_operation\.read: not the buckets"):
        Slices.from_dict(document)


def test_an_hour_of_four_operations_is_a_fraction_of_a_megabyte() -> None:
    rng = random.Random(7)
    names = ("a", "b", "c", "d")
    run = Run(*names)
    for second in range(3600):
        for number, name in enumerate(names):
            for _ in range(20):
                run.end(name, second + 0.9, ns=int(rng.lognormvariate(15 + number, 0.5)))
    assert len(json.dumps(run.slices(3600).to_dict())) < 150_000


def test_a_snapshot_tells_percentiles_where_time_went_and_the_most_frequent_errors() -> None:
    run = Run("read")
    for number in range(1, 101):
        ns = number * 1_000_000
        times = OperationTimes()
        times.pool_ns, times.database_ns = ns // 4, ns // 2
        run.clock.time = number * SECOND // 100
        run.metrics.succeeded("read", run.clock.time - ns, run.clock.time, times)
    run.metrics.failed("read", TIMEOUT, None)
    found = run.metrics.snapshot(None, None, None)
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == pytest.approx((50, 95, 99), rel=1e-3)
    assert found.time_split is not None
    assert found.time_split["pool_wait"] == pytest.approx(5.05 / 4)
    assert found.time_split["database"] == pytest.approx(5.05 / 2)
    assert found.time_split["orm"] == pytest.approx(5.05 / 4)
    assert found.errors == {"timeout": 1}
    assert found.waiting is None


def test_a_snapshot_tells_the_last_seconds_apart_from_the_run_so_far() -> None:
    run = Run("read")
    found = []
    for second in range(1, 13):  # slow from the seventh on
        for number in range(1, 61):
            factor = 10 if second > 6 else 1
            run.end("read", second - 1 + number / 61, ns=number * factor * 1_000_000)
        run.clock.time = second * SECOND
        found.append(run.metrics.snapshot(None, None, None))
    fast, slow = found[5], found[-1]
    assert fast.recent == pytest.approx({"p50_ms": 30, "p95_ms": 57, "p99_ms": 60}, rel=0.02)
    assert slow.recent == pytest.approx({"p50_ms": 300, "p95_ms": 570, "p99_ms": 600}, rel=0.02)
    assert slow.p50_ms == pytest.approx(55, rel=0.02)
    run.clock.time = 20 * SECOND
    assert run.metrics.snapshot(None, None, None).recent is None  # nothing ended
