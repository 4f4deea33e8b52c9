"""The command with several processes: signals to all of them, and a coordinator that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader import RunResult
from tests.faults.command import Process
from tests.faults.ledger import no_backend_is_left

pytestmark = pytest.mark.timeout(90)

ARGUMENTS = ("--processes", "2", "--duration", "10m", "--out", "json=x", "--concurrency", "6")


async def operations_go_on(engine: AsyncEngine) -> None:
    """Wait until there is a row in a run's tables."""
    async with engine.connect() as connection, asyncio.timeout(60):
        while True:
            schema = await connection.scalar(
                text("SELECT schemaname FROM pg_tables WHERE tablename = 'parent'")
            )
            if schema and await connection.scalar(text(f"SELECT 1 FROM {schema}.parent LIMIT 1")):
                return
            await connection.rollback()
            await asyncio.sleep(0.05)


async def started(database_url: str, engine: AsyncEngine, folder: Path) -> Process:
    """Return the command, whose processes have begun, at the head of a process group."""
    process = Process(*ARGUMENTS, "--database-url", database_url, cwd=folder, group=True)
    process.wait_for("running")
    await operations_go_on(engine)
    return process


@pytest.mark.parametrize(
    ("number", "times"),
    [
        (signal.SIGINT, 1),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.soak),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.soak),
    ],
)
async def test_a_signal_to_all_drains_each(
    database_url: str, engine: AsyncEngine, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    """As a terminal's Ctrl-C does it: every process gets the signal, and one of them heeds it."""
    process = await started(database_url, engine, tmp_path)
    for _ in range(times):
        os.killpg(process.pid, number)
        await asyncio.sleep(0.05)
    output, errors = await asyncio.to_thread(process.end)
    assert process.code == 105, errors
    assert "Traceback" not in errors
    assert output.startswith("interrupted")
    result = RunResult.from_dict(json.loads((tmp_path / "x").read_text()))
    assert (result.outcome, result.stopped_by) == ("interrupted", number.name)
    assert [shard.lost for shard in result.shards] == [None, None]
    assert result.completed > 0
    if times == 1:
        assert (result.failed, result.indeterminate) == (0, 0)


async def test_nothing_outlives_a_coordinator_that_is_killed(
    database_url: str, engine: AsyncEngine, admin: AsyncEngine, tmp_path: Path
) -> None:
    process = await started(database_url, engine, tmp_path)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    process.send(signal.SIGKILL)
    await asyncio.to_thread(process.end)
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, 20)
    assert alive == []
    await engine.dispose()
    await no_backend_is_left(admin, str(make_url(database_url).database))
