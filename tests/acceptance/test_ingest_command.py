"""`ingest` as a user runs it: demo, library, mistakes, signals, and kill -9 anywhere."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine, make_url

from async_loader.ingest.demo import make_pairs
from tests.folders import small_disk

from .conftest import Command, environment

PAIRS = [pytest.param((60, 2), id="2"), pytest.param((300, 20), id="20", marks=pytest.mark.soak)]


def library(url: str) -> Engine:
    """Return a plain engine on the same database."""
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
    parsed = make_url(url)
    return create_engine(parsed.set(drivername=driver[parsed.get_backend_name()]))


def rows(url: str) -> Counter[str]:
    """Return how many rows have which title; none where there is no table yet."""
    engine = library(url)
    try:
        with engine.connect() as connection:
            query = text("SELECT title, length(audio), length(picture) FROM track")
            found = [row for row in connection.execute(query) if row[1] and row[2]]
            return Counter(row[0] for row in found)
    except Exception as error:
        if "track" in str(error):  # no such table
            return Counter()
        raise
    finally:
        engine.dispose()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    make_pairs(tmp_path / "music", 12, audio=3_000, side=60)
    return tmp_path / "music"


@pytest.fixture(params=["postgresql", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/library.sqlite"
    found: str = request.getfixturevalue("database_url")
    return found


def test_the_demo(command: Command, tmp_path: Path) -> None:
    done = command("ingest", "--demo", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("done  3 pairs of files: 3 added")
    assert not list(tmp_path.iterdir())


def test_the_demo_in_a_folder(command: Command, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.sqlite"
    done = command("ingest", "here", "--demo", "3", "--database-url", url)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "here").iterdir())) == 6
    again = command("ingest", "here", "--demo", "3", "--database-url", url)
    assert again.returncode == 104
    assert "makes its files in an empty folder: here is none" in again.stderr


def test_the_library_is_in_the_users_data(command: Command, files: Path, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    done = command("ingest", "music", **home)
    assert done.returncode == 0, done.stderr
    (found,) = tmp_path.rglob("library.sqlite")
    assert f"database  {found}" in done.stdout
    again = command("ingest", "music", **home)
    assert "0 added, 12 were in before" in again.stdout


@pytest.mark.root  # who may mount a small disk
@pytest.mark.timeout(60)  # a job's patience is 300 s
def test_a_full_disk_under_sqlite_is_said_at_once(command: Command, tmp_path: Path) -> None:
    """No time mends it, and so it is not waited for."""
    make_pairs(tmp_path / "music", 20, audio=100_000, side=60)
    with small_disk() as disk:
        url = f"sqlite:///{disk}/library.sqlite"
        done = command("ingest", "music", "--database-url", url)
        loaded = sum(rows(url).values())
    assert done.returncode == 110, done.stderr
    assert "Traceback" not in done.stderr
    told = done.stderr.splitlines()[-1]
    assert told.startswith("async_loader: SQLite cannot use its file: database or disk is full")
    assert loaded < 20


def test_failures_are_named_and_counted(command: Command, files: Path, url: str) -> None:
    (files / "odd\nname.mp3").touch()
    (files / "Artist 1 - Track 00001.jpg").write_bytes(b"text")
    done = command("ingest", "music", "--database-url", url)
    assert done.returncode == 1
    assert done.stderr.endswith("async_loader: 2 of 13 pairs could not be loaded\n")
    assert "  odd\\nname.mp3: empty\n" in done.stdout
    assert "  Artist 1 - Track 00001.mp3: its picture: not a picture" in done.stdout
    assert sum(rows(url).values()) == 11


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "ingest needs a folder: ingest DIR, or --demo 70"),
        (("nothing",), "nothing: No such file or directory"),
        (("music/Artist 1 - Track 00001.mp3",), "Not a directory"),
        (("music", "--concurrency", "0"), "--concurrency"),
        (("music", "--rows", "3"), "unknown flag --rows"),
    ],
)
def test_mistakes(command: Command, files: Path, argv: tuple[str, ...], message: str) -> None:
    done = command("ingest", *argv, "--database-url", f"sqlite:///{files.parent}/x.sqlite")
    assert done.returncode == 104
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_database_that_cannot_be_used(command: Command, files: Path) -> None:
    done = command("ingest", "music", "--database-url", "sqlite:////nowhere/at/all.sqlite")
    assert done.returncode == 110, done.stderr
    assert done.stderr.count("\n") == 1


def test_compare(command: Command, files: Path, url: str) -> None:
    done = command("ingest", "music", "--compare", "--rounds", "1", "--database-url", url)
    assert done.returncode == 0, done.stderr
    ways = [line.split()[0] for line in done.stdout.splitlines() if re.search(r"\d\.\d\d$", line)]
    assert ways == ["sequential", "threads", "add_one_by_one", "bulk_save_objects", "ours"]
    assert not rows(url)


def start(url: str, folder: Path) -> subprocess.Popen[str]:
    argv = ["ingest", str(folder), "--progress", "none", "--chunk", "4", "--database-url", url]
    return subprocess.Popen(
        [sys.executable, "-m", "async_loader", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> bool:
    """Wait for a condition; False if the process ends before."""
    while process.poll() is None:
        if condition():
            return True
        time.sleep(0.005)
    return False


def test_ctrl_c_pauses_and_the_same_command_goes_on(
    url: str, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    make_pairs(folder, 400, audio=3_000, side=60)
    process = start(url, folder)
    assert until(lambda: rows(url), process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 105, errors
    assert "the same command goes on with the rest" in output
    before = sum(rows(url).values())
    assert 0 < before < 400
    done = command("ingest", str(folder), "--database-url", url)
    assert done.returncode == 0, done.stderr
    assert f"{400 - before} added, {before} were in before" in done.stdout
    assert set(rows(url).values()) == {1}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("counts", PAIRS)
def test_killed_at_random_points(url: str, tmp_path: Path, counts: tuple[int, int]) -> None:
    """Every pair is there once, and what was there is not read again."""
    pairs, kills = counts
    folder = tmp_path / "music"
    make_pairs(folder, pairs, audio=20_000, side=200)
    states = {path: path.read_bytes() for path in folder.iterdir()}
    rng = random.Random(kills)
    for _ in range(kills):
        process = start(url, folder)
        there = rows(url)
        # From before it has connected to after it has committed several chunks.
        more = rng.choice([None, *range(0, 2 * pairs // kills, 4)])
        until(lambda n=more, t=there: n is None or (rows(url) - t).total() >= n, process)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 1.0 if more is None else 0.05))
        process.kill()
        process.communicate()
        assert set(rows(url).values()) <= {1}
        assert (there - rows(url)).total() == 0, "what was committed stays"
    before = rows(url).total()
    process = start(url, folder)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert f"{pairs} pairs of files: {pairs - before} added, {before} were in before" in output
    assert rows(url) == Counter(f"Track {n}" for n in range(1, pairs + 1))
    assert {path: path.read_bytes() for path in folder.iterdir()} == states
