"""Who is named for a slow run: the machine, a line that blocks, a leak, before the database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from async_loader import RunResult
from async_loader.reports.console import render
from async_loader.results.loop_profile import Blocking, Leak, LoopProfile
from async_loader.results.machine import MachineResult
from async_loader.verdict.diagnosis import bottleneck, starvation
from async_loader.verdict.validity import doubts
from tests.unit.verdict.test_diagnosis import run

STARVED = MachineResult(ran=0.14, waited=0.84, others=5.9, cores=6, busiest=("cc1plus 5.8",))


def on(machine: MachineResult, busy: float = 0.98) -> RunResult:
    result = replace(run(busy, 1, 8, 1), environment={})
    return replace(result, process=replace(result.process, machine=machine))


def text_of(result: RunResult) -> str:
    return " ".join(render(result).split())


def test_a_starved_process_is_told_of_the_machine_and_not_of_its_loop() -> None:
    text = text_of(on(STARVED))
    assert "other processes used 5.9 of 6 cores (cc1plus 5.8)" in text
    assert "waited for a core" in text
    assert "bottleneck" not in text
    assert "busy" not in " ".join(doubt.about for doubt in doubts(on(STARVED)))
    assert "--concurrency" not in text


@pytest.mark.parametrize(
    ("machine", "starved"),
    [
        (STARVED, True),
        (MachineResult(ran=0.9, waited=0.05, others=1.0, cores=2), False),
        (MachineResult(ran=0.3, others=3.9, cores=4), True),  # as on macOS, which tells no wait
        (MachineResult(ran=0.95, others=3.9, cores=4), False),
        (MachineResult(ran=0.3, others=1.0, cores=4), False),
        (MachineResult(ran=0.3), False),
    ],
)
def test_a_process_is_starved_when_it_wanted_a_core(machine: MachineResult, starved: bool) -> None:
    assert (starvation(on(machine)) is not None) is starved


def test_what_shows_it_is_told_as_far_as_the_system_tells() -> None:
    machine = replace(STARVED, others=None, stolen=0.4, throttled=0.3, pressure=0.9)
    sentence = bottleneck(on(machine)) or ""
    assert "40% steal" in sentence
    assert "quota stopped it for 30%" in sentence
    assert "CPU pressure 90%" in sentence


def test_the_line_that_blocks_the_loop_is_named() -> None:
    blocking = Blocking("export", "shop/export.py:17 in csv", 20, 1000.0, 50.0)
    result = replace(
        run(0.05, 0, 9, 1), environment={}, loop_profile=LoopProfile(100, 50, blocking=(blocking,))
    )
    text = text_of(result)
    assert "blocked by operation 'export' at shop/export.py:17 in csv: 1.0 s in all" in text


def test_a_leak_comes_before_the_database() -> None:
    leak = Leak("monthly", "shop/report.py:9 in monthly", 4, collected=1, in_transaction=2)
    text = text_of(replace(run(0.05, 0, 9, 1), environment={}, leaks=(leak,)))
    assert "'monthly' ended with 4 connections still out (2 with a transaction open, 1" in text
    assert "shop/report.py:9 in monthly" in text
    assert "database was the bottleneck" not in text


def test_they_are_saved_and_merged() -> None:
    blocking = Blocking("export", "shop/export.py:17 in csv", 1, 20.0, 20.0)
    profile = LoopProfile(10, 5, {"driver": 5}, {"a.py:1 in f": 2}, (blocking,))
    leak = Leak("monthly", "shop/report.py:9 in monthly", 4)
    result = replace(on(STARVED), loop_profile=profile, leaks=(leak,))
    again = RunResult.from_dict(result.to_dict())
    assert (again.loop_profile, again.leaks) == (profile, (leak,))
    assert again.process.machine == STARVED
    both = result.merged(again)
    assert both.loop_profile is not None
    assert both.loop_profile.owners == {"driver": 10}
    assert both.loop_profile.blocking == (replace(blocking, times=2, total_ms=40.0),)
