"""The page as it is written: its figures, its escapes, its policy, its size."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from async_loader import Histogram, OperationResult, RunResult
from async_loader.reports import html
from async_loader.reports.page_data import MOST_POINTS, chart_data, typical
from async_loader.results.changes import Change, Comparison
from async_loader.results.errors import ErrorResult
from async_loader.results.findings import RepeatedStatement, ServerSide, ServerStatement
from async_loader.results.parts import CheckResult, Series
from async_loader.results.schedule import ScheduleResult
from async_loader.results.slices import Slice, Slices, bucket_of
from async_loader.results.time_split import TimeSplit
from tests.unit.results.test_results import histogram_of, result_of
from tests.unit.verdict.test_knee import step

HOSTILE = (
    """</script><script>hacked=1</script><img src=x onerror="hacked=1">'"&lt;{{7*7}}--><!--\u2028"""
)


class Text(HTMLParser):
    """The elements of a page and its text, scripts and styles apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self._in = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self._in = tag if tag in self.inside else ""

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        (self.inside[self._in] if self._in else self.texts).append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.texts).split())


def hostile() -> RunResult:
    """A result with markup wherever a user's text can get."""
    split = TimeSplit(histogram_of(1), histogram_of(2), histogram_of(3), 2, 2)
    return replace(
        result_of(10**6),
        workload=HOSTILE,
        mode=HOSTILE,
        by_operation={
            HOSTILE: OperationResult("read", 1, 1, 0, histogram_of(10**6), split),
            "b": OperationResult("read", 1, 0, 0, histogram_of(10**6), split),
        },
        errors={HOSTILE: ErrorResult(1, {HOSTILE: 1}, HOSTILE, HOSTILE, HOSTILE)},
        checks={HOSTILE: CheckResult(1, 1)},
        repeated_statements=(RepeatedStatement(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1, 9, 9),),
        server_side=ServerSide(
            statements=(ServerStatement(HOSTILE, 1, 1.0, 1),), waits={HOSTILE: 1}, samples=1,
            notes=(HOSTILE,),
        ),
        slices=Slices(1, {HOSTILE: (Slice.of({1: 1}, 0),), "b": (Slice.of({1: 1}, 0),)}),
        settings={HOSTILE: HOSTILE, "concurrency": 4, "max_error_rate": 0.0},
        environment={"versions": {HOSTILE: HOSTILE}, "database": {"url": HOSTILE}},
    )  # fmt: skip


def data_of(page: str) -> Any:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*)</script>', page)
    return json.loads(data)


@pytest.mark.parametrize("several", [False, True])
def test_text_of_a_user_is_never_markup(several: bool) -> None:
    harmless = replace(result_of(10**6), workload="fine")
    if several:
        page = html.render_comparison({HOSTILE: [hostile()], "b": [harmless]})
    else:
        page = html.render(hostile())
    found = Text(page)
    assert found.elements.count("script") == 3
    assert "img" not in found.elements
    assert found.handlers == []
    assert "hacked=1" not in "".join(found.inside["script"][1:])
    as_text = " ".join(HOSTILE.split())
    assert found.words.count(as_text) >= 8
    labels = {run["label"] for run in data_of(page)["runs"]}
    assert HOSTILE in labels
    assert HOSTILE in data_of(page)["runs"][0]["slices"]["by_operation"]


def test_the_policy_lets_the_page_s_own_style_and_scripts_run_and_nothing_else() -> None:
    page = html.render(result_of(10**6))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    policy = policy.replace("&#39;", "'")
    style = re.findall(r"<style>(.*?)</style>", page, re.S)
    scripts = re.findall(r"<script(?: type=\"module\")?>(.*?)</script>", page, re.S)
    assert (len(style), len(scripts)) == (1, 2)
    for text in (*style, *scripts):
        digest = b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256") == 3
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = html.render(hostile())
    assert not re.search(r"<(link|script|img|iframe)\b[^>]*\b(src|href)=", page)
    assert "@import" not in page
    assert "import {" not in page, "charts.js is in the page, not beside it"


def test_the_verdict_is_first_and_has_its_reasons() -> None:
    settings = {"max_error_rate": 0.01, "threshold": ["op_duration:p(95)<1us", "ops:count>=1"]}
    started = {"started": "2026-03-01T12:30:05+00:00"}
    result = replace(result_of(10**6, failed=1), settings=settings, environment=started)
    words = Text(html.render(result)).words
    subject = "mixed, load model closed, ? users, started 2026-03-01 12:30 UTC"
    assert f"Failed 1 of 2 operations in 2.00 s {subject}" in words
    assert "50.00% of the operations failed, more than 1.00%" in words
    unsure = (
        "op_duration:p(95)<1us is not measured: the measurement is not good: p(95) of 1 samples"
    )
    assert unsure in words
    assert words.index("Failed") < words.index("throughput")
    assert "op_duration:p(95)<1us 1 ms not measured" in words
    assert "ops:count>=1 1 holds" in words
    assert "the measurement not good: p(95) of 1 samples doubtful" in words
    asked = html.render(replace(result, settings=settings | {"require_valid": True}))
    assert "the measurement is good not good: p(95) of 1 samples not measured" in Text(asked).words


@pytest.mark.parametrize(
    ("outcome", "word"), [("done", "Passed"), ("interrupted", "Stopped"), ("aborted", "Failed")]
)
def test_each_outcome_has_its_word(outcome: Any, word: str) -> None:
    result = replace(result_of(10**6), outcome=outcome)
    assert f"<h1>{word}</h1>" in html.render(result)


def test_a_run_of_nothing_has_a_page() -> None:
    result = replace(result_of(), series=Series(), pool=None, seconds=0.0)
    assert "<h1>Failed</h1>" in html.render(result), "nothing was performed"
    assert data_of(html.render(result))["seconds"] == []


def test_a_comparison_shows_every_way_and_what_differs() -> None:
    fast = replace(result_of(10**6, 10**6), settings={"seed": 1, "pool": 5})
    slow = replace(result_of(10**6), settings={"seed": 1, "pool": 9})
    page = html.render_comparison({"fast": [fast, fast], "slow": [slow]})
    words = Text(page).words
    assert "3 of 3 runs passed, 2 ways compared" in words
    assert "What differs option fast slow pool 5 9" in words
    assert words.count("seed") == 1
    for label in ("fast, round 1", "fast, round 2", "slow"):
        assert f"<summary>{label}</summary>" in page
    assert [run["label"] for run in data_of(page)["runs"]] == ["fast", "slow"]


def test_repeated_statements_are_bounded() -> None:
    each = tuple(RepeatedStatement("a", f"SELECT {n}", None, None, 1, 9, 9) for n in range(60))
    words = Text(html.render(replace(result_of(10**6), repeated_statements=each))).words
    assert "SELECT 39" in words
    assert "SELECT 40" not in words
    assert "20 more are in the JSON" in words


def test_a_sweep_says_what_to_run_with() -> None:
    steps = [step(level, workers=4) for level in (1, 8, 4, 2)]
    page = html.render_sweep(steps)
    assert "<h1>Concurrency 4</h1>" in page
    assert "4 the knee 400 10.0 10.0 10.0" in Text(page).words
    data = data_of(page)
    assert data["load"]["level"] == [1, 2, 4, 8]
    assert data["load"]["throughput"] == [100, 200, 400, 400]
    assert data["load"]["knee"] == 4
    assert data["load"]["latency"]["p95"] == pytest.approx([10, 10, 10, 20], rel=1e-3)
    assert [run["label"] for run in data["runs"]] == [f"concurrency {n}" for n in (1, 2, 4, 8)]
    failing = html.render_sweep([step(1, workers=4, failed=50)])
    assert "<h1>No step is good</h1>" in failing


def test_an_open_model_shows_its_schedule() -> None:
    operation = replace(result_of(10**6).by_operation["create"], dropped=4, late=2)
    schedule = ScheduleResult(5, 4, histogram_of(2 * 10**6))
    result = replace(result_of(10**6), by_operation={"create": operation}, schedule=schedule)
    words = Text(html.render(result)).words
    assert "dropped 4 of 5 due schedule lag, p99 2.00 ms" in words
    assert "operation count failed dropped late mean" in words
    assert "due started dropped lag p50 lag p95 lag p99 lag max 5 1 4 2.00" in words
    assert "dropped" not in Text(html.render(result_of(10**6))).words


def test_a_baseline_is_shown_with_its_intervals() -> None:
    changes = (
        Change("ops:rate:5%", "/s", 0.05, True, 100, 80, -0.2, -0.25, -0.1, "regression"),
        Change("errors:rate:1%", "share", 0.01, reason="too few data"),
    )
    baseline = Comparison((HOSTILE,), ("cpus: 2 now, 4 in the baseline",), changes)
    page = html.render(replace(result_of(10**6), baseline=baseline))
    found = Text(page)
    assert "<h1>Failed</h1>" in page
    reason = "ops:rate:5%: regression, 80/s, was 100/s, -20.0% (95 %: -25.0% to -10.0%)"
    assert reason in found.words
    assert "Not the same: cpus: 2 now, 4 in the baseline." in found.words
    assert "ops:rate:5% regression -20.0% -25.0% to -10.0% 100/s 80/s" in found.words
    assert "errors:rate:1% inconclusive too few data" in found.words
    assert "img" not in found.elements
    (drawn,) = re.findall(r'class="interval bad" x="([\d.]+)" width="([\d.]+)"', page)
    # Of -26.25 % to 26.25 %: from -25 % to -10 %, and the tolerance at -5 %, the worse side.
    assert [float(place) for place in drawn] == pytest.approx([2.38, 28.57], abs=0.01)
    (tolerance,) = re.findall(r'class="tolerance" x="([\d.]+)"', page)
    assert float(tolerance) == pytest.approx(50 - 50 * 5 / 26.25, abs=0.01)


def test_operations_stay_in_the_order_of_the_workload() -> None:
    one = result_of(10**6).by_operation["create"]
    result = replace(result_of(10**6), by_operation={"z": one, "a": one})
    assert list(data_of(html.render(result))["runs"][0]["percentiles"]) == ["", "z", "a"]


# --- the data of the charts ----------------------------------------------------------------


def long_run(seconds: int) -> RunResult:
    """A run of many seconds, one of which stalled."""
    throughput = [1000] * seconds
    throughput[seconds // 2] = 1
    whole = (0,) * seconds
    series = Series(tuple(throughput), whole, (7,) * seconds, whole)
    return replace(result_of(10**6), seconds=float(seconds), series=series)


def test_a_short_run_is_drawn_second_by_second() -> None:
    data = chart_data({"a": [long_run(5)]})
    assert data["step"] == 1
    assert data["seconds"] == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert data["runs"][0]["throughput"] == {"mean": [1000, 1000, 1, 1000, 1000]}


@pytest.mark.parametrize("seconds", [MOST_POINTS, MOST_POINTS + 1, 3600, 7 * 86_400])
def test_points_are_bounded_and_a_stall_stays_visible(seconds: int) -> None:
    data = chart_data({"a": [long_run(seconds)]})
    run = data["runs"][0]
    assert len(data["seconds"]) <= MOST_POINTS
    for name in ("failed", "in_use", "waiting"):
        assert len(run[name]) == len(data["seconds"])
    assert min(run["throughput"].get("low", run["throughput"]["mean"])) == 1
    assert max(run["throughput"]["mean"]) == 1000


def test_the_last_part_of_a_second_is_a_rate_too() -> None:
    series = Series((100, 50), (0, 0), (1, 1), (0, 0))
    run = replace(result_of(10**6), seconds=1.5, series=series)
    assert chart_data({"a": [run]})["runs"][0]["throughput"]["mean"] == [100, 100]
    short = chart_data({"a": [replace(run, seconds=1.1)]})["runs"][0]
    assert short["throughput"]["mean"] == [100, None], "a tenth of a second tells no rate"
    assert short["in_use"] == [1, None], "nor how many connections were in use"


def test_runs_of_different_length_share_their_seconds() -> None:
    data = chart_data({"a": [long_run(5)], "b": [long_run(3)]})
    assert data["runs"][1]["in_use"] == [7, 7, 7, None, None]


def test_percentiles_are_the_histogram_s() -> None:
    histogram = Histogram()
    for ns in range(1, 10_001):
        histogram.record(ns * 10**6)
    run = replace(result_of(1), by_operation={"a": OperationResult("r", 10_000, 0, 0, histogram)})
    data = chart_data({"a": [run]})
    curve = dict(zip(data["inverse"], data["runs"][0]["percentiles"][""], strict=True))
    assert curve[2] == pytest.approx(5000, rel=1e-3)
    assert curve[10_000] == pytest.approx(10_000, rel=1e-3)
    assert max(curve) == 10_000, "so many latencies tell no more"


def test_latencies_over_time_are_the_slices_s() -> None:
    fast, slow = Slice.of({bucket_of(10**6): 5}, 0), Slice.of({bucket_of(10**9): 5}, 0)
    run = replace(result_of(10**6), slices=Slices(1.0, {"a": (fast, Slice()), "b": (slow, fast)}))
    found = chart_data({"x": [run]})["runs"][0]["slices"]
    assert found["seconds"] == [0.5, 1.5]
    assert found["by_operation"]["a"]["p95"] == [pytest.approx(1, rel=0.02), None]
    assert found["by_operation"][""]["p99"][0] == pytest.approx(1000, rel=0.02)


def test_slices_of_few_operations_are_widened() -> None:
    def points(count: int) -> int:
        one = Slice.of({bucket_of(10**6): count}, 0)
        run = replace(result_of(10**6), seconds=64.0, slices=Slices(0.5, {"a": (one,) * 128}))
        return len(chart_data({"x": [run]})["runs"][0]["slices"]["seconds"])

    assert [points(count) for count in (100, 30, 29, 8, 1)] == [128, 128, 64, 32, 16]


def test_of_several_rounds_the_median_one_is_drawn() -> None:
    rounds = [result_of(*[10**6] * n) for n in (9, 1, 5, 3)]
    assert typical(rounds).completed == 3
