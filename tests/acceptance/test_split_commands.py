"""`--processes` with every command that takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Command

NOOP = ("--workload", "noop", "--processes", "2", "--progress", "none")


def test_a_run_of_a_comparison_is_split(command: Command, tmp_path: Path) -> None:
    way = ("--modes", "chunks", "--rounds", "1", "--ops", "101")
    done = command("compare", *NOOP, *way, "--out", "json=x")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads((tmp_path / "x").read_text())["runs"]
    assert run["mode"] == "chunks"
    assert [shard["completed"] for shard in run["shards"]] == [51, 50]


@pytest.mark.soak
def test_a_sweep_splits_the_steps_that_can_be(command: Command, tmp_path: Path) -> None:
    steps = ("--steps", "1", "--steps", "4", "--duration", "0.2s", "--warmup", "1")
    done = command("sweep", *NOOP, *steps, "--out", "json=x")
    assert done.returncode in (0, 99), done.stderr
    runs = json.loads((tmp_path / "x").read_text())["runs"]
    assert [len(run["shards"]) for run in runs] == [0, 2]


def test_sqlite_can_be_shared(command: Command, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/file.db"
    argv = ("--ops", "60", "--concurrency", "4", "--processes", "2", "--database-url", url)
    done = command(*argv, "--out", "json=x")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "x").read_text())
    assert document["operations"]["completed"] == 60
    assert document["pool"]["size"] == 4


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["--processes", "2", "--mode", "threads"], "--mode threads is one process"),
        (["--processes", "4", "--concurrency", "2"], "cannot share a concurrency of 2"),
        (["--processes", "many"], "--processes: a number of processes"),
    ],
)
def test_what_cannot_be_split_is_one_line(command: Command, argv: list[str], hint: str) -> None:
    done = command("--workload", "noop", *argv)
    assert done.returncode == 104
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_raised_below_is_said_in_flags(command: Command) -> None:
    done = command("--workload", "noop", "--ops", "9", "--processes", "4", "--pool-size", "2")
    assert done.returncode == 104
    assert done.stderr.splitlines()[-1] == (
        "async_loader: --processes 4 cannot share a --pool-size of 2: each needs one"
    )
