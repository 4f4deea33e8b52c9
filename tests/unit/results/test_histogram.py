from __future__ import annotations

import gc
import random
import sys
import threading
import weakref
from contextlib import suppress

import pytest

from async_loader import Histogram
from async_loader.results.histogram import HIGHEST_NS, PERCENTILES


def histogram_of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def exact(values: list[int], percentile: float) -> int:
    rank = max(int(percentile / 100 * len(values) + 0.5), 1)
    return sorted(values)[rank - 1]


@pytest.mark.parametrize("scale_ns", [300, 600_000, 14_000_000, 2_000_000_000])
def test_percentiles_are_within_a_thousandth_of_the_exact_ones(scale_ns: int) -> None:
    rng = random.Random(scale_ns)
    values = [int(scale_ns * rng.lognormvariate(0, 0.8)) + 1 for _ in range(20_000)]
    found = histogram_of(values).percentiles_ns()
    for percentile in PERCENTILES:
        assert found[percentile] == pytest.approx(exact(values, percentile), rel=0.001)


def test_merging_equals_recording_everything_in_one() -> None:
    rng = random.Random(1)
    values = [int(rng.expovariate(1 / 5e6)) + 1 for _ in range(9_000)]
    merged = Histogram()
    for k in range(3):
        merged.add(histogram_of(values[k::3]))
    whole = histogram_of(values)
    assert merged.count == 9_000
    assert merged.percentiles_ns() == whole.percentiles_ns()
    assert merged.summary_ms() == whole.summary_ms()


def test_encoding_keeps_everything_that_is_shown() -> None:
    histogram = histogram_of([1, 999, 1_000_001, 7_000_000_000])
    again = Histogram.decode(histogram.encode())
    assert again.summary_ms() == histogram.summary_ms()
    assert again.encode() == histogram.encode()


def test_the_mean_is_within_a_thousandth() -> None:
    values = [1_234_567, 2_345_678, 9_876_543]
    assert histogram_of(values).mean_ns == pytest.approx(sum(values) / 3, rel=0.001)


def test_an_empty_one_is_all_zeros() -> None:
    empty = Histogram()
    assert set(empty.summary_ms().values()) == {0}
    assert Histogram.decode(empty.encode()).count == 0


def test_what_is_longer_than_an_hour_counts_as_an_hour() -> None:
    histogram = histogram_of([HIGHEST_NS * 5, 10])
    assert histogram.count == 2
    assert histogram.max_ns == pytest.approx(HIGHEST_NS, rel=0.001)


@pytest.mark.parametrize("damaged", ["", "x", "AAAA", histogram_of([5]).encode()[:-8], "é"])
def test_a_damaged_encoding_is_refused(damaged: str) -> None:
    with pytest.raises(ValueError, match="not an encoded HDR histogram"):
        Histogram.decode(damaged)


def test_a_cleared_one_is_as_new() -> None:
    histogram = histogram_of([5, 10**9])
    assert histogram.count == 2
    histogram.record(7)
    histogram.clear()
    assert histogram.encode() == Histogram().encode()
    histogram.record(6)
    assert histogram.summary_ms() == histogram_of([6]).summary_ms()


def test_one_that_is_dropped_is_freed_without_the_garbage_collector() -> None:
    histogram = histogram_of([5])
    histogram.add(Histogram.decode(histogram.encode()))
    inner = weakref.ref(histogram._hdr)
    gc.disable()
    try:
        del histogram
        assert inner() is None
    finally:
        gc.enable()


def test_adding_before_and_after_a_look_counts_the_same() -> None:
    """What nobody has looked at has no array yet, and is counted in another way."""
    values = [5, 999, 7_000_000, 7_000_000, HIGHEST_NS * 2]
    sums = []
    for looked, looked_at in ((False, False), (True, False), (False, True), (True, True)):
        total, one = histogram_of([8]), histogram_of(values)
        if looked:
            assert total.max_ns == 8
        if looked_at:
            assert one.min_ns == 5
        total.add(one)
        assert (one.count, total.count) == (len(values), len(values) + 1)
        one.record(3)  # it stays a histogram of its own
        sums.append(total.encode())
    assert sums == [histogram_of([8, *values]).encode()] * 4


def test_the_shortest_survives_adding() -> None:
    assert Histogram().min_ns == 0
    histogram = Histogram()
    histogram.add(histogram_of([70_000_000, 900]))
    histogram.add(histogram_of([5_000_000]))
    assert histogram.min_ns == 900
    assert histogram_of([70_000_000]).min_ns == pytest.approx(70_000_000, rel=0.001)


def test_a_followed_one_tells_what_is_new() -> None:
    histogram = Histogram(followed=True)
    histogram.record(5)
    assert histogram.count == 1  # which must not take it away
    histogram.record(5)
    assert histogram.drain() == {5: 2}
    histogram.record(7)
    assert histogram.drain() == {7: 1}
    assert histogram.drain() == {}
    assert histogram.count == 3


@pytest.mark.parametrize("looked_at", [False, True])
def test_what_is_added_to_a_followed_one_is_not_new(looked_at: bool) -> None:
    histogram, other = Histogram(followed=True), histogram_of([5])
    if looked_at:
        assert other.max_ns == 5
    histogram.record(7)
    histogram.add(other)
    assert histogram.drain() == {7: 1}
    assert histogram.count == 2


def test_a_look_from_another_thread_changes_no_count() -> None:
    """A thread that moved what is pending counted some of it twice, and lost some."""
    histogram, over = Histogram(), threading.Event()
    seen: list[int] = []

    def look() -> None:
        while not over.is_set():
            with suppress(RuntimeError):
                seen.append(histogram.copied().count)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    watching = threading.Thread(target=look)
    watching.start()
    try:
        for number in range(200_000):
            histogram.record(number % 1_999 + 1)
    finally:
        over.set()
        watching.join()
        sys.setswitchinterval(interval)
    assert histogram.count == histogram.copied().count == 200_000
    assert max(seen, default=0) <= 200_000
