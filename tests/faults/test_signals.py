"""SIGINT and SIGTERM, once and twice, at every phase of the command."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader import RunResult
from async_loader.database.embedded.locks import is_held
from tests.faults.command import Process
from tests.faults.ledger import no_backend_is_left
from tests.faults.proxy import FaultProxy
from tests.faults.server import Server, new_server

pytestmark = pytest.mark.timeout(60)

FEW = [(signal.SIGINT, 1), (signal.SIGTERM, 2)]
ALL_OTHERS = [(signal.SIGTERM, 1), (signal.SIGINT, 2), (signal.SIGINT, 3)]
SIGNALS = [*FEW, *(pytest.param(*other, marks=pytest.mark.soak) for other in ALL_OTHERS)]


def send(process: Process, number: signal.Signals, times: int) -> None:
    """Send a signal so many times, apart enough not to be merged into one."""
    for n in range(times):
        if n:
            time.sleep(0.05)
        if process.code is None:
            process.send(number)


def check_stopped(process: Process) -> tuple[str, str]:
    output, errors = process.end()
    assert process.code == 105, errors
    assert "Traceback" not in errors
    assert "Exception" not in errors
    return output, errors


async def schemas(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        found = await connection.scalars(
            text("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'async_loader%'")
        )
        return list(found)


@pytest.mark.root
@pytest.mark.parametrize(("number", "times"), SIGNALS)
def test_while_the_embedded_server_starts(
    server_directory: Path, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    home = server_directory / f"start{number}{times}"
    process = Process("--server-directory", str(home), cwd=tmp_path)
    process.wait_for("starting the embedded PostgreSQL")
    send(process, number, times)
    output, errors = check_stopped(process)
    assert output == ""
    assert errors.splitlines()[-1] == "async_loader: stopped"
    assert not is_held(home / "server.lock")


@pytest.fixture(scope="module")
def home(server_directory: Path) -> Path:
    """A home for embedded servers that start and stop."""
    return server_directory / "signals"


@pytest.mark.busy
@pytest.mark.root
@pytest.mark.parametrize(("number", "times"), SIGNALS)
def test_in_mid_run_on_the_embedded_server(
    home: Path, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    argv = ["--server-directory", str(home), "--duration", "10m", "--out", "json=x"]
    process = Process(*argv, cwd=tmp_path)
    process.wait_for(" s  ")  # the first line of progress
    send(process, number, times)
    output, _ = check_stopped(process)
    if times < 3:  # the third is without mercy
        assert "interrupted" in output
        result = RunResult.from_dict(json.loads((tmp_path / "x").read_text()))
        assert result.completed > 0
        assert result.stopped_by == number.name
        assert f"{number.name} stopped the run before its end" in output
    assert not is_held(home / "server.lock")


PHASES = {
    "connecting": ["--duration", "10m"],
    "warm-up": ["--duration", "10m", "--warmup", "10m"],
    "running": ["--duration", "10m"],
    "cleaning up": ["--ops", "500"],
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("number", "times"), SIGNALS)
async def test_on_a_server_of_the_users(
    *,
    database_url: str,
    engine: AsyncEngine,
    admin: AsyncEngine,
    tmp_path: Path,
    phase: str,
    number: signal.Signals,
    times: int,
) -> None:
    process = Process("--database-url", database_url, *PHASES[phase], cwd=tmp_path)
    await asyncio.to_thread(process.wait_for, "running" if phase == "warm-up" else phase)
    if phase in ("warm-up", "running"):
        await asyncio.sleep(0.5)
    await asyncio.to_thread(send, process, number, times)
    output, _ = await asyncio.to_thread(check_stopped, process)
    await engine.dispose()
    await no_backend_is_left(admin, make_url(database_url).database or "")
    assert await schemas(engine) == []
    if phase == "cleaning up":
        assert "done  500 operations" in output
    elif phase != "connecting" and times < 3:
        assert "interrupted" in output


@pytest.mark.parametrize(
    ("number", "times"), [FEW[0], pytest.param(*FEW[1], marks=pytest.mark.soak)]
)
async def test_while_it_drains_into_a_black_hole(
    database_url: str, admin: AsyncEngine, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    async with FaultProxy(database_url) as proxy:
        url = proxy.url.render_as_string(hide_password=False)
        grace = "2s" if times == 1 else "10m"
        process = Process(
            "--database-url", url, "--duration", "10m", "--grace", grace, cwd=tmp_path
        )
        await asyncio.to_thread(process.wait_for, "running")
        await asyncio.sleep(1)
        proxy.black_hole()
        await asyncio.sleep(0.2)
        await asyncio.to_thread(send, process, number, times)
        async with asyncio.timeout(30):
            output, errors = await asyncio.to_thread(check_stopped, process)
        assert "interrupted" in output
        assert "cancelled" in output
        assert "could not be dropped (no answer); the next run removes it" in errors
        proxy.heal()
    await no_backend_is_left(admin, make_url(database_url).database or "")


@pytest.mark.parametrize(("number", "times"), FEW)
def test_while_it_reports(tmp_path: Path, number: signal.Signals, times: int) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = Process(
        *("--workload", "noop", "--ops", "100", "--progress", "none"),
        *("--out", "json=first", "--out", "json=pipe", "--out", "json=file"),
        cwd=tmp_path,
    )
    while not (tmp_path / "first").exists():
        time.sleep(0.05)
    time.sleep(0.2)  # it is about to write the pipe
    send(process, number, times)
    if times == 1:  # whoever waits for the report gets it
        assert RunResult.from_dict(json.loads((tmp_path / "pipe").read_text())).completed == 100
    output, errors = check_stopped(process)
    assert (tmp_path / "file").exists() == (times == 1)
    assert (errors == "") == (times == 1), errors
    assert output.startswith("done  100 operations") == (times == 1), "files come first"


@pytest.fixture
def own_server() -> Iterator[Server]:
    with new_server() as server:
        yield server


async def test_a_killed_run_leaves_nothing_to_the_next(own_server: Server, tmp_path: Path) -> None:
    """SIGKILL, with the server alive and then with both dead."""
    argv = ["--server-directory", str(own_server.directory), "--progress", "lines"]
    for server_too in (False, True):
        process = Process(*argv, "--duration", "10m", cwd=tmp_path)
        await asyncio.to_thread(process.wait_for, "running")
        await asyncio.sleep(0.5)
        process.send(signal.SIGKILL)
        await asyncio.to_thread(process.end)
        if server_too:
            await asyncio.to_thread(own_server.kill)
        following = Process(*argv, "--ops", "100", cwd=tmp_path)
        output, errors = await asyncio.to_thread(following.end)
        assert following.code == 0, errors
        assert "done  100 operations" in output
        assert await left(own_server) == []


async def test_two_runs_of_which_one_is_killed(own_server: Server, tmp_path: Path) -> None:
    argv = ["--server-directory", str(own_server.directory), "--concurrency", "4"]
    other = Process(*argv, "--duration", "5s", cwd=tmp_path)
    await asyncio.to_thread(other.wait_for, "running")
    killed = Process(*argv, "--duration", "10m", cwd=tmp_path)
    await asyncio.to_thread(killed.wait_for, "running")
    await asyncio.sleep(0.5)
    killed.send(signal.SIGKILL)
    await asyncio.to_thread(killed.end)
    following = Process(*argv, "--ops", "100", cwd=tmp_path)  # it sweeps, and spares the other
    await asyncio.to_thread(following.end)
    output, errors = await asyncio.to_thread(other.end)
    assert (following.code, other.code) == (0, 0), errors
    assert "done" in output
    assert "errors" not in output
    assert await left(own_server) == []


async def left(server: Server) -> list[str]:
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(server.url)
    try:
        return await schemas(engine)
    finally:
        await engine.dispose()


async def test_a_server_killed_under_the_command(own_server: Server, tmp_path: Path) -> None:
    argv = ["--server-directory", str(own_server.directory), "--ops", "1000000"]
    process = Process(*argv, "--op-timeout", "1s", "--give-up", "3s", cwd=tmp_path)
    await asyncio.to_thread(process.wait_for, "running")
    await asyncio.sleep(0.5)
    await asyncio.to_thread(own_server.kill)
    output, errors = await asyncio.to_thread(process.end)
    assert process.code == 1, errors
    assert "aborted" in output
    lines = [line for line in errors.splitlines() if line.startswith("async_loader: ")]
    assert len(lines) == 2
    assert "failed: gave up: no operation has succeeded for 3 s" in lines[0]
    assert "could not be dropped" in lines[1]
    assert "the next run removes it" in lines[1]
    assert "Traceback" not in errors
