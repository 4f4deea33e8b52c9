"""`async_loader sweep`, as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from async_loader import RunResult

from .conftest import Command, environment


def test_steps_of_concurrency_on_a_database(
    command: Command, database_url: str, tmp_path: Path
) -> None:
    done = command(
        "sweep", "--steps", "1,3,6", "--ops", "60", "--warmup", "6", "--progress", "none",
        "--database-url", database_url, "--out", "json=x", "--html", "x.html",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "step 3: concurrency 6" in done.stderr
    assert "The knee: --concurrency" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    document = json.loads((tmp_path / "x").read_text())
    runs = [RunResult.from_dict(run) for run in document["runs"]]
    assert [run.settings["concurrency"] for run in runs] == [1, 3, 6]
    assert all(run.completed == 60 for run in runs)
    assert [run.pool.size for run in runs if run.pool] == [1, 3, 6]
    assert document["sweep"]["advice"]["level"] in (1, 3, 6)
    assert (tmp_path / "x.html").stat().st_size > 10_000
    again = command("report", "x")
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout


def test_steps_of_a_rate_that_nothing_keeps_up_with(command: Command, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import asyncio\n"
        "from async_loader import Workload\n"
        "workload = Workload('slow')\n"
        "@workload.operation('wait', kind='read')\n"
        "async def wait():\n"
        "    await asyncio.sleep(0.1)\n"
    )
    done = command(
        "sweep", "--by", "rate", "--steps", "20/s,40/s", "--duration", "500ms", "--warmup", "1",
        "--latency-limit", "50ms", "--workload", "slow.py:workload", "--progress", "none",
    )  # fmt: skip
    # On a busy machine nobody can tell.
    assert done.returncode in (99, 112), done.stderr
    assert "no step is good" in done.stderr
    # Over the limit; on a busy machine also not kept up with.
    assert "No step is good under 50 ms: at 20/s already, " in done.stdout
    assert "step 2" not in done.stderr


def test_a_calibration_measures_latencies_below_the_throughput_that_it_finds(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "calm.py").write_text(
        "import asyncio\nfrom async_loader import Workload\nworkload = Workload('calm')\n"
        "@workload.operation('sleep', kind='read')\n"
        "async def sleep() -> None: await asyncio.sleep(0.02)\n"
    )
    done = command(
        "--calibrate", "-w", "calm.py", "--duration", "1s", "--concurrency", "4",
        "--progress", "none", "--out", "json=x", "--out", "junit=y",
    )  # fmt: skip
    assert done.returncode in (0, 112), done.stderr  # the machine may be too busy to tell
    assert "At full speed, closed, 4 users: " in done.stdout
    full, *below = json.loads((tmp_path / "x").read_text())["runs"]
    assert [run["mode"] for run in (full, *below)] == ["semaphore", "open", "open", "open"]
    for run, share in zip(below, (0.5, 0.7, 0.9), strict=True):
        rate = float(run["settings"]["rate"].removesuffix("/s"))
        assert rate == pytest.approx(share * full["throughput"], abs=0.6)
        assert run["settings"]["rate"] in done.stdout
    assert len(ET.parse(tmp_path / "y").getroot()) == 4


def test_a_calibration_of_what_fails_is_failed(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from async_loader import Workload\nworkload = Workload('bad')\n"
        "@workload.operation('fail', kind='read')\nasync def fail() -> None: 1 / 0\n"
    )
    argv = ["--calibrate", "-w", "bad.py", "--ops", "50", "--progress", "none"]
    done = command(*argv)
    assert done.returncode == 1, done.stderr
    assert "ZeroDivisionError" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.soak), signal.SIGTERM]
)
def test_a_signal_ends_it_with_what_there_is(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "async_loader", "sweep", "--workload", "noop", "--duration", "9s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if " s  " in line:  # the first step's progress
            break
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 105, errors
    assert " 1 " in output
    assert "Traceback" not in errors
