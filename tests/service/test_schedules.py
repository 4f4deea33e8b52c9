"""Scenarios that the service runs by itself."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from async_loader.service import scheduling
from async_loader.service.scenarios import read_scenarios
from async_loader.service.scheduling import due
from tests.unit.runs import made_up_run

from .conftest import Serving

DAY = 86_400.0


@pytest.fixture
def daily(scenarios: Path) -> Path:
    """The same scenarios, one of them every day."""
    text = (scenarios / "nothing.toml").read_text()
    (scenarios / "daily.toml").write_text(f'every = "1d"\non_target = "two"\n{text}')
    return scenarios


def test_what_is_due(daily: Path) -> None:
    scenarios = read_scenarios(daily)
    assert due(scenarios, {}, 0.0) == ["daily"]
    assert due(scenarios, {"daily": 1000.0}, 1000.0 + DAY - 1) == []
    assert due(scenarios, {"daily": 1000.0}, 1000.0 + DAY) == ["daily"]
    assert due(scenarios, {"daily": 1000.0}, 1000.0 + 30 * DAY) == ["daily"]  # once


async def test_a_schedule_starts_once_and_waits_for_its_target(
    serving: Serving, daily: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "_LOOK_EVERY", 0.05)
    text = (daily / "daily.toml").read_text()
    (daily / "daily.toml").unlink()
    async with serving() as service:
        busy = await service.start("endless", "two")
        (daily / "daily.toml").write_text(text)
        await asyncio.sleep(0.3)  # it looks, and may not
        listed = (await service.client.get("/api/runs?scenario=daily")).json()["runs"]
        assert listed == []
        await service.client.post(f"/api/runs/{busy}/stop")
        number = busy + 1
        async with asyncio.timeout(30):
            while (await service.client.get(f"/api/runs/{number}")).status_code == 404:
                await asyncio.sleep(0.05)
        run = await service.ended(number)
        assert (run["scenario"], run["target"], run["scheduled"]) == ("daily", "two", True)
        assert run["started_by"] == "schedule"
    async with serving() as service:  # a restart is no reason to run it again
        await asyncio.sleep(0.3)
        assert (await service.client.get("/api/runs?limit=1")).json()["runs"][0]["id"] == number


async def test_what_grows_old_is_forgotten_where_nothing_runs(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(scheduling, "_PRUNE_EVERY", 0.0)
    async with serving() as service:
        number = await service.have(made_up_run(random.Random(1)))
        await service.desk.history.change(number, started_at=1.0)
        async with asyncio.timeout(30):
            while (await service.client.get(f"/api/runs/{number}")).status_code == 200:
                await asyncio.sleep(0.02)


async def test_a_file_that_is_wrong_is_shown_and_cannot_be_run(
    serving: Serving, scenarios: Path
) -> None:
    for name, text, problem in (
        ("typo", "opps = 3\n", "did you mean ops?"),
        ("url", 'database_url = "postgresql://user:hunter2@host/db"\n', "runs on a --target"),
        ("range", "concurrency = 0\n", "it is at least 1"),
        ("broken", "ops = \n", "is not TOML"),
    ):
        (scenarios / f"{name}.toml").write_text(text)
        async with serving() as service:
            listed = (await service.client.get("/api/scenarios")).json()["scenarios"]
            (found,) = (one for one in listed if one["name"] == name)
            assert problem in found["problem"]
            assert "hunter2" not in found["problem"]
            body = {"scenario": name, "target": "one"}
            assert (await service.client.post("/api/runs", json=body)).status_code == 422
