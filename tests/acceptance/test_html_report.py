"""The HTML report in a browser: what it shows is what was measured, and nothing complains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from async_loader import OperationResult, RunResult
from async_loader.reports import html
from async_loader.reports.page_data import MOST_POINTS
from async_loader.results.parts import PoolResult, Series
from async_loader.results.slices import Slice, Slices, bucket_of
from tests.browser import MISSING, REASON, Browser, browser
from tests.unit.reports.test_html_report import hostile
from tests.unit.results.test_results import histogram_of, result_of
from tests.unit.verdict.test_knee import step

from .conftest import Command

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)

SIZES = {"wide": (1280, 900), "phone": (390, 844)}
THRESHOLDS = ["op_duration{op:read}:max<5ms", "errors:rate<1%", "ops:count>=1"]


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


def measured(label: str = "semaphore", slower: int = 1) -> RunResult:
    """A run of ten seconds, of which the seventh was slow."""
    rates = tuple(20 if second != 6 else 4 for second in range(10))
    latencies = [slower * 10**6 * (n % 10 + 1) for n in range(sum(rates))]
    each = tuple(
        Slice.of({bucket_of(slower * (10**7 if rate == 4 else 10**6)): rate}, 0) for rate in rates
    )
    return replace(
        result_of(*latencies, seconds=10.0),
        mode=label,
        by_operation={
            "write": OperationResult("write", 92, 0, 0, histogram_of(*latencies[::2])),
            "read": OperationResult("read", 92, 0, 0, histogram_of(*latencies[1::2])),
        },
        pool=PoolResult(8, 8, 3),
        series=Series(rates, (0,) * 10, tuple(range(10)), (0,) * 9 + (3,)),
        slices=Slices(1.0, {"write": each, "read": each}),
        settings={"concurrency": 8, "threshold": THRESHOLDS, "max_error_rate": 0.01},
    )


def show(page: Browser, path: Path, text: str, *, size: str = "wide", dark: bool = False) -> None:
    path.write_text(text, encoding="utf-8")
    width, height = SIZES[size]
    page.emulate(width=width, height=height, dark=dark)
    page.open(path)


def texts(page: Browser, selector: str) -> list[str]:
    found: list[str] = page.script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText.trim())", selector
    )
    return found


def inked(page: Browser) -> list[int]:
    """Return how many pixels of each chart are drawn on."""
    counts: list[int] = page.script(
        """return [...document.querySelectorAll("canvas")].map(canvas => {
            const {width, height} = canvas;
            const copy = new OffscreenCanvas(width, height);
            const context = copy.getContext("2d", {willReadFrequently: true});
            context.drawImage(canvas, 0, 0);
            const {data} = context.getImageData(0, 0, width, height);
            let inked = 0;
            for (let at = 3; at < data.length; at += 4) inked += data[at] > 0;
            return inked;
        })"""
    )
    return counts


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_a_run_is_shown_as_it_was(page: Browser, tmp_path: Path, size: str, dark: bool) -> None:
    show(page, tmp_path / "run.html", html.render(measured()), size=size, dark=dark)
    assert texts(page, "h1") == ["Failed"]
    reason = "a threshold does not hold: op_duration{op:read}:max<5ms: found 10 ms"
    assert texts(page, ".verdict li") == [reason]
    tiles = dict(zip(texts(page, ".tiles dt"), texts(page, ".tiles dd"), strict=True))
    assert tiles["throughput"].split() == ["18", "ops/s"]
    assert tiles["p50"].split() == ["5.00", "ms"]
    assert tiles["connections"].split() == ["8", "of", "8"]
    assert texts(page, "figure h3") == [
        "Throughput", "Latency over time", "Connections", "Latency by percentile",
    ]  # fmt: skip
    assert min(inked(page)) > 1000
    width = SIZES[size][0]
    assert page.script("return document.documentElement.scrollWidth") == width
    assert page.script("return getComputedStyle(document.body).colorScheme").startswith(
        "dark" if dark else "light"
    )
    assert page.script("return performance.getEntriesByType('resource').length") == 0
    page.screenshot(tmp_path / "run.png")
    assert page.complaints == []


def settle(page: Browser) -> None:
    """Wait for two frames: one in which the page is told, one in which it has drawn."""
    page.script("return new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


def pixels(page: Browser, chart: str, condition: str) -> int:
    """Return how many pixels (r, g, b, a) of a chart fulfil a condition."""
    counted: int = page.script(
        f"""const canvas = document.querySelector("[data-chart={chart}] canvas");
        const copy = new OffscreenCanvas(canvas.width, canvas.height);
        const context = copy.getContext("2d", {{willReadFrequently: true}});
        context.drawImage(canvas, 0, 0);
        const {{data}} = context.getImageData(0, 0, canvas.width, canvas.height);
        let counted = 0;
        for (let at = 0; at < data.length; at += 4) {{
            const [r, g, b, a] = data.slice(at, at + 4);
            counted += {condition};
        }}
        return counted"""
    )
    return counted


def test_an_open_page_follows_the_width_of_its_window(page: Browser, tmp_path: Path) -> None:
    show(page, tmp_path / "run.html", html.render(measured()))
    page.emulate(width=390, height=844)
    settle(page)
    widths = page.script(
        "return [...document.querySelectorAll('.u-wrap')].map(e => e.getBoundingClientRect().width)"
    )
    assert max(widths) < 390
    assert page.script("return document.documentElement.scrollWidth") == 390
    assert page.complaints == []


def test_an_open_page_follows_the_preference(page: Browser, tmp_path: Path) -> None:
    show(page, tmp_path / "run.html", html.render(measured()))
    light, dark = "r === 37 && g === 99 && b === 201", "r === 110 && g === 168 && b === 254"
    assert pixels(page, "throughput", light) > 50
    assert pixels(page, "throughput", dark) == 0
    page.emulate(width=1280, height=900, dark=True)
    settle(page)
    assert pixels(page, "throughput", dark) > 50
    assert pixels(page, "throughput", light) == 0
    assert page.complaints == []


def test_a_long_run_has_its_band(page: Browser, tmp_path: Path) -> None:
    """Every tenth second stalls, which the mean of ten hardly shows."""
    rates = tuple(10 if second % 10 else 1 for second in range(10 * MOST_POINTS))
    series = Series(rates, (0,) * len(rates), (1,) * len(rates), (0,) * len(rates))
    run = replace(measured(), seconds=float(len(rates)), series=series)
    show(page, tmp_path / "long.html", html.render(run))
    # A fifth of the line's colour, from 1/s to 10/s of an axis that ends at 11.
    band = pixels(page, "throughput", "a > 40 && a < 62 && b > 150")
    assert band > 0.4 * pixels(page, "throughput", "true"), "half of the plot"
    assert page.complaints == []


def test_the_arrow_keys_read_a_chart(page: Browser, tmp_path: Path) -> None:
    show(page, tmp_path / "run.html", html.render(measured()))
    page.press("[data-chart=throughput] .plot", "Home", *["ArrowRight"] * 6)
    assert texts(page, "[data-chart=throughput] .said") == ["Time 6.5 s, Ended well 4/s"]
    legend = texts(page, "[data-chart=latency] .u-value")
    assert legend[0] == "6.5 s", "the charts over time share their place"
    assert legend[1].endswith(" ms")
    assert float(legend[1].split()[0]) == pytest.approx(10, rel=0.02)
    page.press("[data-chart=connections] .plot", "End")
    assert texts(page, "[data-chart=connections] .said") == [
        "Time 9.5 s, In use 9, Waiting for one 3, Pool size 8"
    ]
    page.press("[data-chart=percentiles] .plot", "Home", *["ArrowRight"] * 4)
    said = texts(page, "[data-chart=percentiles] .said")[0]
    assert said.startswith("Percentile 50%, All operations 5 ms")
    assert page.complaints == []


def test_a_line_is_hidden_and_figures_are_tables(page: Browser, tmp_path: Path) -> None:
    show(page, tmp_path / "run.html", html.render(measured()))
    first = "[data-chart=throughput] .u-series:nth-child(2) th"
    before = inked(page)[0]
    page.press(first, "Enter")
    assert page.script(
        "return document.querySelector(arguments[0]).ariaChecked", first
    ) == "false"  # fmt: skip
    assert inked(page)[0] < before
    page.script("document.querySelector('[data-chart=connections] details').open = true")
    page.script("return new Promise(requestAnimationFrame)")
    rows = texts(page, "[data-chart=connections] details tbody tr")
    assert [row.split("\t")[:3] for row in rows[:2]] == [["0.5 s", "0", "0"], ["1.5 s", "1", "0"]]
    assert len(rows) == 10
    assert page.complaints == []


def test_an_operation_is_chosen(page: Browser, tmp_path: Path) -> None:
    slow = (Slice.of({bucket_of(5 * 10**9): 3}, 0),) * 10
    run = measured()
    assert run.slices is not None
    slices = replace(run.slices, by_operation={**run.slices.by_operation, "write": slow})
    show(page, tmp_path / "run.html", html.render(replace(run, slices=slices)))
    page.script(
        """const select = document.querySelector("[data-chart=latency] select");
        select.value = "write";
        select.dispatchEvent(new Event("change"))"""
    )
    page.press("[data-chart=latency] .plot", "Home")
    values = texts(page, "[data-chart=latency] .u-value")
    assert [float(value.split()[0]) for value in values[1:]] == pytest.approx([5] * 3, rel=0.02)
    assert page.complaints == []


@pytest.mark.parametrize("size", SIZES)
def test_runs_are_laid_over_each_other(page: Browser, tmp_path: Path, size: str) -> None:
    ways = {name: [measured(name, n + 1)] for n, name in enumerate(["sync", "chunks", "threads"])}
    show(page, tmp_path / "ways.html", html.render_comparison(ways), size=size)
    assert texts(page, "h1") == ["Failed"]
    for chart in ("throughput", "latency", "connections", "percentiles"):
        labels = texts(page, f"[data-chart={chart}] .u-series:not(.edge) th")
        assert labels[1:] == ["sync", "chunks", "threads"], chart
    page.press("[data-chart=percentiles] .plot", "End")
    said = texts(page, "[data-chart=percentiles] .said")[0]
    assert said.endswith("sync 10 ms, chunks 20 ms, threads 30 ms")
    assert page.script("return document.documentElement.scrollWidth") == SIZES[size][0]
    page.screenshot(tmp_path / "ways.png")
    assert page.complaints == []


def test_a_sweep_is_drawn_by_load(page: Browser, tmp_path: Path) -> None:
    steps = [step(level, workers=4) for level in (1, 2, 4, 8)]
    show(page, tmp_path / "sweep.html", html.render_sweep(steps), size="phone")
    assert texts(page, "h1") == ["Concurrency 4"]
    page.press("[data-chart=load] .plot", "Home", "ArrowRight", "ArrowRight")
    assert texts(page, "[data-chart=load] .said") == [
        "Concurrency 4, Throughput 400/s, p50 10 ms, p95 10 ms, p99 10 ms"
    ]
    assert min(inked(page)) > 1000
    assert page.script("return document.documentElement.scrollWidth") == SIZES["phone"][0]
    assert page.complaints == []


def test_of_many_operations_one_is_chosen(page: Browser, tmp_path: Path) -> None:
    one = measured().by_operation["read"]
    names = [f"operation {n}" for n in range(12)]
    run = replace(measured(), by_operation=dict.fromkeys(names, one), slices=None)
    show(page, tmp_path / "many.html", html.render(run))
    labels = "[data-chart=percentiles] .u-series th"
    assert texts(page, labels)[1:] == ["All operations"]
    page.script(
        """const select = document.querySelector("[data-chart=percentiles] select");
        select.value = "operation 7";
        select.dispatchEvent(new Event("change"))"""
    )
    assert texts(page, labels)[1:] == ["All operations", "operation 7"]
    assert page.complaints == []


def test_an_operation_may_have_any_name(page: Browser, tmp_path: Path) -> None:
    run = measured()
    assert run.slices is not None
    for name in ("constructor", "__proto__", "0"):
        named = replace(
            run,
            by_operation={name: run.by_operation["read"], "b": run.by_operation["write"]},
            slices=Slices(1.0, {name: run.slices.by_operation["read"]}),
        )
        show(page, tmp_path / "named.html", html.render_comparison({"a": [run], "b": [named]}))
        page.script(
            """for (const select of document.querySelectorAll("select[name=operation]")) {
                select.value = arguments[0];
                select.dispatchEvent(new Event("change"));
            }""",
            name,
        )
        for chart in ("latency", "percentiles"):
            labels = texts(page, f"[data-chart={chart}] .u-series:not(.edge) th")
            assert labels[1:] == ["b"], (name, chart)
        assert page.complaints == []


def test_hostile_text_stays_text(page: Browser, tmp_path: Path) -> None:
    for name, text in {
        "alone": html.render(hostile()),
        "several": html.render_comparison({"a": [hostile()], "</script>": [measured()]}),
    }.items():
        show(page, tmp_path / f"{name}.html", text)
        assert page.script("return typeof window.hacked") == "undefined"
        assert page.script("return document.images.length") == 0
        assert int(page.script("return document.documentElement.dataset.drawn")) >= 3
        assert page.complaints == []


def test_a_script_that_slipped_through_would_not_run(page: Browser, tmp_path: Path) -> None:
    """The policy in the page, on its own."""
    text = html.render(measured()).replace("<main>", "<main><script>window.hacked = 1</script>")
    show(page, tmp_path / "slipped.html", text)
    assert page.script("return typeof window.hacked") == "undefined"
    assert any("Content Security Policy" in line for line in page.complaints)


def test_it_can_be_printed(page: Browser, tmp_path: Path) -> None:
    show(page, tmp_path / "run.html", html.render(measured()), dark=True)
    page.script("window.dispatchEvent(new Event('beforeprint'))")
    drawn = page.script(
        "return getComputedStyle(document.documentElement).getPropertyValue('--dim')"
    )
    page.script("window.dispatchEvent(new Event('afterprint'))")
    assert drawn != page.script(
        "return getComputedStyle(document.documentElement).getPropertyValue('--dim')"
    ), "paper is light, whatever the screen is"
    page.pdf(tmp_path / "run.pdf")
    assert (tmp_path / "run.pdf").read_bytes().startswith(b"%PDF")
    assert page.complaints == []


def test_the_command_writes_it(
    page: Browser, command: Command, database_url: str, tmp_path: Path
) -> None:
    argv = ["--ops", "200", "--concurrency", "4", "--database-url", database_url]
    done = command(*argv, "--html", "run.html", "--out", "json=run.json")
    assert done.returncode == 0, done.stderr
    page.emulate(width=1280, height=900)
    page.open(tmp_path / "run.html")
    assert texts(page, "h1") == ["Passed"]
    assert texts(page, ".verdict p")[0].startswith("200 operations in ")
    assert page.complaints == []
    again = command("report", "run.json", "--html", "again.html")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again.html").read_text() == (tmp_path / "run.html").read_text()
