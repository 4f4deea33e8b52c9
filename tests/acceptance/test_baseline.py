"""`--baseline` and `--compare-fail`, as a pipeline uses them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Command

# Naps so long that a busy machine adds little to them: what is tested is the gate.
SLEEPS = """
import os
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from async_loader import Workload

workload = Workload("sleeps")

@workload.operation("nap", kind="read")
async def nap(session: AsyncSession) -> None:
    await session.execute(text(f"SELECT pg_sleep({os.environ.get('NAP', '0.1')})"))
"""
CHECK = "op_duration{op:nap}:med:80%"


@pytest.fixture
def workload(tmp_path: Path, database_url: str) -> list[str]:
    (tmp_path / "sleeps.py").write_text(SLEEPS)
    load = ["--concurrency", "8", "--duration", "4.2s", "--progress", "none"]
    return ["--workload", "sleeps.py:workload", "--database-url", database_url, *load]


def test_a_regression_fails_the_gate_and_the_same_code_does_not(
    command: Command, workload: list[str], tmp_path: Path
) -> None:
    first = command(*workload, "--out", "json=main.json")
    assert first.returncode == 0, first.stderr
    gate = [*workload, "--baseline", "main.json", "--compare-fail", CHECK, "--out"]

    same = command(*gate, "json=this.json")
    assert same.returncode == 0, same.stderr
    assert f"holds  {CHECK}" in same.stdout

    slow = command(*gate, "json=slow.json", "--junit", "gate.xml", NAP="0.4")
    assert slow.returncode == 98
    assert f"worse than the baseline: {CHECK}: regression, " in slow.stderr
    assert "against the baseline  main.json" in slow.stdout
    (change,) = json.loads((tmp_path / "slow.json").read_text())["baseline"]["changes"]
    assert change["finding"] == "regression"
    assert 0.8 < change["low"] < change["change"] < change["high"]
    assert f'name="baseline {CHECK}"' in (tmp_path / "gate.xml").read_text()

    again = command("report", "slow.json")
    assert "regression" in again.stdout


def test_a_baseline_alone_shows_and_fails_nothing(
    command: Command, workload: list[str], tmp_path: Path
) -> None:
    command(*workload, "--out", "json=main.json")
    slow = command(*workload, "--concurrency", "9", "--baseline", "main.json", NAP="0.4")
    assert slow.returncode == 0, slow.stderr
    assert "regression  op_duration{op:nap}:med:10%" in slow.stdout
    assert "regression  ops:rate:10%" in slow.stdout
    assert "--concurrency: 9 now, 8 in the baseline" in slow.stdout


def test_too_few_operations_are_not_measured(command: Command, workload: list[str]) -> None:
    short = [*workload, "--duration", "0.5s"]
    command(*short, "--out", "json=main.json")
    done = command(*short, "--baseline", "main.json", "--compare-fail", CHECK, NAP="0.4")
    assert done.returncode == 112, "what was asked for is not known to hold"
    assert "too few data: a run must last two seconds or more" in done.stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--baseline", "nowhere.json"], "cannot read nowhere.json"),
        (["--baseline", "sleeps.py"], "sleeps.py is damaged"),
        (["--compare-fail", CHECK], "--compare-fail needs a --baseline"),
        (["--baseline", "x", "--compare-fail", "op_duration:p(95)"], "▶p(95): expected a"),
        (["--baseline", "x", "--compare-fail", "db_time:p(95):1%"], "compared with a baseline"),
    ],
)
def test_a_wrong_one_is_refused_before_the_run(
    command: Command, workload: list[str], argv: list[str], message: str
) -> None:
    done = command(*workload, *argv)
    assert done.returncode == 104
    assert message in done.stderr
    assert "done" not in done.stdout
