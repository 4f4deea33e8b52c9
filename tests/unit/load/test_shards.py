"""How a run is divided, and what its shards' snapshots hold and make together."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

import pytest
from msgspec import structs

from async_loader import ConfigurationError, Histogram, Limit, OperationResult, Workload
from async_loader.cli.sweep import run_settings as step_settings
from async_loader.database.postgresql import Namespace
from async_loader.load.pacing.throttles import ArrivalRate, Ramp
from async_loader.load.partition import Partition
from async_loader.load.shards import number_of_shards
from async_loader.load.shards.messages import ShardSnapshot
from async_loader.load.shards.shard import Task
from async_loader.load.shards.snapshots import Standings, snapshot
from async_loader.reports import console, html, markdown
from async_loader.results.errors import ErrorResult
from async_loader.results.parts import CheckResult, ProcessResult, Series
from async_loader.results.run import RunResult
from async_loader.results.schedule import ScheduleResult
from async_loader.results.shards import ShardResult
from async_loader.settings.run import CompareSettings, RunSettings
from async_loader.settings.spec import spec_of
from async_loader.settings.sweep import SweepSettings
from async_loader.verdict.validity import doubts
from async_loader.workers import SNAPSHOT_BYTES, encoded, read
from tests.unit.runs import made_up_run

T = TypeVar("T")


def test_a_task_shows_no_secret() -> None:
    url = "postgresql+asyncpg://user:hunter2@host/database"
    spec = spec_of(made(RunSettings, database_url=url))
    assert "hunter2" not in repr(spec)
    told = spec.for_worker()
    assert told.database.url is None
    assert b"hunter2" not in pickle.dumps(told)
    task = Task(told, Partition(1, 2), b"hunter2", url, Namespace("run"), 5)
    assert "hunter2" not in repr(task)
    assert pickle.loads(pickle.dumps(task)) == task


def made(model: Callable[..., T], **given: Any) -> T:
    return model(**given)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [0, 1, 6, 7, 35_000])
def test_parts_add_up_to_the_whole(parts: int, total: int) -> None:
    divided = [Partition(number, parts) for number in range(parts)]
    shares = [part.of(total) for part in divided]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    numbers = [n for part, share in zip(divided, shares, strict=True)
               for n in islice(part.numbers(), share)]  # fmt: skip
    assert sorted(numbers) == [*range(total)]
    warm_up = [n for part, share in zip(divided, shares, strict=True)
               for n in islice(part.warm_up_numbers(), share)]  # fmt: skip
    assert sorted(warm_up, reverse=True) == [*range(-1, -total - 1, -1)]
    limits = [part.limit(Limit(ops=total)).ops for part in divided]
    assert limits == shares
    assert divided[0].limit(Limit(duration=3.0)) == Limit(duration=3.0)


@pytest.mark.parametrize(
    "given",
    [
        {"concurrency": 41},
        {"concurrency": 41, "mode": "chunks"},
        {"stage": ["5s:30", "5s:17"]},
        {"rate": "500/s", "max_in_flight": 101},
    ],
)
def test_a_throttle_is_divided_exactly(given: dict[str, Any]) -> None:
    model = made(RunSettings, **given).load_model
    throttles: list[Any] = [model.throttle(Partition(number, 4)) for number in range(4)]
    assert sum(t.concurrency for t in throttles) == model.throttle().concurrency
    assert {t.mode for t in throttles} == {model.throttle().mode}
    if isinstance(throttles[0], ArrivalRate | Ramp):
        assert [(t.shard, t.shards) for t in throttles] == [(n, 4) for n in range(4)]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"concurrency": 3}, "a concurrency of 3: each needs one"),
        ({"pool_size": 2}, "a `pool_size` of 2"),
        ({"rate": "9/s", "max_in_flight": 3}, "a `max_in_flight` of 3"),
        ({"stage": ["5s:3"]}, "a `stage` of 3"),
    ],
)
def test_fewer_places_than_processes(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        number_of_shards(spec_of(made(RunSettings, processes=4, **given)))
    as_many = spec_of(made(RunSettings, processes="auto", **given))
    assert 1 <= number_of_shards(as_many) <= 3


def test_what_is_one_process_cannot_be_split() -> None:
    for mode in ("sync", "threads"):
        with pytest.raises(ValueError, match=f"--mode {mode} is one process"):
            made(RunSettings, processes=2, mode=mode)
        with pytest.raises(ValueError, match=f"--mode {mode} is one process"):
            made(CompareSettings, processes=2, modes=[mode])
    assert made(CompareSettings, processes=2).modes == ["semaphore", "chunks", "unbounded"]
    assert "sync" in made(CompareSettings).modes


def test_a_step_of_a_sweep_uses_as_many_processes_as_it_can() -> None:
    settings = made(SweepSettings, processes=4)
    levels = ["1", "2", "8"]
    steps = [spec_of(step_settings(settings, level)) for level in levels]
    assert [number_of_shards(step) for step in steps] == [1, 2, 4]


def some_result(rng: random.Random, names: list[str], values: int) -> RunResult:
    """A shard's counts, with latencies from 0.1 ms to a second."""
    histograms = {name: Histogram() for name in names}
    for histogram in histograms.values():
        for _ in range(values):
            histogram.record(int(10 ** rng.uniform(5, 9)))
    lag = Histogram()
    for _ in range(values):
        lag.record(int(10 ** rng.uniform(3, 8)))
    return RunResult(
        outcome="done",
        mode="open",
        workload="made up",
        seconds=3600.123456,
        planned=None,
        by_operation={
            name: OperationResult("write", values, 70_001, 80_002, histogram, None, 90_003, 4, 5, 6)
            for name, histogram in histograms.items()
        },
        errors={f"40001 error {n}": ErrorResult(7, {names[0]: 7}, "told") for n in range(9)},
        checks={f"a check of the workload's own {n}": CheckResult(10**6, 1) for n in range(30)},
        pool=None,
        series=Series(),
        process=ProcessResult(1.0, 1, 0.5, lag),
        schedule=ScheduleResult(values + 9, 9, lag),
    )


@pytest.mark.parametrize("operations", [1, 2, 20, 60])
def test_a_snapshot_is_small(operations: int) -> None:
    names = [f"an operation with a long name {n}" for n in range(operations)]
    message = snapshot(some_result(random.Random(1), names, 5_000), None, 0.5)
    assert len(encoded(message)) <= SNAPSHOT_BYTES
    assert len(message.counts) == operations
    assert len(message.histograms) == operations + 1
    assert message.histograms[0] is not None


def workload_of(names: list[str]) -> Workload:
    workload = Workload("made up")
    for name in names:

        @workload.operation(name, kind="write")
        async def nothing() -> None:
            await asyncio.sleep(0)

    return workload


def told(result: RunResult) -> ShardSnapshot:
    """The snapshot as it arrives."""
    return read(json.loads(encoded(snapshot(result, None, 0.25))), ShardSnapshot)


def test_standings_are_the_sum_of_the_last_snapshots() -> None:
    rng, names = random.Random(2), ["a", "b"]
    standings = Standings(workload_of(names).mix().operations, 3)
    assert standings.together().completed == 0
    assert standings.acknowledged(1) == [0, 0]
    results = [some_result(rng, names, 1000 * n) for n in (1, 2, 3)]
    for number in (0, 0, 1, 2):
        standings.take(number, told(results[number]))
    together, whole = standings.together(), results[0].merged(results[1]).merged(results[2])
    for name in names:
        mine, all_of_it = together.by_operation[name], whole.by_operation[name]
        assert (mine.count, mine.failed, mine.indeterminate, mine.dropped) == (
            6000, 3 * 70_001, 3 * 80_002, 3 * 90_003)  # fmt: skip
        for percentile, ns in all_of_it.histogram.percentiles_ns().items():
            found = mine.histogram.percentiles_ns([percentile])[percentile]
            assert ns / (1 + 2**-5) <= found <= ns * 1.001
    assert together.errors["40001 error 0"].by_operation == {"a": 21}
    assert together.schedule is not None
    assert together.schedule.due == 6027
    assert standings.acknowledged(1) == [2000 + 70_001 + 80_002 + 90_003] * 2
    of_one = standings.of(2)
    assert of_one.completed == 6000
    assert sum(of_one.series.throughput) == 6000
    progress = standings.progress(together, 10, None)
    assert (progress.completed, progress.in_use, progress.planned) == (12_000, None, 10)
    assert progress.rate == pytest.approx(4000 / 3600.123 + 6000 / 3600.123)
    standings.ended(1)
    assert standings.progress(together, 10, None).rate == pytest.approx(6000 / 3600.123)
    standings.ended(2)
    standings.ended(0)
    assert standings.progress(together, 10, None).rate == together.throughput > 0


def test_the_last_seconds_of_all_shards_are_told_apart_from_the_run_so_far() -> None:
    standings = Standings(workload_of(["a"]).mix().operations, 2)
    histograms = [Histogram(), Histogram()]
    for second in range(1, 13):
        for index, histogram in enumerate(histograms):
            for number in range(1, 61):
                histogram.record(number * (10 if second > 6 else 1) * 1_000_000)
            counted = OperationResult("write", 60 * second, 0, 0, histogram)
            so_far = replace(made_up_run(random.Random(1)), seconds=second, checks={}, errors={})
            message = told(replace(so_far, by_operation={"a": counted}, schedule=None))
            standings.take(index, message)
        progress = standings.progress(standings.together(), None, None)
    assert progress.recent == pytest.approx({"p50_ms": 300, "p95_ms": 570, "p99_ms": 600}, rel=0.03)
    assert progress.p50_ms == pytest.approx(55, rel=0.03)
    for index in range(2):  # more precise latencies than there is room for
        standings.take(index, structs.replace(message, seconds=13, histograms=[None]))
    assert standings.progress(standings.together(), None, None).recent is None


def split_result(*shards: ShardResult) -> RunResult:
    """A good run of several processes, whatever each of them is."""
    whole = made_up_run(random.Random(3))
    process = replace(whole.process, processes=len(shards))
    return replace(whole, process=process, shards=shards, settings={"concurrency": 40})


GOOD = ShardResult("process 1", 8.0, 1500, 0, 0, 0.5, 0.4, peak_memory_bytes=90 << 20)
SLOW = replace(GOOD, name="process 2", loop_busy=0.97, completed=700)
LATE = replace(GOOD, name="process 3", loop_lag_ms=30.0)
LOST = replace(GOOD, name="process 4", completed=300, indeterminate=9, lost="was killed by SIGKILL")
REMOTE = replace(GOOD, name="tcp://other:1", clock_offset_ms=-3.25)


@pytest.mark.parametrize(
    ("shard", "doubt"),
    [
        (SLOW, "process 2 97% busy"),
        (LATE, "event loop lag of process 3 p99 30.0 ms"),
        (LOST, "1 of 2 processes lost"),
        (REMOTE, None),
    ],
)
def test_one_process_can_spoil_a_measurement(shard: ShardResult, doubt: str | None) -> None:
    found = [doubt.about for doubt in doubts(split_result(GOOD, shard))]
    assert found == ([doubt] if doubt is not None else [])


def test_every_report_tells_the_processes_apart() -> None:
    result = split_result(GOOD, SLOW, LOST)
    assert RunResult.from_dict(json.loads(json.dumps(result.to_dict()))).shards == result.shards
    for text in (console.render(result), markdown.render(result), html.render(result)):
        assert "process 2" in text
        assert re.search(r"700\b.*\b0\b.*\b88\b.*97%", text, re.S)
        assert "process 4 was killed by SIGKILL" in text.replace("\n", " ").replace("  ", " ")
        assert "clock ms" not in text
    assert "-3.2" in console.render(split_result(GOOD, REMOTE))
    assert "process 1" not in console.render(made_up_run(random.Random(3)))
