"""What a workload, a terminal or a shell does to stdout and stderr, and what the command keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Command, environment

TALKATIVE = """
import asyncio, contextlib, io, logging, os, subprocess, sys
from async_loader import Workload

workload = Workload("talk\\u00e9")

@workload.setup
async def seed():
    print("said by the set-up")
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)
    subprocess.run(["echo", "said by a child"], check=True)
    os.write(1, b"said by a descriptor\\n")

@workload.operation("talk")
async def talk(op):
    await asyncio.sleep(0.001)
    if op.index == 5:
        print("said by an operation")
        logging.getLogger("shop").info("logged by an operation")
    if op.index == 6:
        raise ValueError("no caf\\udce9 here")
    {odd}

@workload.teardown
async def clear():
    with contextlib.suppress(ValueError):
        print("said by the tear-down")
"""
SAID = ["by the set-up", "by a child", "by a descriptor", "by an operation", "by the tear-down"]


@pytest.fixture
def talkative(tmp_path: Path) -> Callable[[str], list[str]]:
    """Return how a workload is run that prints, and does something odd to the streams besides."""

    def arguments(odd: str = "pass") -> list[str]:
        (tmp_path / "talk.py").write_text(TALKATIVE.replace("{odd}", odd))
        return ["-w", "talk.py", "--ops", "40", "--max-error-rate", "1"]

    return arguments


@pytest.mark.parametrize("split", [[], ["--processes", "2"]], ids=["one", "two"])
@pytest.mark.parametrize("target", ["-", "/dev/stdout"])
def test_what_others_print_is_in_no_document(
    command: Command,
    talkative: Callable[[], list[str]],
    split: list[str],
    target: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # a pipe is not written line by line
    done = command(*talkative(), *split, "--out", f"json={target}")
    assert json.loads(done.stdout)["operations"]["completed"] == 39, done.stderr
    assert [said for said in SAID if said not in done.stderr] == []


@pytest.mark.parametrize(
    "of_many",
    [
        ["compare", "--modes", "semaphore", "--rounds", "1", "--ops", "40"],
        ["sweep", "--steps", "1", "--ops", "40"],
    ],
)
def test_nor_is_it_in_the_answer_of_one_of_many_runs(
    command: Command, talkative: Callable[[], list[str]], of_many: list[str]
) -> None:
    done = command(*of_many, *talkative()[:2], "--out", "json=-")
    assert len(json.loads(done.stdout)["runs"]) == 1, done.stderr
    assert [said for said in SAID if said not in done.stderr] == []


@pytest.mark.parametrize(
    "odd",
    [
        "op.index == 20 and sys.stdout.close()",
        "op.index == 20 and (sys.stdout.close(), sys.stderr.close())",
        "op.index == 20 and (os.close(1), os.close(2))",
        "sys.stdout = None",
        "sys.stdout = sys.stderr = io.StringIO()",
        "with contextlib.redirect_stdout(io.StringIO()): await asyncio.sleep(op.index % 5 / 1e3)",
    ],
)
def test_the_report_goes_to_the_stdout_of_the_beginning(
    command: Command, talkative: Callable[[str], list[str]], tmp_path: Path, odd: str
) -> None:
    done = command(*talkative(odd), "--out", "json=found.json")
    assert "operations in" in done.stdout, done.stderr
    assert json.loads((tmp_path / "found.json").read_text())["outcome"] == "done"


@pytest.mark.parametrize(
    "encoding",
    [
        *("latin-1", "ascii", "utf-16"),
        *(pytest.param(name, marks=pytest.mark.soak) for name in ("cp1252", "utf-8", "koi8-r")),
    ],
)
def test_what_a_terminal_cannot_show_is_replaced(
    talkative: Callable[[], list[str]], tmp_path: Path, encoding: str
) -> None:
    files = ["--out", "json=found.json", "--out", "html=found.html", "--junit", "found.xml"]
    done = subprocess.run(
        [sys.executable, "-m", "async_loader", *talkative(), *files],
        capture_output=True,
        cwd=tmp_path,
        env=environment(PYTHONIOENCODING=encoding),
        check=False,
        timeout=60,
    )
    shown = done.stdout.decode(encoding)
    assert done.returncode == 0, done.stderr
    assert r"no caf\udce9 here" in shown
    assert "talké" in shown or "talk?" in shown
    assert json.loads((tmp_path / "found.json").read_text())["errors"]
    assert r"no caf\udce9 here" in (tmp_path / "found.html").read_text(encoding="utf-8")
    assert (tmp_path / "found.xml").stat().st_size


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_shell_may_have_closed_any(
    talkative: Callable[[], list[str]], tmp_path: Path, closed: str
) -> None:
    words = " ".join(talkative())
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m async_loader {words} --out json=found.json {closed}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        check=False,
        timeout=60,
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert (done.returncode, found["operations"]["completed"]) == (0, 39), done.stderr
    assert (">&-" in closed.replace("2>&-", "")) == ("operations in" not in done.stdout)


def test_who_does_not_listen_to_stderr_has_a_report(
    talkative: Callable[[], list[str]], tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "async_loader", *talkative()],
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
        cwd=tmp_path,
        env=environment(),
        check=False,
        timeout=60,
    )
    os.close(writing)
    assert "operations in" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize(
    "others", [["--out", "json=one", "--junit", "one"], ["--html", "one", "--out", "json=./two"]]
)
def test_one_file_holds_one_document(command: Command, tmp_path: Path, others: list[str]) -> None:
    (tmp_path / "two").symlink_to("one")
    done = command("--workload", "noop", "--ops", "10", *others)
    assert done.returncode == 104
    assert "is written there already" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_link_stays_and_its_file_keeps_its_mode(command: Command, tmp_path: Path) -> None:
    (tmp_path / "of today.json").write_text("old")
    (tmp_path / "of today.json").chmod(0o640)
    (tmp_path / "latest.json").symlink_to("of today.json")
    assert command("--workload", "noop", "--ops", "10", "--out", "json=latest.json").returncode == 0
    assert (tmp_path / "latest.json").is_symlink()
    assert json.loads((tmp_path / "of today.json").read_text())["outcome"] == "done"
    assert (tmp_path / "of today.json").stat().st_mode & 0o777 == 0o640


def test_a_relative_file_is_where_the_command_was_started(
    command: Command, talkative: Callable[[str], list[str]], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    files = ["--out", "json=found.json", "--html", "found.html"]
    done = command(*talkative("os.chdir(os.environ['PWD_THEN'])"), *files,
                   PWD_THEN=str(tmp_path / "elsewhere"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (tmp_path / "found.json").exists()
    assert (tmp_path / "found.html").exists()


def test_who_reads_the_report_does_not_wait_for_what_the_workload_has_forked(
    talkative: Callable[[str], list[str]], tmp_path: Path
) -> None:
    forks = "child = os.fork() if op.index == 7 else 1\n    if child > 1: print('child', child)"
    forks += "\n    if not child: import time; time.sleep(60); os._exit(0)"
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "async_loader", *talkative(forks)],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        output, _ = process.communicate(timeout=40)
    said = (tmp_path / "errors").read_text()
    child = int(said.partition("child ")[2].split()[0])
    os.kill(child, signal.SIGKILL)  # it was still there
    assert "operations in" in output, said
