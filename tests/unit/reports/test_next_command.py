"""What to measure after a run at full speed: throughput is valid, latencies need a rate."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest

from async_loader import RunResult
from async_loader.reports import html, markdown
from async_loader.reports.console import render
from async_loader.reports.next_command import next_lines
from async_loader.results.machine import MachineResult
from async_loader.results.time_split import TimeSplit
from async_loader.settings.run import RunSettings
from async_loader.settings.sources import load
from tests.unit.results.test_results import histogram_of
from tests.unit.verdict.test_validity import MS, run, schedule

EMBEDDED: dict[str, Any] = {
    "database": {"product": "PostgreSQL", "version": "18", "where": "(embedded)"}
}


def full_speed(**settings: Any) -> RunResult:
    result = run(count=1000, busy=1.0, **settings)
    database = {**EMBEDDED["database"], "settings": {}, "url": None}
    return replace(result, environment={"database": database})


def words(result: RunResult, width: int = 80) -> list[str]:
    lines = next_lines(result, width)
    assert all(len(line) <= width for line in lines[1:])
    return shlex.split("\n".join(lines[1:]).replace("\\\n", " "))


def test_the_command_is_filled_in_and_can_be_typed() -> None:
    found = words(full_speed(concurrency=8, workload="sequences", op_timeout=5.0))
    assert found[:5] == ["async_loader", "--rate", "70/s", "--duration", "30s"]
    settings = load(found[1:])
    assert isinstance(settings, RunSettings)
    assert (settings.concurrency, settings.workload, settings.op_timeout) == (8, "sequences", 5.0)


def test_a_server_of_the_users_is_named_without_its_password() -> None:
    result = full_speed()
    database = {**result.environment["database"], "url": "postgresql://me:***@db/shop"}
    result = replace(result, environment={"database": database})
    assert words(result, 60)[-2:] == ["--database-url", "postgresql://me:***@db/shop"]


@pytest.mark.parametrize(
    "result",
    [
        run(count=1000),
        replace(full_speed(), outcome="interrupted"),
        replace(full_speed(), mode="ramp"),
        replace(full_speed(), mode="sync"),
        replace(full_speed(), mode="open", schedule=schedule(1.0)),
        replace(full_speed(), seconds=0.1),
        replace(full_speed(), environment={}),
    ],
    ids=["calm", "stopped", "stages", "sync", "open", "short", "no database"],
)
def test_no_other_run_tells_a_rate(result: RunResult) -> None:
    assert next_lines(result, 80) == []


def test_a_process_without_a_core_did_not_run_at_full_speed() -> None:
    result = full_speed()
    starved = MachineResult(ran=0.3, waited=0.7)
    result = replace(result, process=replace(result.process, machine=starved))
    assert next_lines(result, 80) == []


def test_the_console_has_the_service_time_beside_the_latency() -> None:
    result = full_speed()
    ((name, operation),) = result.by_operation.items()
    split = TimeSplit(
        pool_wait=histogram_of(*[0] * 1000),
        database=histogram_of(*[4 * MS] * 1000),
        orm=histogram_of(*[2 * MS] * 1000),
        statements=2000,
        most_statements=2,
        loop_queue=histogram_of(*[30 * MS] * 1000),
    )
    result = replace(result, by_operation={name: replace(operation, split=split)})
    shown = " ".join(render(result).split())
    assert f"service time {name} 6.00 ms on average, without our own queue" in shown
    assert "good for throughput" in shown
    assert "async_loader --rate 70/s --duration 30s" in shown
    for report in (markdown, html):
        text = report.render(result)
        assert "async_loader --rate 70/s --duration 30s" in text
        assert f"{name} 6.00 ms" in text
    calm = replace(result, process=replace(result.process, loop_busy=0.2))
    assert "service time" not in render(calm)
