"""Scenarios that the service runs by itself."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from async_loader.service import scheduling
from async_loader.service.scenarios import read_scenarios
from async_loader.service.scheduling import due, next_start
from tests.unit.runs import made_up_run

from .conftest import Service, Serving

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


def test_a_start_that_lies_ahead_counts_as_one_of_now() -> None:
    assert next_start(DAY, None, 1000.0) == 1000.0
    assert next_start(DAY, 900.0, 1000.0) == 900.0 + DAY
    assert next_start(DAY, 1000.0 + 30 * DAY, 1000.0) == 1000.0 + DAY


async def scheduled(service: Service) -> dict[str, Any]:
    """Return the document of the scenario `daily`."""
    found = (await service.client.get("/api/scenarios")).json()["scenarios"]
    return next(each for each in found if each["name"] == "daily")


async def test_a_clock_that_was_ahead_holds_up_no_schedule(
    serving: Serving, daily: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "_LOOK_EVERY", 0.05)
    async with serving() as service:
        await service.desk.history.set_last_start("daily", time.time() + 30 * DAY)
        async with asyncio.timeout(30):
            while (await service.desk.history.last_starts())["daily"] > time.time():
                await asyncio.sleep(0.05)
        found = await scheduled(service)
        begun, following = (datetime.fromisoformat(found[key]) for key in ("last_at", "next_at"))
        assert (following - begun).total_seconds() == pytest.approx(DAY)


async def test_schedules_know_their_starts_without_the_runs(
    serving: Serving, daily: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "_LOOK_EVERY", 0.05)
    (daily / "nightly.toml").write_text((daily / "daily.toml").read_text())
    async with serving(keep_runs=1) as service:
        async with asyncio.timeout(30):
            while (await service.client.get("/api/runs/2")).status_code == 404:
                await asyncio.sleep(0.05)  # the second pushes out the first
        await service.ended(2)
        await asyncio.sleep(0.5)  # it looks
        assert len((await service.client.get("/api/runs")).json()["runs"]) == 1
        entries = (await service.client.get("/api/audit")).json()["entries"]
        assert [entry["action"] for entry in entries] == ["start", "start"]


@pytest.mark.parametrize(
    ("line", "why"),
    [("", "on_target: there is none; the targets are one, two"),
     ('on_target = "three"\n', "there is no target 'three'")],
)  # fmt: skip
async def test_a_schedule_that_can_never_start_is_said(
    line: str, why: str, serving: Serving, scenarios: Path
) -> None:
    (scenarios / "daily.toml").write_text(f'workload = "noop"\nevery = "1d"\n{line}')
    async with serving() as service:
        found = await scheduled(service)
        assert why in found["problem"]
        assert found["can_run"]
        assert found["next_at"] is None
        async with asyncio.timeout(30):
            while "notes" not in (answer := (await service.client.get("/readyz")).json()):
                await asyncio.sleep(0.05)
        assert why in answer["notes"][0]


async def test_numbers_that_nothing_can_hold_are_the_problem_of_their_file(
    serving: Serving, daily: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "_LOOK_EVERY", 0.05)
    text = (daily / "daily.toml").read_text()
    (daily / "daily.toml").unlink()
    wrong = {
        "digits": f"ops = {'9' * 5000}\n",
        "large": f"ops = {'9' * 400}\n",
        "long": 'every = "999999999999999d"\n',
        "infinite": "duration = inf\n",
        "none": "rate = nan\n",
        "huge": "duration = 1e999\n",
        "seldom": "every = 1e300\n",
        "deep": f"ops = {'[' * 20000}{']' * 20000}\n",
    }
    for name, line in wrong.items():
        (daily / f"{name}.toml").write_text(f'workload = "noop"\n{line}')
    async with serving() as service:
        answer = await service.client.get("/api/scenarios")
        assert answer.status_code == 200
        found = {each["name"]: each for each in answer.json()["scenarios"]}
        for name in wrong:
            assert found[name]["problem"], name
            run = {"scenario": name, "target": "one"}
            assert (await service.client.post("/api/runs", json=run)).status_code == 422, name
        (daily / "daily.toml").write_text(text)  # the other schedules go on
        async with asyncio.timeout(30):
            while not (await service.client.get("/api/runs")).json()["runs"]:
                await asyncio.sleep(0.05)


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
        await service.desk.history.change(number, ended_at=1.0)
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
