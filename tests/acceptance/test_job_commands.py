"""`async_loader job ...` as a user types it."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader.jobs import status
from tests.counting import fill, tally

from .conftest import Command, environment
from .test_job_kills import TARGET, at_work, end, start

OWN_JOB = """
from sqlalchemy import select
from async_loader.jobs import BatchJob
from tests.counting import Counter

job = BatchJob("mine", select=select(Counter), skip_limit=int(open("limit").read()))

@job.apply
async def apply(session, counters):
    for counter in counters:
        if counter.id == 5 and open("bad").read() == "1":
            raise ValueError("five")
        counter.n += 1
"""


EXITING_JOB = """
import asyncio
from sqlalchemy import select
from async_loader.jobs import BatchJob
from tests.counting import Counter

job = BatchJob("exiting", select=select(Counter), chunk=10, partitions=1)

def ends():
    raise {end}

@job.apply
async def apply(session, counters):
    for counter in counters:
        counter.n += 1
    if counters[0].id == 11:
        asyncio.get_running_loop().call_soon(ends)
        await asyncio.sleep(0.1)
"""


@pytest.mark.parametrize("end", ["SystemExit(0)", "KeyboardInterrupt"])
async def test_what_exits_in_a_callback_stops_the_run(
    command: Command, database_url: str, engine: AsyncEngine, tmp_path: Path, end: str
) -> None:
    """The loop survives it, and the run would have gone on without a word."""
    await fill(engine, 40)
    (tmp_path / "exiting.py").write_text(EXITING_JOB.format(end=end))
    stopped = command("job", "run", "exiting:job", "--database-url", database_url)
    assert stopped.returncode == 105, stopped.stderr
    paused = await status(engine, "exiting")
    assert paused.state == "paused"
    kind = end.removesuffix("(0)")
    assert re.fullmatch(rf"{kind} at exiting\.py:\d+ in ends", str(paused.message))
    assert await tally(engine) == {0: 20, 1: 20}


def test_the_jobs_that_ship(command: Command, database_url: str) -> None:
    url = ["--database-url", database_url]
    done = command("job", "run", "derive-chords", "--workers", "2", "--arg", "songs=1500", *url)
    assert done.returncode == 0, done.stderr
    assert re.match(r"done  derive-chords \(songs=1500\): 1,500 of 1,500 rows in \d", done.stdout)
    done = command("job", "run", "top20", "--arg", "week=2026-W07", *url)
    assert done.returncode == 0, done.stderr
    listed = command("job", "list", *url)
    assert [line.split()[:2] for line in listed.stdout.splitlines()] == [
        ["2", "top20"],
        ["1", "derive-chords"],
    ]


async def test_a_row_that_fails_is_named_and_can_be_retried(
    command: Command, database_url: str, engine: AsyncEngine, tmp_path: Path
) -> None:
    await fill(engine, 300)
    (tmp_path / "own.py").write_text(OWN_JOB)
    (tmp_path / "limit").write_text("0")
    (tmp_path / "bad").write_text("1")
    url = ["--database-url", database_url]
    failed = command("job", "run", "own:job", *url)
    assert failed.returncode == 1
    assert "mine stopped at the row id=5: ValueError: five" in failed.stderr.splitlines()[-1]
    shown = command("job", "status", "mine", *url)
    assert shown.stdout.startswith("failed  mine: ")
    (tmp_path / "limit").write_text("1")
    done = command("job", "run", "own.py:job", *url)
    assert done.returncode == 0, done.stderr
    assert "skipped 1" in done.stdout
    assert command("job", "retry-errors", "own:job", *url).returncode == 1
    (tmp_path / "bad").write_text("0")
    retried = command("job", "retry-errors", "own:job", *url)
    assert (retried.returncode, retried.stdout) == (0, "mine: 1 repaired, 0 failing\n")
    assert await tally(engine) == {1: 300}


@pytest.mark.parametrize(
    ("argv", "code", "hint"),
    [
        (["run", "tpo20"], 104, "no job 'tpo20': the jobs are top20, derive-chords"),
        (["run", "tests.counting:counting"], 104, "tests.counting has no BatchJob 'counting'"),
        (["run", "nowhere:job"], 107, "No module named 'nowhere'"),
        (["run", TARGET, "--arg", "x"], 104, "--arg: an argument looks like key=value"),
        (["run", TARGET, "--arg", "x=1\n2"], 104, "--arg: an argument is one line of printable"),
        (["run", TARGET, "--arg", "x=1\r"], 104, "--arg: an argument is one line of printable"),
        (["run", TARGET, "--arg", "x=1,x=2"], 104, "--arg: the argument x is given twice"),
        (["run", TARGET, "--arg", "x=1", "--arg", "x=1"], 104, "the argument x is given twice"),
        (["retry-errors", TARGET, "--arg", "x=\t"], 104, "an argument is one line"),
        (["status", "counting"], 1, "no run of 'counting' here"),
        (["pause", "counting"], 1, "no active run of 'counting' here"),
        (["rnu"], 104, "did you mean job run?"),
    ],
)
def test_a_mistake_is_one_line(
    command: Command, database_url: str, argv: list[str], code: int, hint: str
) -> None:
    done = command("job", *argv, "--database-url", database_url)
    assert done.returncode == code, done.stderr
    assert hint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_pauses_and_says_how_to_resume(
    command: Command, database_url: str, engine: AsyncEngine, number: signal.Signals
) -> None:
    await fill(engine, 10_000)
    process = start(database_url, "--workers", "2", COUNTING_CHUNK="20")
    try:
        assert await at_work(engine, process)
        while not (await tally(engine)).get(1):
            await asyncio.sleep(0.01)
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    finally:
        end(process)
    assert process.returncode == 105, errors
    assert f"paused by {number.name}: `job run` goes on with it" in output
    paused = await status(engine, "counting")
    assert (paused.state, paused.rows_read) == ("paused", (await tally(engine))[1])
    done = command("job", "run", TARGET, "--database-url", database_url)
    assert done.returncode == 0, done.stderr
    assert await tally(engine) == {1: 10_000}


async def test_status_and_pause_from_another_terminal(
    command: Command, database_url: str, engine: AsyncEngine
) -> None:
    await fill(engine, 60_000)
    url = ["--database-url", database_url]
    process = start(database_url, COUNTING_CHUNK="20")
    try:
        assert await at_work(engine, process)
        while not (await tally(engine)).get(1):
            await asyncio.sleep(0.01)
        shown = command("job", "status", "counting", *url)
        assert re.match(r"running  counting: [\d,]+ of 60,000 rows", shown.stdout), shown.stdout
        assert "1 at work" in shown.stdout
        paused = command("job", "pause", "counting", *url)
        assert paused.returncode == 0, paused.stderr
        committed = await tally(engine)
        process.communicate(timeout=30)
        assert process.returncode == 105
        assert await tally(engine) == committed
    finally:
        end(process)
    cancelled = command("job", "cancel", "counting", *url)
    assert cancelled.stdout.startswith("cancelled  counting: ")


async def test_a_run_is_watched_until_it_ends_or_nobody_is_at_work(
    command: Command, database_url: str, engine: AsyncEngine
) -> None:
    await fill(engine, 3_000)
    watch = ("job", "status", "counting", "--watch", "--database-url", database_url)
    none = command(*watch)
    assert (none.returncode, none.stderr.count("\n")) == (1, 1), none.stderr
    process = start(database_url, COUNTING_CHUNK="20", COUNTING_PAUSE="0.1")
    begun = [process]
    try:
        assert await at_work(engine, process)
        begun.append(watching := watched(database_url))
        assert await shown(watching, "counting")
        watching.send_signal(signal.SIGINT)
        output, errors = watching.communicate(timeout=30)
        assert watching.returncode == 105, errors
        assert output.startswith("running  counting: ")
        assert process.poll() is None, "only the looking ends"
        begun.append(watching := watched(database_url))
        assert await shown(watching, "counting")
        process.kill()
        output, errors = watching.communicate(timeout=60)
        assert watching.returncode == 105, errors
        assert "interrupted: `job run` goes on with it" in output
    finally:
        for each in begun:
            end(each)
    process = start(database_url)
    try:
        assert await at_work(engine, process)
        seen = command(*watch)
        assert seen.returncode == 0, seen.stderr
        assert seen.stdout.startswith("done  counting: 3,000 of 3,000 rows")
    finally:
        end(process)
    assert await tally(engine) == {1: 3_000}


def watched(url: str) -> subprocess.Popen[str]:
    """Start to watch the counters' run."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "async_loader", "job", "status", "counting", "--watch",
            "--progress", "lines", "--database-url", url,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )  # fmt: skip


async def shown(process: subprocess.Popen[str], word: str) -> bool:
    """Wait for a line of progress; whether the word is in it."""
    assert process.stderr is not None
    return word in await asyncio.to_thread(process.stderr.readline)


async def test_a_dry_run_says_what_a_run_would_do(
    command: Command, database_url: str, engine: AsyncEngine, tmp_path: Path
) -> None:
    await fill(engine, 20)
    (tmp_path / "mine.py").write_text(OWN_JOB)
    (tmp_path / "bad").write_text("1")
    (tmp_path / "limit").write_text("0")
    run = ("job", "run", "mine:job", "--database-url", database_url)
    tried = command(*run, "--dry-run")
    assert tried.returncode == 1, tried.stderr
    assert "stops     a run would stop at the row id=5: ValueError: five" in tried.stdout
    tried = command(*run, "--sample", "50%", "--where", "id <> 5", "--limit", "3")
    assert tried.returncode == 0, tried.stderr
    assert "3 of 3 rows in 1 chunks, each rolled back" in tried.stdout
    for wrong, said in (
        (("--only", "x"), "with the rows that are selected"),
        (("--dry-run", "--processes", "2"), "a dry run is one worker's"),
    ):
        refused = command(*run, *wrong)
        assert refused.returncode == 104, refused.stderr
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr
    assert await tally(engine) == {0: 20}


async def test_a_run_is_paused_when_its_time_is_up(
    command: Command, database_url: str, engine: AsyncEngine
) -> None:
    await fill(engine, 2_000)
    slow = {"COUNTING_CHUNK": "20", "COUNTING_PAUSE": "0.05"}
    run = ("job", "run", TARGET, "--database-url", database_url)
    stopped = command(*run, "--max-runtime", "500ms", **slow)
    assert stopped.returncode == 105, stopped.stderr
    assert "paused by --max-runtime: `job run` goes on with it" in stopped.stdout
    assert (await tally(engine)).get(0), "it is not done"
    assert command(*run, "--max-runtime", "10h").returncode == 0
    assert await tally(engine) == {1: 2_000}
    refused = command(*run, "--max-runtime", "0s")
    assert (refused.returncode, refused.stderr.count("\n")) == (104, 1)
