"""The bar of the service's page: its first chart within 1 s on loopback, under 200 KB in all."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import MISSING, REASON, Browser, browser
from tests.service.process import ServiceProcess, service_process

from .conftest import ROUNDS, quote

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.timeout(600),
    pytest.mark.skipif(MISSING, reason=REASON),
]

# report.js and figure.js leave a mark once a chart is drawn; it counts from the navigation's start.
_DRAWN = "return performance.getEntriesByName('drawn')[0]?.startTime"
_BYTES = """return performance.getEntries().filter(
    e => "decodedBodySize" in e && !new URL(e.name).pathname.startsWith("/api/")
).reduce((sum, e) => sum + e.decodedBodySize, 0)"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, server_directory: Path) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "mixed.toml").write_text('duration = "5s"\nconcurrency = 4\n')
    (folder / "long.toml").write_text('duration = "10m"\nconcurrency = 1\n')
    history = f"sqlite:///{folder / 'history.sqlite'}"
    argv = ["--config-dir", str(folder), "--target", "one=embedded", "--history-url", history]
    argv += ["--server-directory", str(server_directory / "page"), "--request-rate", "100000/s"]
    with service_process(folder, *argv) as running:
        for _ in range(2):
            number = running.start("mixed")
            running.until(number, lambda run: run["ended_at"] is not None)
        yield running


@pytest.mark.parametrize("what", ["a run that has ended", "a run that goes on", "two runs"])
def test_how_soon_the_first_chart_is_drawn(service: ServiceProcess, what: str) -> None:
    """Bar: 1 s, the first time and after."""
    number = service.start("long") if what == "a run that goes on" else None
    if number is not None:
        service.under_way(number)
    path = "/compare?run=1&run=2" if what == "two runs" else "/"
    with browser() as opened:
        opened.visit("about:blank")
        url = str(service.client.base_url.join(path))
        times = [_drawn(opened, url) / 1e3]
        size = opened.script(_BYTES)  # later ones come from the browser's cache
        times += [_drawn(opened, url) / 1e3 for _ in range(ROUNDS - 1)]
        assert opened.complaints == []
    if number is not None:
        service.client.post(f"/api/runs/{number}/stop")
        service.until(number, lambda run: run["ended_at"] is not None)
    quote(what, [f"first {times[0]:.2f} s", f"median {statistics.median(times):.2f} s"])
    quote("its size", [f"{size / 1000:.0f} KB"])
    assert max(times) < 1
    assert 50_000 < size < 200_000


def _drawn(page: Browser, url: str) -> float:
    page.visit(url)
    while (found := page.script(_DRAWN)) is None:
        pass
    return float(found)
