"""Knees of servers whose capacity is known: a number of workers, each taking a fixed time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from async_loader import OperationResult, RunResult
from async_loader.cli.sweep import _next, run_settings
from async_loader.errors import ConfigurationError
from async_loader.reports import sweep as report
from async_loader.results.parts import PoolResult
from async_loader.results.schedule import ScheduleResult
from async_loader.settings.sources import load
from async_loader.settings.sweep import SweepSettings
from async_loader.verdict.document import json_schema
from async_loader.verdict.knee import Advice, advise, fault, is_past, is_undecided
from tests.unit.results.test_results import histogram_of, result_of

SECONDS = 10.0
SERVICE = 0.01


def sweeping(**options: Any) -> SweepSettings:
    return SweepSettings(**options)


def step(concurrency: int, workers: int, failed: int = 0) -> RunResult:
    """Return a closed run on a server that serves so many at once, 10 ms each."""
    throughput = min(concurrency, workers) / SERVICE
    count, latency_ns = int(throughput * SECONDS), int(concurrency / throughput * 1e9)
    operation = OperationResult("read", count, failed, 0, histogram_of(*[latency_ns] * count))
    return replace(
        result_of(seconds=SECONDS),
        by_operation={"read": operation},
        pool=PoolResult(concurrency, concurrency, 0),
        settings={"concurrency": concurrency},
    )


def open_step(rate: float, capacity: float, dropped: int = 0) -> RunResult:
    """Return an open run; beyond the capacity each operation waits for all before it."""
    due = int(rate * SECONDS)
    count = due - dropped
    waits = [max(0.0, n / capacity - n / rate) for n in range(count)]
    operation = OperationResult(
        "read", count, 0, 0, histogram_of(*(int((w + SERVICE) * 1e9) for w in waits))
    )
    return replace(
        result_of(seconds=max(SECONDS, count / capacity)),
        mode="open",
        by_operation={"read": operation},
        schedule=ScheduleResult(due, dropped, histogram_of(*[1000] * count)),
        pool=PoolResult(40, 7, 0),
        settings={"rate": f"{rate:g}/s", "duration": SECONDS, "concurrency": 40},
    )


def swept(settings: SweepSettings, run: object) -> list[RunResult]:
    """Return the steps that the sweep makes where `run` is what a child process would do."""
    levels, done = iter(settings.levels), list[RunResult]()
    while (level := _next(done, levels, settings)) is not None:
        done.append(run(float(level.removesuffix("/s"))))  # type: ignore[operator]  # a function
    return done


def advice_of(steps: Sequence[RunResult], limit: float | None = None) -> Advice:
    found = advise(steps, limit)
    assert found is not None
    return found


@pytest.mark.parametrize(("workers", "knee"), [(1, 1), (5, 8), (16, 16), (17, 32), (200, 256)])
def test_the_knee_is_the_lowest_with_nearly_all_of_the_throughput(workers: int, knee: int) -> None:
    steps = swept(sweeping(), lambda n: step(int(n), workers))
    found = advice_of(steps)
    assert (found.level, found.pool_size) == (knee, knee)
    assert found.throughput == pytest.approx(workers / SERVICE, rel=0.01)
    # Two steps past the knee, and no more.
    assert [s.settings["concurrency"] for s in steps] == [2**n for n in range(len(steps))]
    assert steps[-1].settings["concurrency"] == min(knee * 4, 512)


def test_a_latency_limit_is_the_knee_where_it_comes_first() -> None:
    settings = sweeping(latency_limit=0.031)
    steps = swept(settings, lambda n: step(int(n), 3))
    assert [s.settings["concurrency"] for s in steps] == [1, 2, 4, 8, 16]
    assert advice_of(steps, 0.031).level == 4
    tight = swept(sweeping(latency_limit=0.012), lambda n: step(int(n), 3))
    assert [s.settings["concurrency"] for s in tight] == [1, 2, 4], "over the limit at once"
    assert advice_of(tight, 0.012).level == 2


def test_no_step_may_be_good() -> None:
    steps = [step(1, 1, failed=50)]
    assert advise(steps) is None
    assert is_past(steps)
    assert "No step is good: at 1 already, 4.8% failed." in report.render(steps)
    assert json.loads(report.render_json(steps))["sweep"]["advice"] is None


@pytest.mark.parametrize("capacity", [60, 130, 777, 20_000])
def test_a_rate_is_found_between_two_doublings(capacity: float) -> None:
    steps = swept(sweeping(by="rate"), lambda rate: open_step(rate, capacity))
    found = advice_of(steps)
    assert capacity / 1.35 < found.level <= capacity / 0.9
    assert found.pool_size == 7
    assert sum(s.settings["rate"] not in sweeping(by="rate").levels for s in steps) == 2


def test_drops_end_a_sweep_by_rate() -> None:
    steps = [open_step(50, 1000), open_step(100, 1000, dropped=100)]
    assert is_past(steps)
    assert advice_of(steps).level == 50


def busy(step: RunResult) -> RunResult:
    """Return the same with an event loop that had no time left."""
    return replace(step, process=replace(step.process, loop_busy=1.0))


def test_of_rates_the_highest_with_valid_latencies_is_named() -> None:
    steps = [open_step(100, 1000), open_step(102, 1000), busy(open_step(104, 1000))]
    assert advice_of(steps).level == 102
    assert "The most with valid latencies: 102/s" in report.render(steps)
    assert is_undecided(steps[2:])
    assert advise(steps[2:]) is None
    assert "at 104/s already, latencies not valid (this process 100% busy)" in " ".join(
        report.render(steps[2:]).split()
    )


def test_a_limit_that_a_busy_process_breaks_is_undecided() -> None:
    over = open_step(100, 1000)
    assert not is_undecided([over], 0.001)
    assert is_undecided([busy(over)], 0.001)


def test_a_closed_step_measures_throughput_however_busy_the_process() -> None:
    steps = [busy(step(n, 4)) for n in (1, 2, 4, 8)]
    assert advice_of(steps).level == 4
    assert "all that one process can do (this process 100% busy)" in report.render(steps)


def test_a_closed_step_with_an_error_is_not_named() -> None:
    steps = [step(1, 4), step(2, 4), step(4, 4, failed=1)]
    assert advice_of(steps).level == 2


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        ("aborted", "gave up"),
        ("failed", "ended by a threshold"),
        ("hung", "did not end by itself"),
        ("lost", "lost a process"),
    ],
)
def test_a_step_that_did_not_come_to_its_end_is_not_good(outcome: Any, why: str) -> None:
    ended = replace(step(2, 4), outcome=outcome)
    assert fault(ended, None) == why
    assert advise([ended]) is None
    assert is_past([step(1, 4), ended])


@pytest.mark.parametrize(("tail", "good"), [(0.2, True), (0.7, False)])
def test_the_last_operation_of_a_short_run_is_not_a_backlog(tail: float, good: bool) -> None:
    short = replace(open_step(50, 1000), seconds=0.3 + tail)
    ((name, operation),) = short.by_operation.items()
    short = replace(
        short,
        by_operation={name: replace(operation, count=15)},
        schedule=ScheduleResult(15, 0, histogram_of(*[1000] * 15)),
        settings={**short.settings, "duration": 0.3},
    )
    assert (advise([short]) is not None) is good


def test_steps_of_ones_own_are_not_refined() -> None:
    settings = sweeping(by="rate", steps=["100/s", "900/s", "2000/s"])
    steps = swept(settings, lambda rate: open_step(rate, 500))
    assert [s.settings["rate"] for s in steps] == ["100/s", "900/s"]


def test_the_report_names_the_knee_and_fits() -> None:
    steps = swept(sweeping(), lambda n: step(int(n), 8))
    text = report.render(steps)
    assert max(map(len, text.splitlines())) <= 80
    assert "<- the knee" in text
    assert "The knee: --concurrency 8 (800 operations/s, p95 10.0 ms)." in text
    assert "--pool-size 8." in text
    assert "t operations/s (left)" in text
    document = json.loads(report.render_json(steps))
    assert document["sweep"]["levels"] == [1, 2, 4, 8, 16, 32]
    assert document["sweep"]["advice"]["step"] == 3
    Draft202012Validator(json_schema()).validate(document)


def test_each_step_is_a_run_of_its_own_load() -> None:
    run = run_settings(sweeping(pool_size=3, ops=70), "16")
    assert (run.concurrency, run.pool_size, run.ops, run.duration) == (16, 3, 70, None)
    open_run = run_settings(sweeping(by="rate"), "30/m")
    assert (open_run.rate, open_run.duration) == ("30/m", 10)
    assert open_run.warmup is not None
    assert open_run.warmup.duration == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--steps", "0"], "--steps: a rate looks like"),
        (["--steps", "5/s"], "--steps 5/s: --by concurrency takes steps such as 4"),
        (["--by", "rate", "--steps", "5"], "--steps 5: --by rate takes steps such as 200/s"),
    ],
)
def test_wrong_steps_are_refused(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load(["sweep", *argv])
