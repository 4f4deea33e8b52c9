"""Runs whose operation blocks their process: ended from outside, and the target free."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from async_loader.service import runs

from .conftest import Service, Serving
from .process import service_process
from .test_deaths import gone

# One waits in C; the other one holds the interpreter's lock, so that no thread of it runs.
BLOCKING = {"waits": "time.sleep(3600)", "holds": 're.match("(a+)+$", "a" * 60 + "b")'}
CODE = """
import re, time
from async_loader import Workload
workload = Workload("blocks")
@workload.operation("block", kind="read")
async def block():
    open({began!r}, "w").close()
    {statement}
"""


@pytest.fixture(params=BLOCKING)
def began(request: pytest.FixtureRequest, scenarios: Path, tmp_path: Path) -> Path:
    """A file that is there once the scenario `blocks` blocks."""
    file = tmp_path / "began"
    code = tmp_path / "own.py"
    code.write_text(CODE.format(began=str(file), statement=BLOCKING[request.param]))
    (scenarios / "blocks.toml").write_text(
        f'workload = "{code}:workload"\nops = 10\nconcurrency = 1\ngrace = "0.1s"\n'
    )
    return file


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little time to end in."""
    monkeypatch.setattr(runs, "_ASKED", 0.2)
    monkeypatch.setattr(runs, "_TOLD", 0.2)


async def there(file: Path) -> None:
    async with asyncio.timeout(60):
        while not file.exists():
            await asyncio.sleep(0.05)


async def check_killed(service: Service, number: int) -> None:
    """Wait for a run's end; check what it says, and that nothing is left of it."""
    process: dict[str, Any] | None = service.desk.runs.running[number].process
    assert process is not None
    run = await service.ended(number)
    assert run["state"] == "error"
    assert "was killed" in run["reasons"][0]
    assert not psutil.pid_exists(process["pid"])
    last = await service.start("nothing")
    assert (await service.ended(last))["state"] == "passed"


async def test_a_run_that_is_stopped_and_does_not_heed_it_is_killed(
    service: Service, began: Path
) -> None:
    number = await service.start("blocks")
    await there(began)
    await service.client.post(f"/api/runs/{number}/stop")
    await check_killed(service, number)


async def test_a_service_that_ends_waits_for_nobody_for_ever(serving: Serving, began: Path) -> None:
    async with serving() as service:
        await service.start("blocks")
        await there(began)
        async with asyncio.timeout(60):
            await service.desk.runs.drain()


def test_none_outlives_a_service_that_is_killed(
    began: Path, scenarios: Path, tmp_path: Path, database_url: str
) -> None:
    arguments = ["--config-dir", str(scenarios), "--target", f"one={database_url}"]
    arguments += ["--history-url", f"sqlite:///{tmp_path / 'history.sqlite'}"]
    with service_process(tmp_path, *arguments) as service:
        service.start("blocks")
        asyncio.run(there(began))
        processes = service.processes()
        service.send(signal.SIGKILL)
        service.wait()
        assert gone(processes)


def test_a_runs_process_inherits_no_secret(
    scenarios: Path, tmp_path: Path, database_url: str
) -> None:
    history = f"sqlite:///{tmp_path / 'history.sqlite'}"
    env = {
        "ASYNC_LOADER_TARGET": f"one={database_url},two=postgresql://me:hunter2@127.0.0.1/none",
        "async_loader_history_url": history,
    }
    with service_process(tmp_path, "--config-dir", str(scenarios), env=env) as service:
        number = service.start("long")
        service.under_way(number)
        for process in service.processes():
            named = [name for name in process.environ() if name.lower().startswith("async_loader")]
            assert named == [], process.cmdline()
        service.client.post(f"/api/runs/{number}/stop")
        service.until(number, lambda run: run["ended_at"])
