"""The bars of the service: what watchers cost a run, and how long a list of runs takes."""

from __future__ import annotations

import asyncio
import json
import random
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import async_sessionmaker

from async_loader.database.backends import backend_of
from async_loader.database.postgresql import closing
from async_loader.database.urls import parse_url
from async_loader.service.history_database import open_history
from async_loader.service.tables import run
from tests.service.process import service_process

from .conftest import quote

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600)]

WATCHERS, MUTE = 100, 10
# Seconds with watchers and seconds without, in turns within one run; of each the first is left
# out, in which they come and go.
WINDOW, WINDOWS = 5, 8
RUNS, ASKED = 10_000, 400
MIB = 2**20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a scenario."""
    scenarios = tmp_path / "scenarios"
    scenarios.mkdir()
    # Reads only: what a commit takes differs by more, from one second to the next, than the bar.
    text = 'duration = "10m"\nconcurrency = 8\nwrite_ratio = 0\n'
    (scenarios / "mixed.toml").write_text(text)
    return tmp_path


def arguments(folder: Path, url: str) -> list[str]:
    return [
        "--config-dir", str(folder / "scenarios"), "--target", f"one={url}",
        "--history-url", f"sqlite:///{folder / 'history.sqlite'}", "--request-rate", "100000/s",
    ]  # fmt: skip


@contextmanager
def watching(port: int, number: int) -> Iterator[None]:
    """Have a hundred watch a run, ten of whom never read."""
    asked = f"GET /api/runs/{number}/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(WATCHERS)]
    over = threading.Event()

    def read() -> None:
        with selectors.DefaultSelector() as selector:
            for one in sockets[MUTE:]:
                selector.register(one, selectors.EVENT_READ)
            while not over.is_set():
                for key, _ in selector.select(0.2):
                    assert isinstance(key.fileobj, socket.socket)
                    key.fileobj.recv(65_536)

    for one in sockets:
        one.sendall(asked.encode())
    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()
        for one in sockets:
            one.close()


def test_watchers_cost_a_run_nothing(folder: Path, database_url: str) -> None:
    """Bar: 100 watchers, ten of them mute: throughput within 2 % of none, service memory flat."""
    memory: dict[bool, list[int]] = {True: [], False: []}
    windows: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    cpu: dict[bool, list[float]] = {True: [], False: []}
    with service_process(folder, *arguments(folder, database_url)) as service:
        port = service.client.base_url.port
        assert port is not None
        number = service.start("mixed")
        service.under_way(number)
        process = psutil.Process(service.processes()[0].ppid())

        def wait(seconds: float, watched: bool) -> None:
            began = service.under_way(number)["snapshot"]["seconds"]
            used = sum(process.cpu_times()[:2])
            time.sleep(seconds)
            cpu[watched].append((sum(process.cpu_times()[:2]) - used) / seconds)
            memory[watched].append(process.memory_info().rss)
            windows[watched].append((int(began) + 2, int(began) + int(seconds)))

        for _ in range(10):  # what is made once, is made
            with watching(port, number):
                time.sleep(0.5)
        for n in range(WINDOWS):  # in either order, so that no drift counts for one of them
            for watched in (n % 2 == 0, n % 2 == 1):
                with watching(port, number) if watched else nullcontext():
                    wait(WINDOW, watched)
        service.client.post(f"/api/runs/{number}/stop")
        service.until(number, lambda found: found["ended_at"] is not None)
        result = service.client.get(f"/api/runs/{number}/report.json").json()
    series = result["series"]["throughput"]
    rates = {
        watched: [statistics.mean(series[begin:end]) for begin, end in spans]
        for watched, spans in windows.items()
    }
    ratios = [a / b for a, b in zip(rates[True], rates[False], strict=True)]
    ratio = statistics.median(ratios)
    growth = max(statistics.median(m[-3:]) - statistics.median(m[:3]) for m in memory.values())
    quote(
        f"{WATCHERS} watchers against none",
        [
            f"{statistics.median(rates[True]):,.0f} against "
            f"{statistics.median(rates[False]):,.0f} operations/s",
            f"{ratio:.3f} x ({min(ratios):.2f} to {max(ratios):.2f})",
            f"the service's CPU {statistics.median(cpu[True]):.1%} of a core "
            f"against {statistics.median(cpu[False]):.1%}",
            *(
                f"memory {what} {m[0] / MIB:.1f} to {m[-1] / MIB:.1f} MiB"
                for what, m in (("without", memory[False]), ("with", memory[True]))
            ),
        ],
    )
    assert ratio >= 0.98
    assert growth < 2 * MIB


async def _fill(url: str, settings: dict[str, Any]) -> None:
    rng = random.Random(1)
    parsed = parse_url(url)
    async with open_history(parsed):
        pass
    figures = {
        "outcome": "done", "workload": "mixed", "load": "closed, 40 users",
        "seconds": 30.0, "completed": 35_000, "failed": 0, "indeterminate": 0, "dropped": 0,
        "throughput": 1072.0, "error_rate": 0.0, "p50_ms": 30.1, "p95_ms": 41.5, "p99_ms": 90.2,
    }  # fmt: skip
    rows: list[dict[str, Any]] = [
        {
            "state": "passed" if rng.random() < 0.95 else "failed",
            "scenario": f"scenario-{rng.randrange(20)}",
            "target": f"target-{rng.randrange(3)}",
            "overrides": {},
            "settings": settings,
            "started_by": "ci (10.0.0.1)",
            "scheduled": 0,
            "started_at": time.time() - 30 * (RUNS - n),
            "ended_at": time.time() - 30 * (RUNS - n) + 30,
            "reasons": [],
            "figures": figures,
        }
        for n in range(RUNS)
    ]
    engine = backend_of(parsed).create_engine(parsed, pool_size=1)
    async with closing(engine), async_sessionmaker(engine).begin() as session:
        await session.execute(insert(run), rows)


def test_a_list_of_many_runs_is_quick(folder: Path, database_url: str) -> None:
    """Bar: `GET /api/runs` with 10,000 runs in the history, p95 at most 50 ms."""
    argv = arguments(folder, database_url)
    settings = {f"option_{n}": n for n in range(35)}
    asyncio.run(_fill(argv[argv.index("--history-url") + 1], settings))
    rng = random.Random(2)
    queries: list[Callable[[], str]] = [
        lambda: "",
        lambda: f"?before={rng.randrange(100, RUNS)}",
        lambda: f"?scenario=scenario-{rng.randrange(20)}",
        lambda: "?state=failed&target=target-1",
        lambda: "?state=error",  # none: all are looked through
    ]
    seconds: dict[int, list[float]] = {n: [] for n in range(len(queries))}
    with service_process(folder, *argv) as service:
        for _ in range(ASKED // len(queries)):
            for n, query in enumerate(queries):
                began = time.perf_counter()
                answer = service.client.get(f"/api/runs{query()}")
                seconds[n].append(time.perf_counter() - began)
                assert answer.status_code == 200
        shown = len(json.loads(service.client.get("/api/runs").content)["runs"])
        assert shown == 50
    everything = [one for some in seconds.values() for one in some]
    p95 = statistics.quantiles(everything, n=20)[-1]
    slowest = max(statistics.quantiles(some, n=20)[-1] for some in seconds.values())
    quote(
        f"GET /api/runs of {RUNS:,} runs",
        [
            f"p50 {statistics.median(everything) * 1e3:.1f} ms",
            f"p95 {p95 * 1e3:.1f} ms",
            f"of the slowest kind of query {slowest * 1e3:.1f} ms",
        ],
    )
    assert slowest <= 0.050
