"""What clients send that is no harm: probes, HEAD, wrong methods, ids that are none."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from async_loader.service.live import event_number
from tests.unit.runs import made_up_run

from .conftest import Service, Serving


async def test_head_is_answered_wherever_get_is(service: Service) -> None:
    number = await service.have(made_up_run(random.Random(1)))
    run = f"/api/runs/{number}"
    paths = ["/", "/page/now.js", "/healthz", "/readyz", "/metrics", "/api/openapi.json", run]
    paths += ["/api/runs", "/api/scenarios", f"{run}/report.html", f"{run}/events", "/api/nothing"]
    for path in paths:
        got, head = await service.client.get(path), await service.client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"], path
    for path in ("/", "/api/scenarios"):
        got, head = await service.client.get(path), await service.client.head(path)
        assert head.headers["content-length"] == got.headers["content-length"] != "0"


async def test_head_watches_nothing(service: Service) -> None:
    number = await service.start("endless")
    head = await service.client.head(f"/api/runs/{number}/events")
    assert head.headers["content-type"].startswith("text/event-stream")
    assert service.desk.watchers.now == 0
    await service.client.post(f"/api/runs/{number}/stop")
    await service.ended(number)


async def test_a_wrong_method_is_told_the_right_ones(service: Service) -> None:
    for method, path, allowed in (
        ("PUT", "/api/runs", "GET, HEAD, POST"),
        ("DELETE", "/healthz", "GET, HEAD"),
        ("GET", "/api/runs/1/stop", "POST"),
        ("HEAD", "/api/runs/1/stop", "POST"),
        ("POST", "/", "GET, HEAD"),
        ("PATCH", "/api/openapi.json", "GET, HEAD"),
        ("OPTIONS", "/api/session", "GET, HEAD, POST"),
    ):
        answer = await service.client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed), (method, path)


async def test_a_probe_may_call_the_service_as_it_will(service: Service) -> None:
    foreign = {"Host": "10.1.2.3:8642"}
    for path in ("/healthz", "/readyz"):
        assert (await service.client.get(path, headers=foreign)).status_code == 200
    for path in ("/", "/metrics", "/api/runs", "/healthz/x"):
        assert (await service.client.get(path, headers=foreign)).status_code == 421


@pytest.mark.parametrize("name", ["9" * 5000, "٣", "-1", "1.0", " 7", "7\n", "nan", ""])
def test_an_event_id_of_somebody_elses_is_none(name: str) -> None:
    assert event_number(name) == 0
    assert event_number("17") == 17


async def test_no_answer_keeps_a_seat(serving: Serving) -> None:
    async with serving(max_watchers=1) as service:
        number = await service.start("endless")
        path = f"/api/runs/{number}/events"
        for _ in range(3):
            async with service.client.stream(
                "GET", path, headers={"Last-Event-ID": "9" * 5000}
            ) as answer:
                assert answer.status_code == 200
            async with asyncio.timeout(30):  # until it is noticed that the watcher has gone
                while service.desk.watchers.now:
                    await asyncio.sleep(0.01)
        await service.client.post(f"/api/runs/{number}/stop")
        await service.ended(number)


async def test_nobody_else_reads_the_history(serving: Serving, tmp_path: Path) -> None:
    for name in ("history.sqlite", "history.sqlite.lock"):  # of an earlier version
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o644)
    async with serving() as service:
        await service.ended(await service.start("nothing"))
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("history.*")}
    assert set(modes) >= {"history.sqlite", "history.sqlite-wal", "history.sqlite-shm"}
    assert set(modes.values()) == {0o600}
