"""Whether a measurement is good: each doubt on its own, and none where all is well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from async_loader import RunResult
from async_loader.reports.console import render
from async_loader.results.schedule import ScheduleResult
from async_loader.verdict.validity import doubts
from async_loader.verdict.verdict import judge
from tests.unit.results.test_results import histogram_of, result_of

MS = 10**6


def run(
    *,
    busy: float = 0.5,
    lag_ms: float = 0.5,
    latency_ms: float = 20,
    mode: str = "semaphore",
    seconds: float = 10.0,
    count: int = 100,
    schedule: ScheduleResult | None = None,
    **settings: Any,
) -> RunResult:
    result = result_of(*[int(latency_ms * MS)] * count, seconds=seconds)
    process = replace(result.process, loop_busy=busy, loop_lag=histogram_of(int(lag_ms * MS)))
    return replace(
        result,
        mode=mode,
        process=process,
        schedule=schedule,
        settings={"concurrency": 40, **settings},
    )


def schedule(lag_ms: float, dropped: int = 0) -> ScheduleResult:
    return ScheduleResult(1000 + dropped, dropped, histogram_of(*[int(lag_ms * MS)] * 1000))


@pytest.mark.parametrize(
    "good",
    [
        run(),
        run(busy=1.0, concurrency=1),  # one at a time waits for nobody
        run(busy=1.0, mode="sync"),
        run(lag_ms=1.9, latency_ms=1),  # what a timer is late for by itself
        run(lag_ms=30, latency_ms=200),
        run(lag_ms=30, concurrency=1),
        run(mode="open", schedule=schedule(1.0)),
        run(mode="open", schedule=schedule(10.0), latency_ms=200),
        run(mode="open", schedule=schedule(1.0, dropped=10)),
        run(threshold=["op_duration:p(90)<1s", "op_duration:max<1s", "errors:rate<1%"]),
        run(threshold=["op_duration{op:absent}:p(99)<1s"]),
    ],
)
def test_a_good_one(good: RunResult) -> None:
    assert doubts(good) == ()
    assert "measurement  good" in render(good)


@pytest.mark.parametrize(
    ("bad", "about"),
    [
        (run(busy=0.95), "this process 95% busy"),
        (run(busy=0.95, mode="threads"), "this process 95% busy"),
        (
            run(busy=0.95, mode="open", concurrency=1, schedule=schedule(1)),
            "this process 95% busy",
        ),
        (run(lag_ms=5), "event loop lag p99 5.0 ms"),
        (run(mode="open", schedule=schedule(5.0)), "starts 5.0 ms late at p99"),
        (run(mode="open", schedule=schedule(1.0, dropped=11)), "1.1% of the arrivals dropped"),
        (run(seconds=0.2), "only 0.20 s long"),
        (run(threshold=["op_duration:p(99)<1s"]), "p(99) of 100 samples"),
        (run(threshold=["op_duration{op:create}:p(99.9)<1s"], count=9999), "p(99.9) of 9,999"),
        (run(threshold=["op_duration:med<1s"], count=19), "p(50) of 19 samples"),
    ],
)
def test_each_doubt_is_named(bad: RunResult, about: str) -> None:
    (doubt,) = doubts(bad)
    assert doubt.about.startswith(about)
    printed = " ".join(render(bad).split())
    good = "not good" if doubt.bias != "inflates" or bad.schedule else "good for throughput; "
    good += ": " if good == "not good" else "latencies hold our own queue: "
    assert f"measurement {good}{doubt.about}" in printed
    assert doubt.is_bottleneck or doubt.sentence in printed


def test_enough_samples_are_ten_beyond_the_percentile() -> None:
    assert doubts(run(threshold=["op_duration:p(99)<1s"], count=1000)) == ()
    assert len(doubts(run(threshold=["op_duration:p(99)<1s"], count=999))) == 1


def test_only_who_requires_it_is_refused() -> None:
    assert judge(run(busy=1.0)).word == "passed"
    required = judge(run(busy=1.0, require_valid=True))
    assert (required.word, required.exit_code) == ("not measured", 112)
    assert required.reasons == ("the measurement is not good: this process 100% busy",)
