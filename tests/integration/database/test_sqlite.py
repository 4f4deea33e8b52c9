"""A run on a SQLite file: our tables by prefix and marker, writers one at a time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from async_loader import DatabaseError, run
from async_loader.database.sqlite import (
    create_engine,
    create_sync_engine,
    probe,
    run_namespace,
    session_factories,
    sync_session_factories,
)
from async_loader.database.urls import parse_url
from async_loader.load.runner.sync_runner import run_sync
from async_loader.load.specs.run import RunSpec
from async_loader.load.workloads import mixed

KILLED = """
import asyncio, os, signal, sys
from async_loader.database.urls import parse_url
from async_loader.database.sqlite import run_namespace
async def main():
    async with run_namespace(parse_url(sys.argv[1])):
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


def url_of(file: Path) -> str:
    return f"sqlite+aiosqlite:///{file}"


def tables(file: Path) -> set[str]:
    connection = sqlite3.connect(file)
    try:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    finally:
        connection.close()


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_a_file_is_left_as_it_was_found(file: Path, mode: str) -> None:
    connection = sqlite3.connect(file)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("CREATE TABLE shop (id INTEGER PRIMARY KEY)")
    connection.close()
    before = sqlite3.connect(file).execute("PRAGMA journal_mode").fetchone()
    command = [sys.executable, "-m", "async_loader", "--database-url", f"sqlite:///{file}"]
    done = subprocess.run(
        [*command, "--ops", "60", "--concurrency", "4", "--progress", "none"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert sqlite3.connect(file).execute("PRAGMA journal_mode").fetchone() == before
    assert tables(file) == {"shop"}
    assert ("PRAGMA journal_mode=WAL" in done.stdout) == (mode != "wal")


async def test_async_and_sync_write_what_they_count(file: Path) -> None:
    url = parse_url(url_of(file))
    async with run_namespace(url) as namespace:
        workload = mixed.build(prefix=namespace.prefix)
        engine = create_engine(url, pool_size=8, namespace=namespace)
        sessions, read_sessions = session_factories(engine, reads_autocommit=True)
        result = await run(
            workload, sessions=sessions, read_sessions=read_sessions, ops=100, concurrency=8
        )
        assert result.errors == {}, "no 'database is locked'"
        sync_engine = create_sync_engine(url, pool_size=8, namespace=namespace)
        sync, sync_read = sync_session_factories(sync_engine, reads_autocommit=True)
        beside = run_sync(
            workload, RunSpec.of(ops=100), sessions=sync, read_sessions=sync_read, threads=4
        )
        assert beside.errors == {}
        assert beside.count_of("write") == result.count_of("write")
        with sqlite3.connect(file) as connection:
            count = f"SELECT count(*) FROM {namespace.prefix}parent"
            (parents,) = connection.execute(count).fetchone()
        connection.close()
        assert parents == 3 * (result.count_of("write") + beside.count_of("write"))
        sync_engine.dispose()
        await engine.dispose()
    assert tables(file) == set()
    assert [path.name for path in file.parent.iterdir()] == ["x.db"]


async def test_the_file_is_in_wal_mode_with_stock_durability(file: Path) -> None:
    engine = create_engine(parse_url(url_of(file)), pool_size=1)
    info = await probe(engine)
    assert info.product == "SQLite"
    assert info.settings == {"journal_mode": "wal", "synchronous": "full"}
    await engine.dispose()


async def test_no_driver_is_asked_for_a_file_that_cannot_be_opened(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiosqlite's thread may find the loop closed when it answers, and prints a traceback then."""
    started, start = [], Thread.start

    def noting(thread: Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(Thread, "start", noting)
    engine = create_engine(parse_url(url_of(file / "nowhere")), pool_size=1)
    with pytest.raises(DatabaseError, match="unable to open database file"):
        await probe(engine)
    await engine.dispose()
    assert not [name for name in started if "connection_worker" in name]


async def test_a_killed_runs_tables_are_removed_and_nobody_elses(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE parent (id int)")
        connection.execute("CREATE TABLE async_loader_run_0000abcd_marker (run text, keep bool)")
    connection.close()
    before = tables(file)
    url = parse_url(url_of(file))
    subprocess.run([sys.executable, "-c", KILLED, url_of(file)], check=False)
    assert len(tables(file) - before) == 1
    async with run_namespace(url, keep=True) as kept:
        assert {f"{kept.prefix}marker"} == tables(file) - before
    async with run_namespace(url) as other, run_namespace(url) as third:
        names = {f"{n.prefix}marker" for n in (kept, other, third)}
        assert names == tables(file) - before
    assert {f"{kept.prefix}marker"} == tables(file) - before


async def test_a_file_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="cannot be used: No such file or directory"):
        async with run_namespace(parse_url(url_of(tmp_path / "absent" / "x.db"))):
            pass
    (tmp_path / "text.db").write_text("not a database, but text " * 100)
    with pytest.raises(DatabaseError, match="file is not a database"):
        async with run_namespace(parse_url(url_of(tmp_path / "text.db"))):
            pass
