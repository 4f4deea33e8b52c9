"""The open model, stages and the gate's own honesty, as a user runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from async_loader import RunResult

from .conftest import Command

NOOP = ("--workload", "noop", "--progress", "none", "--out", "json=x")


def found(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "x").read_text())
    RunResult.from_dict(document)
    return document


def test_the_open_model_starts_what_is_due(command: Command, tmp_path: Path) -> None:
    done = command(*NOOP, "--rate", "200/s", "--ops", "100", "--latency-limit", "10s")
    assert done.returncode == 0, done.stderr
    assert "open, 200/s uniform, at most 1000 in flight" in done.stdout
    assert "100 of 100 arrivals started" in done.stdout
    assert "late 0 (0.00% took more than 10000 ms)" in done.stdout
    document = found(tmp_path)
    assert document["mode"] == "open"
    assert document["schedule"]["started"] == 100
    assert document["seconds"] >= 0.495


def test_stages_take_the_time_that_they_say(command: Command, tmp_path: Path) -> None:
    done = command(*NOOP, "--stage", "300ms:100/s", "--stage", "300ms:100/s")
    assert done.returncode == 0, done.stderr
    document = found(tmp_path)
    assert document["schedule"]["due"] == 45  # the area: 15 below the ramp, 30 beside it
    assert document["operations"]["planned"] is None
    ramp = command(*NOOP, "--stage", "200ms:4", "--stage", "100ms:4")
    assert ramp.returncode == 0, ramp.stderr
    assert "closed, users 200ms:4 100ms:4" in ramp.stdout
    assert found(tmp_path)["seconds"] >= 0.3


def test_on_a_database(command: Command, database_url: str, tmp_path: Path) -> None:
    done = command(
        "--rate", "100/s", "--arrivals", "poisson", "--duration", "1s", "--concurrency", "4",
        "--database-url", database_url, "--progress", "none", "--out", "json=x",
        "--threshold", "schedule_lag:count>50", "--threshold", "dropped:count==0",
        "--threshold", "op_duration:min<60s",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = found(tmp_path)
    assert document["pool"]["size"] == 4
    assert document["operations"]["completed"] == document["schedule"]["due"]


def test_a_distorted_measurement_fails_the_gate(command: Command, tmp_path: Path) -> None:
    done = command(*NOOP, "--duration", "700ms", "--require-valid", "--junit", "gate.xml")
    assert done.returncode == 112
    # Beside other processes it is these that are named, and not this one.
    who = r"not good: (this process|waited for a core)"
    assert re.search(f"the measurement is {who}", done.stderr)
    assert re.search(r"measurement  .*: (this process|waited for a core)", done.stdout)
    assert '<error type="not measured"' in (tmp_path / "gate.xml").read_text()


@pytest.mark.parametrize("mode", ["semaphore", "sync"])
def test_a_broken_threshold_ends_the_run(command: Command, tmp_path: Path, mode: str) -> None:
    done = command(
        *NOOP, "--duration", "50s", "--mode", mode,
        "--threshold", "ops:rate<1", "--abort-on-fail", "100ms",
    )  # fmt: skip
    assert done.returncode == 99
    assert "a threshold does not hold: ops:rate<1" in done.stderr
    assert done.stdout.startswith("failed")
    assert found(tmp_path)["outcome"] == "failed"
    assert found(tmp_path)["seconds"] < 40


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--rate", "500"], "--rate: a rate looks like 500/s, 30/m or 10/h"),
        (["--rate", "0/s"], "--rate: a rate looks like"),
        (["--rate", "5/s", "--mode", "sync"], "--mode sync lets operations in without --rate"),
        (["--stage", "30s"], "--stage: a stage looks like 30s:40, or 30s:40/s for a rate"),
        (["--stage", "1s:4", "--stage", "1s:4/s"], "--stage: all are of concurrency"),
        (["--stage", "1s:4", "--rate", "1/s"], "--rate with --stage is where rates start from"),
        (["--stage", "1s:0"], "stages need a time and a target above 0"),
        (["--stage", "1s:4", "--ops", "7"], "--ops and --stage exclude each other"),
        (["--threshold", "dropped:count==0"], "--threshold dropped:count==0 needs a --rate"),
        (["--abort-on-fail", "1s"], "--abort-on-fail needs a --threshold"),
        (["--arrivals", "poisson"], "--arrivals poisson needs a --rate"),
    ],
)
def test_what_cannot_be_is_refused_before_the_run(
    command: Command, argv: list[str], message: str
) -> None:
    done = command("--workload", "noop", *argv)
    assert done.returncode == 104
    assert message in done.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--abort-on-fail", "1s"], "--abort-on-fail needs a --threshold"),
        (["--threshold", "dropped:count==0"], "--threshold dropped:count==0 needs a --rate"),
    ],
)
def test_a_comparison_refuses_what_none_of_its_runs_could_do(
    command: Command, argv: list[str], message: str
) -> None:
    done = command("compare", "--workload", "noop", *argv)
    assert done.returncode == 104
    assert message in done.stderr
