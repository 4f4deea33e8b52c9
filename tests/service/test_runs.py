"""Runs started, watched, stopped and read over HTTP."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader.results.run import RunResult
from tests.unit.runs import made_up_run

from .conftest import Service

Event = tuple[str, str, dict[str, Any]]


async def events(
    client: httpx.AsyncClient, number: int, last: str | None = None
) -> AsyncGenerator[Event, None]:
    headers = {} if last is None else {"Last-Event-ID": last}
    async with client.stream("GET", f"/api/runs/{number}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        found: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                found[name] = value
            elif "data" in found:
                yield found["id"], found["event"], json.loads(found["data"])
                found = {}


async def schemas(engine: AsyncEngine) -> int:
    query = text("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'async_loader_run_%'")
    async with engine.connect() as connection:
        return int(await connection.scalar(query) or 0)


async def test_a_run_from_its_start_to_its_reports(service: Service, engine: AsyncEngine) -> None:
    number = await service.start("mixed", ops=60, seed=7)
    run = await service.ended(number)
    assert (run["state"], run["reasons"], run["has_result"]) == ("passed", [], True)
    assert run["overrides"] == {"ops": 60, "seed": 7}
    assert run["figures"]["completed"] == 60
    assert run["snapshot"]["completed"] == 60
    report = await service.client.get(f"/api/runs/{number}/report.json")
    result = RunResult.from_dict(report.json())
    assert result.completed == 60
    assert result.settings["seed"] == 7
    for suffix, beginning in (("html", "<!doctype html>"), ("xml", "<?xml"), ("md", "#")):
        answer = await service.client.get(f"/api/runs/{number}/report.{suffix}")
        assert answer.status_code == 200
        assert answer.text.lower().startswith(beginning)
    assert await schemas(engine) == 0


@pytest.mark.soak
async def test_a_run_is_split_over_processes(service: Service, engine: AsyncEngine) -> None:
    run = await service.ended(await service.start("split", ops=200))
    assert (run["state"], run["figures"]["completed"]) == ("passed", 200)
    assert run["snapshot"]["completed"] == 200
    result = (await service.client.get(f"/api/runs/{run['id']}/report.json")).json()
    assert result["process"]["processes"] == 2
    assert await schemas(engine) == 0


async def test_events_are_a_snapshot_a_second_and_end_with_the_verdict(service: Service) -> None:
    number = await service.start("endless", duration=2.1)
    found = [event async for event in events(service.client, number)]
    kinds = [kind for _, kind, _ in found]
    assert kinds[-1] == "end"
    assert found[-1][2] == {"state": "passed", "reasons": []}
    seconds = [data["seconds"] for _, kind, data in found if kind == "snapshot"]
    assert seconds == sorted(seconds)
    assert seconds[-1] >= 2  # the last one is of the end
    steps = [after - before for before, after in pairwise(seconds[:-1])]
    assert all(step >= 0.9 for step in steps)


async def test_a_watcher_that_comes_back_goes_on_behind_what_it_has_seen(service: Service) -> None:
    number = await service.start("endless", duration=2)
    watching = events(service.client, number)
    seen = [await anext(watching) for _ in range(2)]
    await watching.aclose()
    rest = [event async for event in events(service.client, number, seen[-1][0])]
    numbers = [int(name) for name, _, _ in (*seen, *rest[:-1])]
    assert numbers == list(range(1, len(numbers) + 1))
    after = await service.client.get(
        f"/api/runs/{number}/events", headers={"Last-Event-ID": rest[-1][0]}
    )
    assert after.status_code == 204
    assert rest[-1] == ("end", "end", {"state": "passed", "reasons": []})  # nobody stopped it
    late = [event async for event in events(service.client, number)]
    assert late == [rest[-1]]


async def test_who_starts_a_run_may_go_at_once(service: Service) -> None:
    url = service.client.base_url
    body = b'{"scenario": "nothing", "target": "one"}'
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        b"POST /api/runs HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-Async-Loader: 1\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % (url.port or 0, len(body))
        + body
    )
    await writer.drain()
    writer.transport.abort()
    async with asyncio.timeout(30):
        while (await service.client.get("/api/runs/1")).status_code == 404:
            await asyncio.sleep(0.02)
    assert (await service.ended(1))["state"] == "passed"


async def test_a_stop_drains_and_keeps_the_result(service: Service, engine: AsyncEngine) -> None:
    number = await service.start("long")
    await service.until(number, lambda run: (run["snapshot"] or {}).get("completed", 0) > 0)
    assert await schemas(engine) == 1
    answer = await service.client.post(f"/api/runs/{number}/stop")
    assert (answer.status_code, answer.json()["state"]) == (202, "stopping")
    run = await service.ended(number)
    assert run["state"] == "stopped"
    assert run["figures"]["completed"] > 0
    assert "local stopped the run before its end" in run["reasons"]
    report = (await service.client.get(f"/api/runs/{number}/report.json")).json()
    assert (report["outcome"], report["stopped_by"]) == ("interrupted", "local")
    assert await schemas(engine) == 0
    again = await service.client.post(f"/api/runs/{number}/stop")
    assert again.status_code == 409


async def test_fifty_starts_at_once_are_one_run(service: Service) -> None:
    body = {"scenario": "endless", "target": "one"}
    answers = await asyncio.gather(
        *(service.client.post("/api/runs", json=body) for _ in range(50))
    )
    started = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    assert len(started) == 1
    refused = [answer for answer in answers if answer.status_code == 409]
    assert len(refused) == 49
    assert {answer.json()["run"] for answer in refused} == set(started)
    assert await service.start("nothing", "two") != started[0]  # another target is free


async def test_a_run_that_cannot_be_run_says_why(service: Service, scenarios: Path) -> None:
    (scenarios / "absent.toml").write_text('workload = "nowhere.at_all:workload"\n')
    run = await service.ended(await service.start("absent"))
    assert run["state"] == "error"
    assert "nowhere" in run["reasons"][0]
    report = await service.client.get(f"/api/runs/{run['id']}/report.json")
    assert report.status_code == 404


async def test_two_runs_are_compared_on_the_same_axes(service: Service) -> None:
    rng = random.Random(1)
    for slower in (0.0, 0.5):
        await service.have(made_up_run(rng, slower=slower))
    compared = (await service.client.get("/api/compare?run=1&run=2")).json()
    assert [run["id"] for run in compared["runs"]] == [1, 2]
    assert [run["label"] for run in compared["charts"]["runs"]] == ["run 1", "run 2"]
    assert "regression" in {change["finding"] for change in compared["changes"]}
    page = await service.client.get("/api/compare/report.html?run=1&run=2")
    assert "2 of 2 runs passed" in page.text
    chart = (await service.client.get("/api/runs/1/charts")).json()["runs"][0]
    assert chart == compared["charts"]["runs"][0]
    for query in ("run=1", "run=1&run=1"):
        assert (await service.client.get(f"/api/compare?{query}")).status_code == 422
    assert (await service.client.get("/api/compare?run=1&run=9")).status_code == 404


async def test_runs_are_listed_by_page_and_by_what_they_are(service: Service) -> None:
    result = made_up_run(random.Random(1))
    for scenario, target in (("nothing", "one"), ("mixed", "one"), ("nothing", "two")):
        await service.have(result, scenario, target)

    async def listed(query: str) -> list[int]:
        answer = await service.client.get(f"/api/runs?{query}")
        return [run["id"] for run in answer.json()["runs"]]

    assert await listed("") == [3, 2, 1]
    assert await listed("limit=2") == [3, 2]
    assert await listed("limit=2&before=2") == [1]
    assert await listed("scenario=nothing") == [3, 1]
    assert await listed("target=two") == [3]
    assert await listed("state=error") == []
