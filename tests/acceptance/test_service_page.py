"""The service's pages in a browser: a run started, watched, stopped and compared."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from async_loader.concurrency.stop import Stop
from async_loader.database.embedded import EmbeddedServer
from async_loader.jobs import BatchJob
from async_loader.runtime.user_modules import load_module
from tests.browser import MISSING, REASON, Browser, browser
from tests.service.process import ServiceProcess, service_process
from tests.service.test_deaths import gone
from tests.service.test_jobs import JOB

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)

# Beside runs, files that are none: what they say comes to the page as text.
SCENARIOS = {
    "mixed": "ops = 60\nconcurrency = 4\n",
    "long": 'duration = "10m"\nconcurrency = 2\n',
    "odd": 'workload = "{folder}/failing.py:workload"\nduration = "10m"\nrate = "40/s"\n',
    "hostile": '"<img src=x onerror=boom()>" = 1\n',
}
FAILING = """
from async_loader import OperationContext, Workload

workload = Workload("failing")

@workload.operation("odd", kind="read")
async def odd(op: OperationContext) -> None:
    if op.index % 2:
        raise (ValueError if op.index % 4 == 1 else KeyError)("<b>odd</b>")
"""
# The same job, with time to look at it and to press a button.
SLOW = (
    JOB.replace('"row"', '"slow_row"')
    .replace('"mark"', '"slow"')
    .replace("    for row in rows:", "    await asyncio.sleep(0.25)\n    for row in rows:")
)
SIZES = {"phone": (360, 780), "tablet": (900, 900), "wide": (1600, 1000)}
MOST_BYTES = 200_000
# What a tile shows, and what the API calls it: of a snapshot, and of a result.
LIVE = {"throughput": "rate", "p50": "p50_ms", "p95": "p95_ms", "p99": "p99_ms"} | {
    "completed": "completed", "failed": "bad", "connections": "in_use", "waiting for one": "waiting"
}  # fmt: skip
ENDED = {"throughput": "throughput", "completed": "completed", "failed": "failed"} | {
    name: f"{name}_ms" for name in ("p50", "p95", "p99")
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the service works on: scenarios, and the code of a job."""
    found = tmp_path_factory.mktemp("service")
    (found / "scenarios").mkdir()
    for name, content in SCENARIOS.items():
        (found / "scenarios" / f"{name}.toml").write_text(content.replace("{folder}", str(found)))
    (found / "failing.py").write_text(FAILING)
    (found / "marking.py").write_text(JOB)
    (found / "slow.py").write_text(f"import asyncio\n{SLOW}")
    return found


@pytest.fixture(scope="module")
def target(server: EmbeddedServer, folder: Path) -> str:
    """A database with a job that was stopped in its midst."""
    # Another one each time: a process may come back to the tests of this file.
    name = f"page_{folder.name}"
    url = make_url(server.url).set(database=name).render_as_string(hide_password=False)
    asyncio.run(_prepare(server.url, name, url, folder / "marking.py"))
    return url


async def _prepare(admin: str, name: str, url: str, code: Path) -> None:
    engine = create_async_engine(admin, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    await engine.dispose()
    await _begin(url, code, "row")


async def _begin(url: str, code: Path, table: str) -> None:
    """Begin a job on a new table, and stop it behind its first chunk."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        columns = "id int PRIMARY KEY, done bool NOT NULL"
        await connection.execute(text(f"CREATE TABLE {table} ({columns})"))
        rows = f"INSERT INTO {table} SELECT n, false FROM generate_series(1, 200) n"
        await connection.execute(text(rows))
    module = load_module(str(code))
    stop = Stop()
    vars(module)["asked"] = stop
    assert isinstance(module.job, BatchJob)
    await module.job.run(async_sessionmaker(engine), stop=stop)
    await engine.dispose()


def arguments(folder: Path, target: str, history: str) -> list[str]:
    """Return the command line of a service on a target."""
    return [
        "--config-dir", str(folder / "scenarios"), "--target", f"one={target}",
        "--job", f"mark={folder / 'marking.py'}:job,slow={folder / 'slow.py'}:job",
        "--request-rate", "100000/s",
        "--history-url", f"sqlite:///{folder / history}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def service(folder: Path, target: str) -> Iterator[ServiceProcess]:
    """The service, as a process."""
    with service_process(folder, *arguments(folder, target, "history.sqlite")) as running:
        yield running


@pytest.fixture(autouse=True)
def _alone(service: ServiceProcess) -> Iterator[None]:
    """Leave no run on the target to the next test."""
    yield
    for run in service.client.get("/api/runs?state=running").json()["runs"]:
        service.client.post(f"/api/runs/{run['id']}/stop")
        ended(service, run["id"])


@pytest.fixture(scope="module")
def two(service: ServiceProcess) -> list[int]:
    """Two runs of the same scenario that have ended."""
    return [ended(service, service.start("mixed"))["id"] for _ in range(2)]


@pytest.fixture(scope="module")
def _browser() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def page(_browser: Browser) -> Iterator[Browser]:
    """A browser that has nothing to complain about."""
    size(_browser, "wide")
    yield _browser
    _browser.visit("about:blank")
    assert _browser.complaints == []


def size(page: Browser, name: str, *, dark: bool = False) -> None:
    width, height = SIZES[name]
    page.emulate(width=width, height=height, dark=dark)


def visit(page: Browser, service: ServiceProcess, path: str) -> None:
    page.visit(str(service.client.base_url.join(path)))


def until(holds: Callable[[], Any], why: str) -> Any:
    """Wait until something holds; return it."""
    limit = time.monotonic() + 60
    while not (found := holds()):
        assert time.monotonic() < limit, why
        time.sleep(0.05)
    return found


def told(page: Browser, selector: str) -> str:
    """Return an element's text, empty where there is none yet."""
    body = "return document.querySelector(arguments[0])?.textContent ?? ''"
    found: str = page.script(body, selector)
    return found


def reads(page: Browser, selector: str, wanted: str) -> None:
    """Wait for an element's text."""
    until(lambda: told(page, selector) == wanted, f"{selector}: not {wanted!r}")


def tiles(page: Browser) -> dict[str, str]:
    """Return the exact values of the tiles, by name."""
    found: dict[str, str] = page.script(
        """return Object.fromEntries([...document.querySelectorAll(".tiles > div")].map(
            tile => [tile.dataset.figure, tile.querySelector("data").value]))"""
    )
    return found


def same(page: Browser, document: dict[str, Any], names: dict[str, str]) -> bool:
    """Return whether all tiles show what the API says."""
    shown = tiles(page)
    return {name: float(shown.get(name, "nan")) for name in names} == {
        tile: document[name] for tile, name in names.items()
    }


def charts(page: Browser) -> list[str]:
    """Return the charts that are seen, each with lines on it."""
    found: list[str] = page.script(
        """return [...document.querySelectorAll("figure:not([hidden])")].filter(figure => {
            const canvas = figure.querySelector("canvas");
            const copy = new OffscreenCanvas(canvas.width, canvas.height);
            const context = copy.getContext("2d", {willReadFrequently: true});
            context.drawImage(canvas, 0, 0);
            const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
            let inked = 0;
            for (let at = 3; at < data.length; at += 4) inked += data[at] > 0;
            return inked > 500;
        }).map(figure => figure.dataset.chart)"""
    )
    return found


def ended(service: ServiceProcess, number: int) -> dict[str, Any]:
    return service.until(number, lambda run: run["ended_at"] is not None)


def tab_to(page: Browser, selector: str) -> None:
    """Go to an element as one without a mouse does."""
    for _ in range(60):
        page.key("Tab")
        if page.script("return document.activeElement.matches(arguments[0])", selector):
            return
    raise AssertionError(f"no Tab leads to {selector}")


def test_a_run_is_started_watched_and_stopped(page: Browser, service: ServiceProcess) -> None:
    visit(page, service, "/")
    until(lambda: told(page, "#start [name=scenario]") == "longmixedodd", "no scenarios")
    until(lambda: "one" in told(page, "#start [name=target]"), "no targets")
    tab_to(page, "#start [name=concurrency]")
    page.type("3")
    tab_to(page, "#start button.primary")
    page.key("Enter")
    reads(page, "#state", "Running")
    number = int(page.script("return new URLSearchParams(location.search).get('run')"))
    run = service.under_way(number)
    assert (run["scenario"], run["overrides"]) == ("long", {"concurrency": 3})
    until(
        lambda: same(page, service.client.get(f"/api/runs/{number}").json()["snapshot"], LIVE),
        "other figures than the API's",
    )
    reads(page, "#line", "Live")
    until(lambda: len(charts(page)) == 4, "no charts")
    assert charts(page) == ["throughput", "latency", "connections", "split"]
    page.press("#stop", "Enter")
    reads(page, "#state", "Stopped")
    run = ended(service, number)
    assert run["state"] == "stopped"
    assert same(page, run["figures"], ENDED)
    until(lambda: "percentiles" in charts(page), "no charts of the result")
    assert told(page, "#announced") == f"Run {number}: stopped"
    assert page.script("return document.title").startswith(f"Stopped: run {number}")


def test_the_form_offers_what_the_api_takes(page: Browser, service: ServiceProcess) -> None:
    visit(page, service, "/")
    until(lambda: told(page, "#about"), "no scenarios")
    document = service.client.get("/api/openapi.json").json()
    overrides = document["components"]["schemas"]["Overrides"]["properties"]
    controls = page.script(
        """return [...document.querySelectorAll("#start fieldset [name]")].map(e => e.name)"""
    )
    assert set(controls) == set(overrides)
    modes = page.script(
        "return [...document.querySelectorAll('[name=mode] option')].map(e => e.value)"
    )
    (taken,) = (each["enum"] for each in overrides["mode"]["anyOf"] if "enum" in each)
    assert modes == ["", *taken]
    bounds = service.client.get("/api/scenarios").json()["bounds"]
    for name, most in bounds.items():
        limit = page.script("return document.getElementsByName(arguments[0])[0].max", name)
        assert float(limit) == most


def test_what_is_refused_is_said_at_its_field(page: Browser, service: ServiceProcess) -> None:
    number = service.start("long")
    visit(page, service, "/")
    reads(page, "#state", "Running")
    page.press("#start button.primary", "Enter")
    until(lambda: f"run {number} is on 'one'" in told(page, "#refusal"), "not refused")
    assert page.script("return document.querySelector('#refusal a').getAttribute('href')") == (
        f"./?run={number}"
    )
    service.client.post(f"/api/runs/{number}/stop")
    reads(page, "#state", "Stopped")
    (refused,) = page.complaints
    assert "409" in refused


def test_two_runs_are_found_and_compared(
    page: Browser, service: ServiceProcess, two: list[int]
) -> None:
    first, second = two
    visit(page, service, "/history?scenario=mixed&state=passed")
    until(lambda: page.script("return document.querySelectorAll('#runs tbody a').length"), "none")
    listed = service.client.get("/api/runs?scenario=mixed&state=passed").json()["runs"]
    shown = page.script(
        "return [...document.querySelectorAll('#runs tbody th')].map(th => Number(th.textContent))"
    )
    assert shown == [run["id"] for run in listed]
    for number in (first, second):
        page.press(f"#choose-{number}", " ")
    assert told(page, "#chosen") == f"Runs {first} and {second} are chosen."
    page.press("#compare", "Enter")
    until(lambda: "/compare" in page.script("return location.href"), "not there")
    until(lambda: len(charts(page)) >= 3, "no charts")
    found = service.client.get(f"/api/compare?run={first}&run={second}").json()
    for run in found["runs"]:
        figures = page.script(
            """return Object.fromEntries([...document.querySelectorAll(
                `#figures tr[data-run="${arguments[0]}"] data`
            )].map(data => [data.dataset.figure, data.value]))""",
            run["id"],
        )
        assert len(figures) == 7
        assert {name: float(value) for name, value in figures.items()} == {
            name: run["figures"][name] for name in figures
        }
    checks = page.script(
        """return [...document.querySelectorAll("#changes tbody tr")].map(
            row => [row.dataset.check, row.cells[1].firstChild.textContent])"""
    )
    answers = [[change["check"], change["answer"].capitalize()] for change in found["changes"]]
    assert [[check, said.partition(" within")[0]] for check, said in checks] == answers
    assert told(page, "#state").partition(" within")[0] == found["answer"].capitalize()
    assert page.script(
        """return [...document.querySelectorAll("[data-chart=throughput] .u-label")].map(
            label => label.textContent)"""
    ) == ["Time", f"run {first}", f"run {second}"]


def test_a_job_is_resumed_to_its_end(page: Browser, service: ServiceProcess) -> None:
    visit(page, service, "/")
    until(lambda: told(page, "#jobs-target"), "no targets")
    page.press("#jobs summary", "Enter")
    reads(page, "#jobs-list .word", "Paused")
    page.press("#job-1-resume", "Enter")
    reads(page, "#jobs-list .word", "Done")
    job = service.client.get("/api/jobs/one/1").json()
    assert job["state"] == "done"
    shown = page.script("return document.querySelector('#jobs-list progress').value")
    assert shown == job["rows_read"] == 200


def test_what_fails_is_told_by_its_name(page: Browser, service: ServiceProcess) -> None:
    number = service.start("odd")
    visit(page, service, f"/?run={number}")
    shown = """return [...document.querySelectorAll("#errors:not([hidden]) tbody tr")].map(
        row => [row.cells[0].textContent, Number(row.cells[1].textContent)])"""

    def errors() -> dict[str, int]:
        return dict(page.script(shown))

    until(lambda: len(errors()) == 2, "no errors are shown")
    assert all(count > 0 for count in errors().values())
    assert page.script("return document.querySelector('#others').hidden")  # no run but this one
    until(lambda: len(charts(page)) == 3, "no charts")
    assert charts(page) == ["throughput", "latency", "split"]  # of a run without connections
    page.press("#stop", "Enter")
    reads(page, "#state", "Stopped")
    run = ended(service, number)
    assert errors() == run["snapshot"]["errors"]
    assert sum(errors().values()) == run["figures"]["failed"] > 0
    assert float(tiles(page)["failed"]) == run["figures"]["failed"]


def test_all_values_are_text(page: Browser, service: ServiceProcess) -> None:
    visit(page, service, "/")
    until(lambda: "onerror" in told(page, "#unusable"), "the scenario's problem is not shown")
    assert page.script("return document.images.length") == 0


# Everything that is read, against what is behind it (WCAG 2.2: 4.5 to 1, large text 3 to 1).
_CONTRAST = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
const rgba = (color) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = (color) => {
  const [r, g, b] = rgba(color).map(linear);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor;
    if (rgba(color)[3] === 255) return color;
  }
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const faint = [];
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  const text = walker.currentNode.textContent.trim();
  if (!text || !e.checkVisibility() || e.closest(":disabled, noscript, .said")) continue;
  const style = getComputedStyle(e);
  const [a, b] = [light(style.color), light(behind(e))].sort((x, y) => y - x);
  const isLarge = parseFloat(style.fontSize) >= 24;
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < (isLarge ? 3 : 4.5)) faint.push(`${text}: ${ratio.toFixed(2)}`);
}
return faint;
"""
# What is operated, and has no name to call it by.
_NAMELESS = """
const operated = document.querySelectorAll("button, a, input, select, progress, [tabindex='0']");
const isNamed = (e) => e.labels?.length || e.ariaLabel || e.getAttribute("aria-labelledby")
  || (e.textContent.trim() && !e.matches("select"));
return [...operated].filter((e) => !e.closest("[hidden]") && !isNamed(e)).map((e) => e.outerHTML);
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_fits_every_screen(
    page: Browser, service: ServiceProcess, two: list[int], tmp_path: Path, dark: bool
) -> None:
    comparison = f"/compare?run={two[0]}&run={two[1]}"
    paths = {"now": f"/?run={two[0]}", "history": "/history", "compare": comparison}
    for name, path in paths.items():
        size(page, "wide", dark=dark)
        visit(page, service, path)
        until(lambda: page.script("return document.querySelectorAll('tbody tr').length"), "none")
        for screen, (width, _) in SIZES.items():
            size(page, screen, dark=dark)
            page.screenshot(tmp_path / f"{name}-{screen}.png")
            assert page.script("return document.documentElement.scrollWidth") == width
            assert page.script(_CONTRAST) == []
        assert page.script(_NAMELESS) == []
        assert page.script("return document.querySelectorAll('h1').length") == 1


@pytest.mark.parametrize("path", ["/", "/history", "/compare"])
def test_a_page_is_light_and_all_our_own(page: Browser, service: ServiceProcess, path: str) -> None:
    visit(page, service, path)
    reads(page, "#line", "Ready")
    loaded = page.script(
        """return performance.getEntries().filter(e => "decodedBodySize" in e)
            .map(e => [new URL(e.name).host, new URL(e.name).pathname, e.decodedBodySize])"""
    )
    assert {host for host, _, _ in loaded} == {service.client.base_url.netloc.decode()}
    files = {path: length for _, path, length in loaded if not path.startswith("/api/")}
    assert {"/page/frame.js", "/page/service.css"} <= set(files)
    assert 20_000 < sum(files.values()) < MOST_BYTES


@pytest.mark.soak
def test_a_job_is_paused_and_goes_on(
    page: Browser, service: ServiceProcess, folder: Path, target: str
) -> None:
    asyncio.run(_begin(target, folder / "slow.py", "slow_row"))
    jobs = service.client.get("/api/jobs/one").json()["jobs"]
    number = jobs[0]["run"]
    item = f"#jobs-list [data-job='{number}']"

    def now() -> dict[str, Any]:
        found: dict[str, Any] = service.client.get(f"/api/jobs/one/{number}").json()
        return found

    visit(page, service, "/")
    until(lambda: told(page, "#jobs-target"), "no targets")
    if not page.script("return document.querySelector('#jobs').open"):
        page.press("#jobs summary", "Enter")
    reads(page, f"{item} .word", "Paused")
    page.press(f"#job-{number}-resume", "Enter")
    reads(page, f"{item} .word", "Running")
    until(lambda: now()["rows_read"] > 30, "it does not go on")
    workers = [each for each in service.processes() if "spawn_main" in str(each.cmdline())]
    assert workers
    page.press(f"#job-{number}-pause", "Enter")
    reads(page, f"{item} .word", "Paused")
    paused = now()
    assert paused["state"] == "paused"
    assert 30 < paused["rows_read"] < 200
    shown = f'return document.querySelector("{item} progress").value'
    until(lambda: page.script(shown) == now()["rows_read"], "other rows than the API's")
    assert gone(workers)
    assert now()["rows_read"] == page.script(shown)  # nothing was committed since
    page.press(f"#job-{number}-resume", "Enter")
    reads(page, f"{item} .word", "Done")
    assert now()["rows_read"] == page.script(shown) == 200


@pytest.mark.soak
def test_a_page_says_that_it_is_stale(page: Browser, service: ServiceProcess) -> None:
    number = service.start("long")
    visit(page, service, f"/?run={number}")
    until(lambda: "throughput" in charts(page), "nothing live")
    service.send(signal.SIGSTOP)
    try:
        until(lambda: told(page, "#line").startswith("Stale: no word since"), "not stale")
    finally:
        service.send(signal.SIGCONT)
    reads(page, "#line", "Live")
    service.client.post(f"/api/runs/{number}/stop")
    reads(page, "#state", "Stopped")


@pytest.mark.soak
def test_a_page_asks_for_a_token(page: Browser, folder: Path, target: str) -> None:
    argv = arguments(folder, target, "other.sqlite")
    known = f"ci=sha256:{hashlib.sha256(b'al_known').hexdigest()}"
    with service_process(folder, *argv, "--token", known) as service:
        visit(page, service, "/history")
        until(lambda: told(page, "h1") == "Log in", "not asked")
        page.type("al_wrong")
        page.key("Enter")
        reads(page, ".refusal", "this token is not known")
        page.script("document.querySelector('#token').value = ''")
        page.press("#token")
        page.type("al_known")
        page.key("Enter")
        reads(page, "h1", "History")
        reads(page, "#who span", "ci")
        page.press("#who button", "Enter")
        until(lambda: told(page, "h1") == "Log in", "still in")
    (refused,) = page.complaints
    assert "401" in refused


@pytest.mark.soak
def test_a_page_comes_back_by_itself(page: Browser, folder: Path, target: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    argv = [*arguments(folder, target, "other.sqlite"), "--port", port]
    with service_process(folder, *argv) as service:
        number = service.start("long")
        visit(page, service, "/")
        until(lambda: "throughput" in charts(page), "nothing live")
        service.send(signal.SIGKILL)
        service.wait()
        until(lambda: told(page, "#line").startswith("Not connected"), "nothing is said")
    with service_process(folder, *argv) as service:
        assert service.until(number, lambda run: True)["state"] == "interrupted"
        reads(page, "#state", "Interrupted")
        reads(page, "#line", "Ready")
        assert told(page, "#reasons") == "the service died meanwhile"
    assert page.complaints  # of the connections that were refused meanwhile
