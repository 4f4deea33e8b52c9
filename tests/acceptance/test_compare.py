"""`async_loader compare`: the same work in every way, one table, one chart."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from async_loader import RunResult

from .conftest import Command, environment


def test_every_way_does_the_same_work(command: Command, database_url: str, tmp_path: Path) -> None:
    done = command(
        "compare", "--ops", "120", "--concurrency", "6", "--rounds", "1",
        "--database-url", database_url, "--out", "json=x", "--progress", "none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "connections in use" in done.stdout
    assert "in every run" in done.stdout
    document = json.loads((tmp_path / "x").read_text())
    assert document["schema"] == 1
    runs = [RunResult.from_dict(run) for run in document["runs"]]
    modes = ["semaphore", "chunks", "unbounded", "sync", "threads"]
    assert [run.mode for run in runs] == modes
    assert len({(run.count_of("write"), run.count_of("read")) for run in runs}) == 1
    assert all(run.completed == 120 for run in runs)
    peaks = {run.mode: run.pool.peak_in_use for run in runs if run.pool}
    assert peaks["sync"] == 1
    assert peaks["threads"] <= 6
    for mode in modes:
        assert f"\n {mode} " in done.stdout


@pytest.mark.parametrize("mode", ["chunks", "sync"])
def test_on_sqlite_too(command: Command, mode: str) -> None:
    done = command("--ops", "40", "--mode", mode, "--database-url", "sqlite:///x.db")
    assert done.returncode == 0, done.stderr
    assert "SQLite" in done.stdout
    if mode == "chunks":
        assert "SQLite lets one transaction write at a time" in done.stdout


def test_modes_are_chosen_and_checked(command: Command, tmp_path: Path) -> None:
    argv = ["compare", "--workload", "noop", "--ops", "10", "--rounds", "2", "--progress", "none"]
    done = command(*argv, "--modes", "chunks", "--modes", "threads", "--out", "json=x")
    assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "x").read_text())["runs"]
    assert [run["mode"] for run in runs] == ["chunks", "threads"] * 2, "in turns"
    assert "x chunks" in done.stdout
    assert "semaphore" not in done.stdout
    wrong = command(*argv, "--modes", "chunk")
    assert wrong.returncode == 104
    assert "did you mean chunks?" in wrong.stderr


def test_what_ends_a_run_ends_the_comparison(command: Command) -> None:
    done = command("compare", "--database-url", "postgresql://u:hunter2@/d?host=/nowhere")
    assert done.returncode == 110
    assert done.stderr.splitlines()[-1].startswith("async_loader: no server's socket")
    assert "hunter2" not in done.stderr
    assert done.stdout == ""


def under_way(tmp_path: Path, *argv: str) -> subprocess.Popen[str]:
    """Return a command that is at its first run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "async_loader", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if " s  " in line:  # its progress
            break
    return process


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)]
)
def test_a_signal_ends_it_with_what_there_is(tmp_path: Path, number: signal.Signals) -> None:
    process = under_way(tmp_path, "compare", "--workload", "noop", "--duration", "9s")
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 105, errors
    assert "\n semaphore " in output
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "workload", [pytest.param("noop", marks=pytest.mark.soak), "mine.py:workload"]
)
def test_no_run_outlives_a_command_that_is_killed(tmp_path: Path, workload: str) -> None:
    (tmp_path / "mine.py").write_text(
        "import asyncio\n"
        "from async_loader import Workload\n"
        "workload = Workload('mine')\n"
        "@workload.operation('wait')\n"
        "async def wait():\n"
        "    await asyncio.sleep(0.01)\n"
    )
    argv = ("compare", "--workload", workload, "--modes", "semaphore", "--duration", "60s")
    process = under_way(tmp_path, *argv)
    runs = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=30)
    assert runs
    _, alive = psutil.wait_procs(runs, timeout=30)
    assert not alive
