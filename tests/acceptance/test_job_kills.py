"""Jobs killed at random points, frozen, and cut off from their server: nothing lost or doubled."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from async_loader.database.embedded import embedded_server
from async_loader.errors import JobError
from async_loader.jobs import status
from tests.counting import fill, tally

from .conftest import environment

TARGET = "tests.counting:job"
FULL = pytest.param(200, 100_000, id="200", marks=pytest.mark.soak)
CRASHES = pytest.param(20, 100_000, id="20", marks=pytest.mark.soak)


def start(url: str, *argv: str, job: str = TARGET, **extra: str) -> subprocess.Popen[str]:
    """Start `job run` on the counters."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "async_loader", "job", "run", job, "--progress", "none",
            "--database-url", url, *argv,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**extra),
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a command that goes well."""
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    return output


async def at_work(engine: AsyncEngine, process: subprocess.Popen[str]) -> bool:
    """Wait until a process has joined the run; False if it has ended already."""
    query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2")
    async with engine.connect() as connection:
        while process.poll() is None:
            if await connection.scalar(query):
                return True
            await asyncio.sleep(0.01)
    return False


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process, frozen or not, and close its pipes."""
    process.kill()
    process.communicate()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kills", "rows"), [pytest.param(4, 10_000, id="4"), FULL])
async def test_killed_at_random_points(
    database_url: str, engine: AsyncEngine, kills: int, rows: int
) -> None:
    """Each run adds one to every counter; one that ends between kills is followed by another."""
    await fill(engine, rows)
    rng = random.Random(kills)
    done = 0
    while done < kills:
        process = start(database_url, "--workers", "4")
        if await at_work(engine, process):
            await asyncio.sleep(rng.uniform(0, 0.4))
        if process.poll() is None:
            done += 1
        else:
            assert process.returncode == 0
        end(process)
    finish(start(database_url, "--workers", "4"))
    assert await tally(engine) == {await runs_done(engine): rows}
    assert (await status(engine, "counting")).rows_read == rows


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("kills", "rows"),
    [
        pytest.param(1, 500, id="1"),
        pytest.param(200, 20_000, id="200", marks=pytest.mark.soak),
    ],
)
async def test_killed_while_rows_are_prepared_and_changed_by_others(
    database_url: str, engine: AsyncEngine, kills: int, rows: int
) -> None:
    """
    Somebody adds a thousand to counters all the while; none of that is lost, and none of ours.

    A value that was prepared of another version would take a thousand away.
    """
    await fill(engine, rows)
    rng = random.Random(kills)
    added = done = 0
    adding = text("UPDATE counter SET n = n + 1000 WHERE id = :row")
    while done < kills:
        process = start(database_url, "--workers", "2", job="tests.counting:prepared")
        if await at_work(engine, process):
            until = time.monotonic() + rng.uniform(0, 0.4)
            while time.monotonic() < until:
                async with engine.begin() as connection:
                    await connection.execute(adding, {"row": rng.randint(1, rows)})
                added += 1
        if process.poll() is None:
            done += 1
        else:
            assert process.returncode == 0
        end(process)
    finish(start(database_url, "--workers", "2", job="tests.counting:prepared"))
    passes = await runs_done(engine)
    async with engine.connect() as connection:
        sums = "SELECT sum(n / 1000), count(*) FILTER (WHERE n % 1000 <> :passes) FROM counter"
        assert (await connection.execute(text(sums), {"passes": passes})).one() == (added, 0)


@pytest.mark.parametrize("schema", ["async_loader_jobs", "mine"])
async def test_no_wait_for_the_lease_of_a_killed_worker(
    database_url: str, engine: AsyncEngine, schema: str
) -> None:
    """The lease is an hour: whoever waited for it would never end."""
    await fill(engine, 10_000)
    lease = {"COUNTING_LEASE": "3600"}
    argv = ("--workers", "4", "--state-schema", schema)
    process = start(database_url, *argv, **lease)
    assert await at_work(engine, process)
    while not (await tally(engine)).get(1):
        await asyncio.sleep(0.01)
    end(process)
    assert (await tally(engine)).get(0), "it was killed in the middle"
    finish(start(database_url, *argv, **lease))
    assert await tally(engine) == {1: 10_000}


async def test_several_processes_share_a_run(database_url: str, engine: AsyncEngine) -> None:
    await fill(engine, 10_000)
    processes = [start(database_url, "--workers", "2") for _ in range(3)]
    outputs = [process.communicate(timeout=100) for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    # One that came when all was done has begun a run of its own.
    total = sum((await tally(engine)).keys())
    assert await tally(engine) == {total: 10_000}
    assert total <= 3


async def back(url: str) -> None:
    """Wait until a server accepts connections."""
    engine = create_async_engine(url)
    for _ in range(3000):
        try:
            async with engine.connect():
                break
        except Exception:
            await asyncio.sleep(0.02)
    await engine.dispose()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kills", "rows"), [pytest.param(2, 10_000, id="2"), CRASHES])
async def test_the_server_killed_at_random_points(
    server_directory: Path, kills: int, rows: int
) -> None:
    """The postmaster dies by SIGKILL and is started again; the job stays and goes on."""
    home = server_directory / f"killed{kills}"
    rng = random.Random(kills)
    with embedded_server(home) as server:
        engine = create_async_engine(server.url)
        await fill(engine, rows)
        await engine.dispose()
    passes = killed = 0
    process: subprocess.Popen[str] | None = None
    try:
        while killed < kills or process is not None:
            with embedded_server(home) as server:
                await back(server.url)
                process = process or start(server.url, "--workers", "4")
                if killed == kills:
                    process.wait(timeout=100)
                deadline = time.monotonic() + rng.uniform(0.2, 2)
                while time.monotonic() < deadline and process.poll() is None:
                    await asyncio.sleep(0.01)
                if process.poll() is not None:
                    passes += ended_well(process)
                    process = None
                if killed < kills:
                    os.kill(server.pid, signal.SIGKILL)
                    killed += 1
        with embedded_server(home) as server:
            await back(server.url)
            engine = create_async_engine(server.url)
            if not await is_done(engine):
                finish(start(server.url, "--workers", "4"))
                passes += 1
            assert await tally(engine) == {passes: rows}
            await engine.dispose()
    finally:
        if process is not None:
            end(process)


async def is_done(engine: AsyncEngine) -> bool:
    """Tell whether the job is done; where no start came as far as its tables it is not."""
    try:
        return (await status(engine, "counting")).state == "done"
    except JobError:
        return False


def ended_well(process: subprocess.Popen[str]) -> bool:
    """Return whether a pass is done; the server may have been killed before it began."""
    _, errors = process.communicate()
    assert process.returncode in (0, 110), errors
    return process.returncode == 0


async def freeze_in_a_transaction(engine: AsyncEngine, process: subprocess.Popen[str]) -> None:
    """Stop a process where a chunk of its is begun and not committed."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_xid IS NOT NULL AND state = 'idle in transaction'"
    )
    while process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        async with engine.connect() as connection:
            if await connection.scalar(query):
                return
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(random.uniform(0, 0.01))
    raise AssertionError("it has ended before it could be stopped")


async def test_a_frozen_worker_commits_nothing_when_it_wakes(
    database_url: str, engine: AsyncEngine
) -> None:
    await fill(engine, 8_000)
    lease = {"COUNTING_LEASE": "1"}
    frozen = start(database_url, **lease)
    try:
        assert await at_work(engine, frozen)
        while not (await tally(engine)).get(1):
            await asyncio.sleep(0.01)
        await freeze_in_a_transaction(engine, frozen)
        finish(start(database_url, **lease))
        assert await tally(engine) == {1: 8_000}
        before = await status(engine, "counting")
        frozen.send_signal(signal.SIGCONT)
        finish(frozen)
        assert await tally(engine) == {1: 8_000}
        assert await status(engine, "counting") == before
    finally:
        end(frozen)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("pauses", "rows"),
    [pytest.param(2, 10_000, id="2"), pytest.param(20, 100_000, id="20", marks=pytest.mark.soak)],
)
async def test_pauses_longer_than_the_lease(
    database_url: str, engine: AsyncEngine, pauses: int, rows: int
) -> None:
    """Two processes share runs, and one of them stands still now and then: it may fail, alone."""
    await fill(engine, rows)
    rng = random.Random(pauses)
    lease = {"COUNTING_LEASE": "0.5", "COUNTING_PAUSE": "0.02"}
    processes = [start(database_url, **lease) for _ in range(2)]
    paused = 0
    try:
        while paused < pauses:
            for n, process in enumerate(processes):
                if process.poll() is not None:
                    ended_or_overtaken(process)
                    processes[n] = start(database_url, **lease)
            one = processes[rng.randrange(2)]
            if not await at_work(engine, one):
                continue
            await asyncio.sleep(rng.uniform(0, 0.2))
            one.send_signal(signal.SIGSTOP)
            await asyncio.sleep(rng.uniform(0.6, 1.0))
            one.send_signal(signal.SIGCONT)
            paused += 1
        for process in processes:
            process.wait(timeout=200)
            ended_or_overtaken(process)
    finally:
        for process in processes:
            end(process)
    if (await status(engine, "counting")).state != "done":
        finish(start(database_url))
    assert await tally(engine) == {await runs_done(engine): rows}


def ended_or_overtaken(process: subprocess.Popen[str]) -> None:
    """Expect the end of a process that stood still: well, or naming the lease."""
    _, errors = process.communicate()
    assert process.returncode == 0 or "raise lease" in errors, errors


async def runs_done(engine: AsyncEngine) -> int:
    """Count runs by their records: a process may be killed between its run's end and its own."""
    query = text("SELECT count(*) FROM async_loader_jobs.run WHERE state = 'done'")
    async with engine.connect() as connection:
        return int(await connection.scalar(query) or 0)


async def test_killed_on_sqlite(tmp_path: Path) -> None:
    """The same promise, by one worker."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'counters.db'}"
    engine = create_async_engine(url)
    await fill(engine, 10_000)
    for done in range(1, 3):
        process = start(url)
        while (await tally(engine)).get(0, 0) > 10_000 - done * 3_000 and process.poll() is None:
            await asyncio.sleep(0.01)
        assert process.poll() is None, process.communicate()
        end(process)
    finish(start(url))
    assert await tally(engine) == {1: 10_000}
    await engine.dispose()
