"""A workload with rows of a file and arguments, as a user runs it, in one process and in two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.conftest import Command

WORKLOAD = """
import os
from async_loader import OperationContext, Workload, feed

workload = Workload("shop")
users = feed("users.csv", order="unique", types={"id": int})
path = workload.argument("path", "none")
times = workload.argument("times", 1)

@workload.operation("buy")
async def buy(op: OperationContext) -> None:
    with open(path.value, "a") as file:
        file.write(f"{users.row(op)['id']} " * times.value)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(WORKLOAD)
    (tmp_path / "users.csv").write_text("id\n" + "".join(f"{n}\n" for n in range(101)))
    return tmp_path


def test_rows_are_shared_by_processes(command: Command, folder: Path) -> None:
    """Each row once, the warm-up's with them; the end of the file is the end of the run."""
    options = ("--arg", "path=out", "--out", "json=run.json")
    done = command("-w", "shop.py", "--processes", "2", "--warmup", "10", *options)
    assert done.returncode == 0, done.stderr
    assert sorted(map(int, (folder / "out").read_text().split())) == list(range(101))
    assert "the run was over early: users.csv is exhausted: it has 101 rows" in done.stdout
    found = json.loads((folder / "run.json").read_text())
    assert found["ended_by"] == "users.csv is exhausted: it has 101 rows"
    assert found["operations"]["completed"] == found["operations"]["planned"] == 91


def test_arguments_by_every_way(command: Command, folder: Path) -> None:
    (folder / "load.toml").write_text('arg = ["path=from_file"]\n')
    assert command("-w", "shop.py", "--ops", "2", "--config", "load.toml").returncode == 0
    assert (folder / "from_file").read_text().split() == ["0", "1"]
    done = command("-w", "shop.py", "--ops", "1", ASYNC_LOADER_ARG="path=from_env,times=3")
    assert done.returncode == 0
    assert (folder / "from_env").read_text().split() == ["0", "0", "0"]
    for given, said in (
        ("times=many", "the argument times is a whole number, not 'many'"),
        ("size=1", "workload 'shop' has no argument 'size': it has path, times"),
    ):
        done = command("-w", "shop.py", "--ops", "1", "--arg", given)
        assert (done.returncode, done.stdout) == (104, "")
        assert done.stderr.splitlines()[-1].endswith(said)


def test_a_file_that_is_wrong_is_one_line(command: Command, folder: Path) -> None:
    (folder / "users.csv").write_text("name\nx\n")
    done = command("-w", "shop.py", "--ops", "1")
    assert (done.returncode, done.stdout) == (107, "")
    said = "feed: users.csv:2 has no column 'id': there are name"
    assert done.stderr.splitlines()[-1].endswith(said)
    assert "Traceback" not in done.stderr
