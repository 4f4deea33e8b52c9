"""What Prometheus is told."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from .conftest import Service, Serving

# Base units, by which a name of theirs ends: https://prometheus.io/docs/practices/naming/
UNITS = ("_seconds", "_bytes", "_ratio", "_info", "_total")
COUNTS = {
    "async_loader_history_runs", "async_loader_watchers", "async_loader_run_connections",
    "async_loader_run_connection_waiters", "async_loader_run_throughput_operations_per_second",
    "async_loader_last_run_state", "async_loader_last_run_operations", "async_loader_target_up",
    "async_loader_last_run_throughput_operations_per_second", "async_loader_schedule_up",
}  # fmt: skip


async def told(service: Service) -> dict[str, Metric]:
    answer = await service.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families)
    return {family.name: family for family in families}


async def test_a_live_run_and_the_history_are_told_by_prometheus_conventions(
    service: Service,
) -> None:
    passed = await service.start("nothing")
    await service.ended(passed)
    number = await service.start("long", "two")
    run = await service.until(number, lambda run: (run["snapshot"] or {}).get("completed", 0) > 0)
    found = await told(service)
    labels = {"scenario": "long", "target": "two"}

    def value(name: str, **more: str) -> float:
        (sample,) = (
            sample
            for family in found.values()
            for sample in family.samples
            if sample.name == name and sample.labels == more
        )
        return sample.value

    assert value("async_loader_history_runs", state="passed") == 1
    assert value("async_loader_history_runs", state="running") == 1
    assert value("async_loader_history_runs", state="interrupted") == 0
    assert value("async_loader_watchers") == 0
    done = value("async_loader_run_operations_total", outcome="done", **labels)
    assert done >= run["snapshot"]["completed"]
    assert value("async_loader_run_latency_seconds_count", **labels) == done
    p99 = value("async_loader_run_latency_seconds", quantile="0.99", **labels)
    assert 0.0001 < p99 < 10
    assert p99 >= value("async_loader_run_latency_seconds", quantile="0.5", **labels)
    assert value("async_loader_run_duration_seconds", **labels) > 0
    assert value("async_loader_run_throughput_operations_per_second", **labels) > 0
    assert value("async_loader_run_connections", **labels) <= 2
    assert value("async_loader_run_connection_waiters", **labels) >= 0  # some, on a busy machine
    assert value("process_cpu_seconds_total") > 0
    for family in found.values():
        assert re.fullmatch("[a-z][a-z0-9_]*", family.name)
        assert family.documentation
        for sample in family.samples:
            ours = sample.name.startswith("async_loader_")
            if ours and family.type != "summary":
                assert sample.name.endswith(UNITS) or family.name in COUNTS, sample.name
            assert ("quantile" in sample.labels) <= (family.type == "summary"), sample.name
    await service.client.post(f"/api/runs/{number}/stop")
    await service.ended(number)
    assert found.keys() >= (await told(service)).keys()
    assert "async_loader_run_connections" not in {
        sample.name for family in (await told(service)).values() for sample in family.samples
    }


async def test_of_ended_runs_the_last_stays_through_a_restart(
    serving: Serving, scenarios: Path
) -> None:
    (scenarios / "daily.toml").write_text(
        'workload = "noop"\nevery = "1d"\non_target = "nowhere"\n'
    )
    for restart in range(2):
        async with serving() as service:
            if not restart:
                for _ in range(2):
                    run = await service.ended(await service.start("nothing"))
            found = await told(service)
            of = {"scenario": "nothing", "target": "one"}
            (done,) = (
                sample.value
                for sample in found["async_loader_last_run_operations"].samples
                if sample.labels == of | {"outcome": "completed"}
            )
            assert done == run["figures"]["completed"] == 1000
            states = {
                s.labels["state"]: s.value for s in found["async_loader_last_run_state"].samples
            }
            assert [state for state, value in states.items() if value] == ["passed"]
            quantiles = found["async_loader_last_run_latency_seconds"].samples
            assert [s.labels["quantile"] for s in quantiles] == ["0.5", "0.95", "0.99"]
            (can,) = found["async_loader_schedule_up"].samples
            assert (can.labels, can.value) == ({"scenario": "daily"}, 0.0)


async def test_targets_say_whether_they_answer(serving: Serving, database_url: str) -> None:
    nowhere = "postgresql://me@127.0.0.1:1/none"
    async with serving(target=f"one={database_url},gone={nowhere}") as service:
        async with asyncio.timeout(30):
            while len(service.desk.health.problems) < 2:
                await asyncio.sleep(0.05)
        up = (await told(service))["async_loader_target_up"].samples
        assert {s.labels["target"]: s.value for s in up} == {"one": 1.0, "gone": 0.0}
        targets = (await service.client.get("/api/targets")).json()["targets"]
        assert [target["up"] for target in targets] == [True, False]
        assert "nothing listens at 127.0.0.1:1" in targets[1]["problem"]
        assert "database_url" not in targets[1]["problem"]
        ready = (await service.client.get("/readyz")).json()
        assert [note for note in ready["notes"] if note.startswith("target gone:")]
