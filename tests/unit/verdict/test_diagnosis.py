from __future__ import annotations

from dataclasses import replace

import pytest

from async_loader import Histogram, OperationResult, RunResult
from async_loader.results.time_split import TimeSplit
from async_loader.verdict.diagnosis import bottleneck, serialised_writes, time_shares
from tests.unit.results.test_results import histogram_of, result_of


def split(pool_ms: float, database_ms: float, orm_ms: float) -> TimeSplit:
    def part(ms: float) -> Histogram:
        return histogram_of(int(ms * 1e6))

    return TimeSplit(part(pool_ms), part(database_ms), part(orm_ms), 2, 2)


def run(busy: float, *parts: float, mode: str = "semaphore", product: str = "") -> RunResult:
    result = result_of(10**7)
    operation = OperationResult("write", 1, 0, 0, histogram_of(10**7), split(*parts))
    return replace(
        result,
        mode=mode,
        by_operation={"create": operation},
        process=replace(result.process, loop_busy=busy),
        environment={"database": {"product": product}},
    )


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (run(0.95, 1, 8, 1), "This process's event loop was the bottleneck (95% busy)"),
        (run(0.95, 8, 1, 1), "This process's event loop"),
        (run(0.50, 8, 1, 1), "The pool of 40 was the bottleneck: operations waited"),
        (run(0.50, 1, 8, 1), "The database was the bottleneck: operations spent 80%"),
        (run(0.95, 1, 8, 1, mode="sync"), "one thread was the bottleneck"),
        (run(0.95, 1, 8, 1, mode="threads"), "one thread at a time"),
    ],
)
def test_the_bottleneck_is_named_with_its_figure(result: RunResult, sentence: str) -> None:
    assert sentence in (bottleneck(result) or "")


def test_nothing_stands_out() -> None:
    assert bottleneck(run(0.5, 3, 3, 4)) is None
    assert bottleneck(result_of(1)) is None
    assert bottleneck(replace(run(1.0, 1, 8, 1), seconds=0.01)) is None, "too short to tell"


def test_shares_are_of_all_operations_together() -> None:
    shares = time_shares(run(0.5, 2, 3, 5))
    spent = {part: share for part, share in shares.items() if share}
    assert spent == pytest.approx({"pool_wait": 0.2, "database": 0.3, "orm": 0.5}, rel=0.01)


def test_sqlite_serialises_writes() -> None:
    sentence = serialised_writes(run(0.5, 0, 30, 1, product="SQLite"))
    assert sentence is not None
    assert "one transaction write at a time" in sentence
    assert "30.0" in sentence
    assert serialised_writes(run(0.5, 0, 30, 1, product="PostgreSQL")) is None
