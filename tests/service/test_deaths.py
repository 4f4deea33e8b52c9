"""What is left when something is killed: a history that is right, and nothing else."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader.database.urls import parse_url
from async_loader.service.history import Filter
from async_loader.service.history_database import open_history

from .conftest import Service, Serving
from .process import ServiceProcess, service_process

SCHEMAS = text("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'async_loader_run_%'")
CONNECTIONS = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
def arguments(scenarios: Path, tmp_path: Path, database_url: str) -> list[str]:
    """How a service is started again and again on the same history."""
    history = f"sqlite:///{tmp_path / 'history.sqlite'}"
    return [
        "--config-dir", str(scenarios), "--target", f"one={database_url}",
        "--history-url", history,
    ]  # fmt: skip


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=30)
    return not alive


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.soak)])
@pytest.mark.busy
@pytest.mark.timeout(600)
async def test_a_service_killed_in_mid_run(
    kills: int, arguments: list[str], tmp_path: Path, engine: AsyncEngine
) -> None:
    killed: list[int] = []
    for attempt in range(kills):
        with service_process(tmp_path, *arguments) as service:
            for number in killed[-1:]:
                _check_interrupted(service, number)
            number = _started(service, "split" if attempt % 4 > 1 else "long")
            service.under_way(number)
            processes = service.processes()
            assert processes
            if attempt % 2:  # the run's process cannot clean up after itself then
                for process in processes:
                    process.kill()
            service.send(signal.SIGKILL)
            assert service.wait() == -signal.SIGKILL
            killed.append(number)
            assert gone(processes)
    with service_process(tmp_path, *arguments) as service:
        _check_interrupted(service, killed[-1])
        last = _started(service, "mixed")  # the target is free, and so cleaned
        assert service.until(last, lambda run: run["ended_at"])["state"] == "passed"
        listed = service.client.get("/api/runs?state=interrupted&limit=500").json()["runs"]
        assert [run["id"] for run in listed] == killed[::-1]
    async with engine.connect() as connection:
        assert await connection.scalar(SCHEMAS) == 0
        assert await connection.scalar(CONNECTIONS) == 0


def _check_interrupted(service: ServiceProcess, number: int) -> None:
    run = service.client.get(f"/api/runs/{number}").json()
    assert run["state"] == "interrupted"
    assert run["snapshot"]["completed"] > 0
    assert run["ended_at"] is not None


def _started(service: ServiceProcess, scenario: str) -> int:
    """Start a run as soon as the target is free."""
    until = time.monotonic() + 60
    while True:
        answer = service.client.post("/api/runs", json={"scenario": scenario, "target": "one"})
        if answer.status_code == 201:
            return int(answer.json()["id"])
        assert answer.status_code == 409, answer.text
        assert time.monotonic() < until
        time.sleep(0.1)


async def test_sigterm_drains(arguments: list[str], tmp_path: Path, engine: AsyncEngine) -> None:
    with service_process(tmp_path, *arguments) as service:
        number = service.start("long")
        service.under_way(number)
        service.send(signal.SIGTERM)
        assert service.wait() == 0
    async with open_history(parse_url(arguments[-1])) as history:
        (run,) = await history.page(Filter())
        assert (run["state"], run["active_on"]) == ("stopped", None)
        assert run["figures"]["completed"] > 0
        assert await history.document(number)
    async with engine.connect() as connection:
        assert await connection.scalar(SCHEMAS) == 0


async def test_a_runs_process_that_is_killed_ends_that_run_only(
    service: Service, engine: AsyncEngine
) -> None:
    number = await service.start("long")
    other = await service.start("endless", "two", duration=1)
    await service.until(number, lambda run: (run["snapshot"] or {}).get("completed", 0) > 0)
    process = service.desk.runs.running[number].process
    assert process is not None
    psutil.Process(process["pid"]).kill()
    run = await service.ended(number)
    assert run["state"] == "error"
    assert "SIGKILL" in run["reasons"][0]
    async with engine.connect() as connection:
        assert await connection.scalar(SCHEMAS) == 0
    assert (await service.ended(other))["state"] == "passed"


async def test_a_history_is_one_services(
    arguments: list[str], tmp_path: Path, service: Service
) -> None:
    with pytest.raises(AssertionError, match="another service uses the history"):
        ServiceProcess(tmp_path, *arguments)
    assert (await service.client.get("/readyz")).status_code == 200


async def test_a_run_that_takes_too_long_is_stopped(serving: Serving) -> None:
    async with serving(max_duration=0.5) as service:
        run = await service.ended(await service.start("endless"))
        assert run["state"] == "stopped"
        entries = (await service.client.get("/api/audit")).json()["entries"]
        assert entries[0]["who"] == "the limit of 0.5 s"
        assert "the limit of 0.5 s stopped the run before its end" in run["reasons"]
