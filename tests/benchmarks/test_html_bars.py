"""The bars of the HTML report: a run of an hour is under 2 MB and opens in under 2 s."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from async_loader import Histogram, OperationResult, RunResult
from async_loader.reports import html
from async_loader.results.parts import PoolResult, Series
from async_loader.results.slices import Buckets, Slice, Slices, bucket_of
from async_loader.results.time_split import TimeSplit
from tests.browser import MISSING, REASON, browser
from tests.unit.results.test_results import result_of

from .conftest import ROUNDS, quote

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600)]

HOUR = 3600
WIDTH = 32.0
NAMES = [f"operation {number}" for number in range(8)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hour") / "hour.html"
    path.write_text(html.render(hour()), encoding="utf-8")
    return path


def hour() -> RunResult:
    """An hour of eight operations at some 400 a second, log-normal, every second another rate."""
    rng = random.Random(1)
    rates = [max(1, int(rng.gauss(400, 40))) for _ in range(HOUR)]
    histograms = {name: Histogram() for name in NAMES}
    buckets: dict[str, list[Buckets]] = {
        name: [{} for _ in range(int(HOUR // WIDTH) + 1)] for name in NAMES
    }
    for second, rate in enumerate(rates):
        for _ in range(rate):
            name = rng.choice(NAMES)
            ns = int(8e6 * rng.lognormvariate(0, 0.8))
            histograms[name].record(ns)
            filled = buckets[name][int(second // WIDTH)]
            filled[bucket_of(ns)] = filled.get(bucket_of(ns), 0) + 1
    in_use = tuple(min(40, max(0, int(rng.gauss(30, 5)))) for _ in rates)
    return replace(
        result_of(1, seconds=float(HOUR)),
        by_operation={
            name: OperationResult("read", h.count, 0, 0, h, TimeSplit(h, h, h, h.count, 2))
            for name, h in histograms.items()
        },
        pool=PoolResult(40, 40, 9),
        series=Series(tuple(rates), (1,) * HOUR, in_use, (0,) * HOUR),
        slices=Slices(
            WIDTH, {name: tuple(Slice.of(b, 0) for b in row) for name, row in buckets.items()}
        ),
    )


def test_its_size(page: Path) -> None:
    """Bar: under 2 MB."""
    size = page.stat().st_size
    quote("HTML of one hour", [f"{size / 1e6:.3f} MB"])
    assert size < 2e6


@pytest.mark.skipif(MISSING, reason=REASON)
def test_how_soon_it_is_open(page: Path) -> None:
    """Bar: under 2 s until its last chart is drawn, the first time and after."""
    times = []
    with browser() as opened:
        for _ in range(ROUNDS):
            opened.open(page)
            assert opened.script("return document.documentElement.dataset.drawn") == "4"
            # report.js leaves a mark once all is drawn; times count from the navigation's start.
            times.append(
                opened.script("return performance.getEntriesByName('drawn')[0].startTime") / 1e3
            )
        assert opened.complaints == []
    quote("opened", [f"first {times[0]:.2f} s", f"median {statistics.median(times):.2f} s"])
    assert max(times) < 2
