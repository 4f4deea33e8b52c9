"""A service within the test's own loop, reached through its port."""

from __future__ import annotations

import asyncio
import json
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from async_loader.concurrency.stop import Stop
from async_loader.results.run import RunResult
from async_loader.service.server import serve
from async_loader.service.state import ServiceState, lifespan
from async_loader.service.work import figures_of
from async_loader.settings.serve import ServeSettings

PROOF = {"X-Async-Loader": "1"}
SCENARIOS = {
    "nothing": 'workload = "noop"\nops = 1000\n',
    "endless": 'workload = "noop"\nduration = "10m"\nrate = "50/s"\n',
    "mixed": "ops = 40\nconcurrency = 4\n",
    "long": 'duration = "10m"\nconcurrency = 2\nrate = "30/s"\n',
    "split": 'duration = "10m"\nconcurrency = 2\nrate = "30/s"\nprocesses = 2\n',
}


@dataclass(frozen=True)
class Service:
    """A service that answers."""

    client: httpx.AsyncClient
    desk: ServiceState
    stop: Stop

    async def start(self, scenario: str, target: str = "one", **overrides: Any) -> int:
        """Start a run; return its number."""
        body = {"scenario": scenario, "target": target, "overrides": overrides}
        answer = await self.client.post("/api/runs", json=body)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    async def run(self, number: int) -> dict[str, Any]:
        """Return a run's document."""
        answer = await self.client.get(f"/api/runs/{number}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def ended(self, number: int) -> dict[str, Any]:
        """Wait for a run's end; return its document."""
        return await self.until(number, lambda run: run["ended_at"] is not None)

    async def have(self, result: RunResult, scenario: str = "mixed", target: str = "one") -> int:
        """Put a run with this result into the history; return its number."""
        history = self.desk.history
        values = {"scenario": scenario, "target": target, "overrides": {}, "settings": {}}
        number = await history.add(values | {"started_by": "me", "scheduled": 0})
        document = zlib.compress(json.dumps(result.to_dict()).encode())
        await history.end(number, "passed", figures=figures_of(result), document=document)
        return number

    async def until(self, number: int, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until something holds of a run; return its document."""
        async with asyncio.timeout(60):
            while not holds(run := await self.run(number)):
                await asyncio.sleep(0.05)
        return run


Serving = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture
def scenarios(tmp_path: Path) -> Path:
    """A folder of scenarios."""
    folder = tmp_path / "scenarios"
    folder.mkdir()
    for name, text in SCENARIOS.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


@pytest.fixture
def serving(tmp_path: Path, scenarios: Path, database_url: str) -> Serving:
    """Start a service with a SQLite history and two targets on one empty database."""

    @asynccontextmanager
    async def start(**options: Any) -> AsyncIterator[Service]:
        given: dict[str, Any] = {
            "config_dir": scenarios,
            "target": f"one={database_url},two={database_url}",
            "history_url": f"sqlite:///{tmp_path / 'history.sqlite'}",
            "request_rate": "100000/s",
        }
        settings = ServeSettings(**given | options)
        stop = Stop()
        with socket.create_server((settings.host, 0)) as listener:
            port = listener.getsockname()[1]
            async with lifespan(settings) as desk:
                task = asyncio.create_task(serve(desk, listener, stop))
                url = f"http://127.0.0.1:{port}"
                async with httpx.AsyncClient(base_url=url, headers=PROOF, timeout=30) as client:
                    yield Service(client, desk, stop)
                stop.request()
                stop.request()
                await task

    return start


@pytest.fixture
async def service(serving: Serving) -> AsyncIterator[Service]:
    """A service with the default settings."""
    async with serving() as running:
        yield running
