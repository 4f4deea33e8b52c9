from __future__ import annotations

from dataclasses import replace

from async_loader import RunResult
from async_loader.reports.comparison import group, ratios, render
from async_loader.results.parts import Series
from tests.unit.results.test_results import result_of


def run(mode: str, seconds: float) -> RunResult:
    series = Series((2, 1), (0, 0), (3, 2), (0, 0))
    return replace(
        result_of(10**6, 2 * 10**6, 3 * 10**6, seconds=seconds), mode=mode, series=series
    )


RUNS = [run("sync", 4.0), run("chunks", 2.0), run("sync", 6.0), run("chunks", 2.0)]


def test_ratios_are_medians_of_the_rounds_own() -> None:
    assert ratios(group(RUNS), "sync") == {"sync": 1.0, "chunks": 2.5}


def test_it_fits_80_columns_and_is_plain() -> None:
    text = render(group(RUNS))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    row = next(line for line in text.splitlines() if line.split()[:1] == ["chunks"])
    assert row.split() == ["chunks", "2.00", "2", "2.00", "3.00", "3.00", "40", "0", "2.50"]


def test_the_chart_has_every_mode() -> None:
    text = render(group(RUNS))
    assert "connections in use" in text
    assert "(1 sync, c chunks)" in text
    assert "ccc" in text or "c" in text.split("connections in use")[1]


def test_without_sync_the_first_mode_is_the_base() -> None:
    assert "x chunks" in render(group([run("chunks", 2.0), run("threads", 2.0)]))


def test_runs_that_did_different_work_are_said_to() -> None:
    assert "created 3, read 0 in every run" in render(group(RUNS))
    other = replace(result_of(1, failed=2), mode="threads")
    text = render(group([*RUNS, other]))
    assert "differ" in text
    assert "threads: 2 operations failed" in text
