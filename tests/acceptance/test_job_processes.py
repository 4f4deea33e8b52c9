"""`job run --processes`: one run by several processes, whichever of them die."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader.jobs import status
from async_loader.jobs.tables import LOCK_CLASS
from tests.counting import fill, tally

from .conftest import Command
from .test_job_kills import TARGET, end, finish, start

FULL = pytest.param(200, id="200", marks=pytest.mark.soak)
# So that a run lasts while its processes are looked at and killed.
SLOW = {"COUNTING_CHUNK": "20", "COUNTING_PAUSE": "0.02"}
ROWS = 6_000


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes that a command has started to work for it."""
    found = []
    for child in psutil.Process(process.pid).children():
        try:
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            pass
    return found


async def at_work(engine: AsyncEngine, process: subprocess.Popen[str], number: int) -> bool:
    """Wait until so many processes have joined the run; False if it has ended before."""
    query = text(
        "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory'"
        f" AND objsubid = 2 AND classid = {LOCK_CLASS}"
    )
    async with engine.connect() as connection:
        while process.poll() is None:
            if (await connection.scalar(query) or 0) >= number:
                return True
            await asyncio.sleep(0.01)
    return False


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kills", [2, FULL])
async def test_workers_killed_at_random_points(
    database_url: str, engine: AsyncEngine, kills: int
) -> None:
    """Of three processes up to two die in each run, and the last one has all to do."""
    await fill(engine, ROWS)
    rng = random.Random(kills)
    done = passes = said = 0
    while done < kills:
        process = start(database_url, "--processes", "3", **SLOW)
        try:
            killed = 0
            while killed < 2 and done < kills and await at_work(engine, process, 3 - killed):
                await asyncio.sleep(rng.uniform(0, 0.3))
                if victims := workers_of(process):
                    rng.choice(victims).kill()
                    killed, done = killed + 1, done + 1
            _, errors = process.communicate(timeout=300)
        finally:
            end(process)
        assert process.returncode == 0, errors
        said += errors.count("was killed by SIGKILL: what it had begun is the others'")
        passes += 1
        assert await tally(engine) == {passes: ROWS}
    assert 0 < said <= kills, "one that had nothing more to do is not missed"


@pytest.mark.soak
async def test_when_all_are_killed_the_next_goes_on(database_url: str, engine: AsyncEngine) -> None:
    await fill(engine, ROWS)
    process = start(database_url, "--processes", "2", **SLOW)
    try:
        assert await at_work(engine, process, 2)
        for worker in workers_of(process):
            worker.kill()
        _, errors = process.communicate(timeout=30)
    finally:
        end(process)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == (
        "async_loader: no worker is left on run 1: `job run` goes on with it"
    )
    finish(start(database_url))
    assert await tally(engine) == {1: ROWS}


async def test_ctrl_c_pauses_all_of_them(database_url: str, engine: AsyncEngine) -> None:
    """A terminal sends it to the whole group; the workers leave it to the one that asked them."""
    await fill(engine, ROWS)
    process = start(database_url, "--processes", "2", "--workers", "2", **SLOW)
    try:
        assert await at_work(engine, process, 2)
        assert (await status(engine, "counting")).tasks == 4
        for worker in workers_of(process):
            os.kill(worker.pid, signal.SIGINT)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    finally:
        end(process)
    assert process.returncode == 105, errors
    assert errors == ""
    assert "paused by SIGINT: `job run` goes on with it" in output
    paused = await status(engine, "counting")
    assert (paused.state, paused.rows_read) == ("paused", (await tally(engine)).get(1, 0))
    finish(start(database_url))
    assert await tally(engine) == {1: ROWS}


@pytest.mark.soak
async def test_a_killed_command_leaves_no_worker(database_url: str, engine: AsyncEngine) -> None:
    await fill(engine, ROWS)
    process = start(database_url, "--processes", "2", **SLOW)
    workers = []
    try:
        assert await at_work(engine, process, 2)
        workers = workers_of(process)
        assert len(workers) == 2
    finally:
        end(process)
    _, alive = psutil.wait_procs(workers, timeout=15)
    assert alive == []
    finish(start(database_url))
    assert await tally(engine) == {1: ROWS}


async def test_the_row_that_fails_is_named(
    command: Command, database_url: str, engine: AsyncEngine, tmp_path: Path
) -> None:
    await fill(engine, 300)
    (tmp_path / "own.py").write_text(FAILING)
    done = command("job", "run", "own.py:job", "--processes", "2", "--database-url", database_url)
    assert done.returncode == 1
    assert "mine stopped at the row id=5: ValueError: five" in done.stderr.splitlines()[-1]
    assert (await status(engine, "mine")).state == "failed"


FAILING = """
from sqlalchemy import select
from async_loader.jobs import BatchJob
from tests.counting import Counter

job = BatchJob("mine", select=select(Counter))

@job.apply
async def apply(session, counters):
    if any(counter.id == 5 for counter in counters):
        raise ValueError("five")
"""


@pytest.mark.parametrize(
    ("way", "error", "processes"),
    [
        ("gather", "SystemExit(0)", "1"),
        ("gather", "SystemExit(0)", "2"),
        ("gather", "KeyboardInterrupt()", "2"),
        ("listener", "SystemExit(0)", "1"),
        ("listener", "SystemExit(0)", "2"),
    ],
)
async def test_an_exit_of_an_application_s_code_is_no_end_of_ours(
    command: Command, database_url: str, engine: AsyncEngine, tmp_path: Path, *,
    way: str, error: str, processes: str,
) -> None:  # fmt: skip
    """It ended the worker, and with exit code 0 and no word the command."""
    await fill(engine, 300)
    (tmp_path / "own.py").write_text(EXITING)
    words = {"WAY": way, "ERROR": error}
    url = ["--database-url", database_url]
    done = command("job", "run", "own.py:job", "--processes", processes, *url, **words)
    assert done.returncode == 1, done.stderr
    by = error.removesuffix("()")
    assert f"raised {by}; the rows up to id=" in done.stderr.splitlines()[-1]
    assert (await status(engine, "mine")).state == "failed"


async def test_an_exit_while_errors_are_retried_is_told(
    command: Command, database_url: str, engine: AsyncEngine, tmp_path: Path
) -> None:
    await fill(engine, 300)
    (tmp_path / "own.py").write_text(EXITING)
    url = ["--database-url", database_url]
    words = {"WAY": "gather", "ERROR": "ValueError()"}
    assert command("job", "run", "own.py:job", *url, SKIP="1", **words).returncode == 0
    words["ERROR"] = "SystemExit(0)"
    done = command("job", "retry-errors", "own.py:job", *url, **words)
    assert done.returncode == 1
    assert "apply raised SystemExit(0); the row id=5: rolled back" in done.stderr


EXITING = """
import asyncio, os
from sqlalchemy import event, select
from sqlalchemy.orm import Session
from async_loader.jobs import BatchJob
from tests.counting import Counter

skip = int(os.environ.get("SKIP", "0"))
job = BatchJob("mine", select=select(Counter), partitions=1, skip_limit=skip)
way, error = os.environ["WAY"], eval(os.environ["ERROR"])

async def child(counter):
    await asyncio.sleep(0)
    if counter.id == 5:
        raise error

@event.listens_for(Session, "before_flush")
def listener(session, *_):
    if way == "listener" and any(getattr(row, "id", 0) == 5 for row in session.dirty):
        raise error

@job.apply
async def apply(session, counters):
    for counter in counters:
        counter.n += 1
    if way == "gather":
        await asyncio.gather(*map(child, counters))
"""


def test_sqlite_has_one_writer(command: Command, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'counters.db'}"
    done = command("job", "run", TARGET, "--processes", "2", "--database-url", url)
    assert done.returncode == 104
    assert done.stderr == ("async_loader: SQLite has one writer: run the job in one process\n")
