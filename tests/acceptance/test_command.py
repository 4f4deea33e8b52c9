"""`python -m async_loader`: what it prints, where, and what it ends with."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader import RunResult
from async_loader.database.embedded.locks import is_held

from .conftest import Command, environment


def one_line(process: subprocess.CompletedProcess[str]) -> str:
    """Return the complaint, having checked that it is one line and no traceback."""
    assert process.stdout == ""
    lines = process.stderr.splitlines()
    complaint = lines[-1]
    assert complaint.startswith("async_loader: "), process.stderr
    assert "Traceback" not in process.stderr
    assert sum(line.startswith("async_loader: ") for line in lines) == 1
    return complaint


async def test_a_run_reports_what_the_database_holds(
    command: Command, database_url: str, engine: AsyncEngine, tmp_path: Path
) -> None:
    done = command(
        "--ops", "400", "--concurrency", "8", "--database-url", database_url,
        "--keep-data", "--out", "json=result.json", "--seed", "5",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^done  400 operations in [\d.]+ s: [\d,]+ operations/s$", done.stdout, re.M)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout + done.stderr
    document = json.loads((tmp_path / "result.json").read_text())
    result = RunResult.from_dict(document)
    assert result.completed == result.planned == 400
    created, read = (result.by_operation[name].count for name in ("create", "read"))
    assert f"created {created}, read {read}" in done.stdout
    async with engine.connect() as connection:
        schema = document["environment"]["database"]["kept"]
        parents = await connection.scalar(text(f"SELECT count(*) FROM {schema}.parent"))
        children = await connection.scalar(text(f"SELECT count(*) FROM {schema}.child"))
    assert (parents, children) == (3 * created, 5 * created)
    assert document["settings"]["seed"] == 5
    assert document["environment"]["database"]["settings"]["fsync"] == "on"
    assert (document["pool"]["size"], document["pool"]["peak_in_use"]) == (8, 8)


async def test_nothing_is_left_in_the_database(
    command: Command, database_url: str, engine: AsyncEngine
) -> None:
    assert command("--ops", "20", "--database-url", database_url).returncode == 0
    async with engine.connect() as connection:
        left = await connection.scalars(
            text("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'async_loader%'")
        )
        assert left.all() == []


def test_the_embedded_server_starts_and_stops(command: Command, server_directory: Path) -> None:
    home = server_directory / "from-nothing"
    for _ in range(2):
        done = command("--ops", "20", "--server-directory", str(home))
        assert done.returncode == 0, done.stderr
        assert "(embedded), fsync on, synchronous_commit on" in done.stdout
        assert not is_held(home / "server.lock"), "the last user stops the server"


def test_json_on_stdout_is_all_that_is_there(command: Command) -> None:
    done = command("--workload", "noop", "--ops", "50", "--out", "json=-")
    assert json.loads(done.stdout)["operations"]["completed"] == 50
    assert "done  50 operations" in done.stderr


@pytest.mark.parametrize(
    ("argv", "code", "hint"),
    [
        (["--concurency", "4"], 104, "did you mean --concurrency?"),
        (["--out", "json=/nowhere/x"], 104, "cannot write a file there"),
        (["--workload", "noop", "--write-ratio", "0.5"], 104, "needs a write operation"),
        (["--database-url", "postgresql://u:hunter2@/d?host=/no"], 110, "is the server running"),
        (["--database-url", "mysql://u:hunter2@h/d"], 104, "use postgresql://"),
        (["--database-url", "hunter2"], 104, "looks like postgresql://"),
        (["--database-url", "sqlite:////nowhere/x.db"], 110, "unable to open database file"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(command: Command, argv: list[str], code: int, hint: str) -> None:
    done = command(*argv)
    assert done.returncode == code
    complaint = one_line(done)
    assert hint in complaint
    assert "hunter2" not in done.stderr


def test_debug_shows_where(command: Command) -> None:
    url = "postgresql://u:hunter2@/d?host=/nowhere"
    done = command("--database-url", url, "--debug")
    assert done.returncode == 110
    assert "Traceback" in done.stderr
    assert "hunter2" not in done.stderr


async def test_too_many_failures_are_exit_1(
    command: Command, database_url: str, engine: AsyncEngine
) -> None:
    """Every commit of a write is refused: a read-only database, but for the run's set-up."""
    argv = ["--ops", "200", "--write-ratio", "0.5", "--op-timeout", "1us", "--database-url"]
    done = command(*argv, database_url)
    assert done.returncode == 1, done.stderr
    assert "of the operations failed, more than 1.00%" in done.stderr
    assert "timeout" in done.stdout
    assert command(*argv, database_url, "--max-error-rate", "100%").returncode == 0


def start(*argv: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "async_loader", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment(),
    )


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stderr is not None
    for found in process.stderr:
        if line in found:
            return
    raise AssertionError(f"never printed {line!r}")


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.soak), signal.SIGTERM]
)
def test_a_signal_drains_and_prints_the_partial_report(
    database_url: str, tmp_path: Path, number: signal.Signals
) -> None:
    argv = ["--duration", "10m", "--concurrency", "4", "--database-url", database_url]
    process = start(*argv, "--out", "json=x", cwd=tmp_path)
    wait_for(process, " s  ")  # the first line of progress
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 105, errors
    assert "interrupted  " in output
    assert "Traceback" not in errors
    result = RunResult.from_dict(json.loads((tmp_path / "x").read_text()))
    assert (result.failed, result.indeterminate) == (0, 0)
    assert result.completed > 0


def test_a_signal_before_the_run_ends_it(server_directory: Path, tmp_path: Path) -> None:
    home = server_directory / "interrupted"
    process = start("--server-directory", str(home), cwd=tmp_path)
    wait_for(process, "starting the embedded PostgreSQL")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (105, "")
    assert errors.splitlines()[-1] == "async_loader: stopped"
    assert not is_held(home / "server.lock")


def test_a_terminal_gets_a_bar_and_colour(tmp_path: Path) -> None:
    text = on_terminal("--workload", "noop", "--duration", "1s", cwd=tmp_path)
    assert "━" in text
    assert "\x1b[1;32mdone" in text
    plain = on_terminal("--workload", "noop", "--ops", "5", cwd=tmp_path, NO_COLOR="1")
    assert "\x1b[1;32m" not in plain
    assert "done  5 operations" in plain


def on_terminal(*argv: str, cwd: Path, **extra: str) -> str:
    """Return what a command prints on a real terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "async_loader", *argv],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env=environment(TERM="xterm-256color", COLUMNS="200", **extra),
    )
    os.close(theirs)
    chunks = []
    with suppress(OSError):  # EIO: the other end is closed
        while chunk := os.read(ours, 65536):
            chunks.append(chunk)
    os.close(ours)
    assert process.wait(timeout=30) == 0
    return b"".join(chunks).decode()


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    process = start("--workload", "noop", "--ops", "5", cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) != 0


def test_thresholds_decide(command: Command) -> None:
    argv = ["--workload", "noop", "--ops", "200", "--threshold"]
    done = command(*argv, "ops:count==200", "--threshold", "op_duration{op:noop}:p(95)<1s")
    assert done.returncode == 0, done.stderr
    assert "holds  ops:count==200  (found 200)" in done.stdout
    broken = command(*argv, "ops:count>200")
    assert broken.returncode == 99
    assert "a threshold does not hold: ops:count>200" in broken.stderr
    wrong = command(*argv, "ops:p(95)<1")
    assert wrong.returncode == 104
    assert "ops:▶p(95)<1" in wrong.stderr


def test_documents_for_ci(command: Command, tmp_path: Path) -> None:
    done = command(
        "--workload", "noop", "--ops", "50", "--threshold", "ops:count==50",
        "--junit", "gate.xml", "--out", "markdown=summary.md",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'tests="3" failures="0"' in (tmp_path / "gate.xml").read_text()
    assert "| `ops:count==50` | 50 | holds |" in (tmp_path / "summary.md").read_text()
    wrong = command("inserts", "--out", "junit=x.xml")
    assert wrong.returncode == 104
    assert "this command writes json" in wrong.stderr
    nowhere = command("--workload", "noop", "--junit", "no/such/folder.xml")
    assert nowhere.returncode == 104
    assert "cannot write a file there" in nowhere.stderr
