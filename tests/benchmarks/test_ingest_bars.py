"""The bars of `ingest`: against the plain ways, in memory, and in the loop's lag."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from async_loader.concurrency.stop import Stop
from async_loader.database.urls import parse_url
from async_loader.ingest.demo import make_pairs
from async_loader.ingest.strategies import Measure, measure_ways
from async_loader.runtime.process import loop_factory
from tests.acceptance.conftest import environment

from .conftest import ROUNDS, quote

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

MEGABYTE = 1_000_000
FEW, MANY = 70, 7_000
# A process of its own: its greatest memory is its own, and so is its loop.
LOADER = """
import asyncio, json, resource, sys
from async_loader.database.backends import backend_of
from async_loader.database.urls import parse_url
from async_loader.ingest import ingest
from async_loader.runtime.process import run_until_stopped

async def lag(lags):
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        await asyncio.sleep(0.005)
        lags.append(loop.time() - began - 0.005)

async def main(stop):
    url = parse_url(sys.argv[1])
    engine = backend_of(url).create_engine(url, pool_size=8)
    sessions, _ = backend_of(url).session_factories(engine, reads_autocommit=False)
    lags = []
    watching = asyncio.create_task(lag(lags))
    done = await ingest(sys.argv[2], sessions)
    watching.cancel()
    await engine.dispose()
    lags.sort()
    print(json.dumps({
        "added": done.counts.added, "seconds": done.seconds,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "lag": lags[int(len(lags) * 0.99)] * 1e3, "longest": lags[-1] * 1e3,
    }))

run_until_stopped(main, "auto")
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/library.sqlite"
    found: str = request.getfixturevalue("database_url")
    return found


def load(url: str, folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", LOADER, url, str(folder)],
        check=True, stdout=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


def test_against_the_plain_ways(url: str, tmp_path: Path) -> None:
    """Bar: 70 pairs of 1 MB each, faster than sequential and than threads."""
    make_pairs(tmp_path / "files", FEW, audio=MEGABYTE)

    async def measure() -> tuple[Measure, ...]:
        return await measure_ways(
            os.path.realpath(tmp_path / "files"), parse_url(url), concurrency=16, chunk=None,
            rounds=ROUNDS, stop=Stop(),
        )  # fmt: skip

    with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:  # the command's own loop
        measures = {one.way: one for one in runner.run(measure())}
    quote(
        f"{FEW} pairs, {parse_url(url).get_backend_name()}",
        [f"{m.way} {m.seconds:.2f} s ({m.ratio:.2f} x)" for m in measures.values()],
    )
    assert measures["ours"].ratio > 1
    assert measures["ours"].ratio > measures["threads"].ratio


def test_many_pairs(url: str, tmp_path: Path) -> None:
    """Bars: memory flat (50 MB over that of 70 pairs), the loop's lag p99 under 20 ms."""
    make_pairs(tmp_path / "files", FEW, audio=150_000, side=320)
    few = load(url, tmp_path / "files")
    make_pairs(tmp_path / "files", MANY, first=FEW + 1, audio=150_000, side=320)
    many = load(url, tmp_path / "files")
    assert many["added"] == MANY
    quote(
        f"{MANY:,} pairs, {parse_url(url).get_backend_name()}",
        [
            f"{many['seconds']:.1f} s",
            f"memory {few['memory']:.0f} to {many['memory']:.0f} MiB",
            f"lag p99 {many['lag']:.1f} ms, longest {many['longest']:.1f} ms",
        ],
    )
    assert many["memory"] - few["memory"] <= 50
    assert many["lag"] < 20
