from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from async_loader import ConfigurationError, OperationResult, RunResult
from async_loader.results.findings import RepeatedStatement, ServerSide
from async_loader.results.parts import CheckResult
from async_loader.results.schedule import ScheduleResult
from async_loader.results.time_split import TimeSplit
from async_loader.verdict.criteria import hold
from async_loader.verdict.figures import AGGREGATES, DURATIONS, SHARES, figure_of
from async_loader.verdict.thresholds import broken_so_far, parse
from tests.unit.results.test_results import histogram_of, result_of

MS = 10**6


def result() -> RunResult:
    """Return 100 reads of 1 to 100 ms with two statements each, and 8 writes of 5 ms."""
    reads = histogram_of(*(n * MS for n in range(1, 101)))
    split = TimeSplit(histogram_of(*[MS] * 100), reads, histogram_of(*[2 * MS] * 100), 210, 12)
    operations = {
        "read": OperationResult("read", 100, 0, 0, reads, split),
        "create": OperationResult(
            "write",
            8,
            1,
            1,
            histogram_of(*[5 * MS] * 8),
            dropped=20,
            late=2,
            retries=6,
            retried=4,
            after_commit=1,
            tags={"team": "billing", "tier": "1"},
        ),
    }
    checks = {"total": CheckResult(9, 1), "stock": CheckResult(10, 0)}
    schedule = ScheduleResult(23, 20, histogram_of(MS, 2 * MS, 4 * MS))
    found = result_of(1, seconds=4.0)
    repeats = [RepeatedStatement("read", text, None, None, 1, 9, 9) for text in ("a", "b")]
    return replace(
        found,
        by_operation=operations,
        checks=checks,
        schedule=schedule,
        repeated_statements=tuple(repeats),
        settings={"latency_limit": 0.1},
        server_side=ServerSide(total_ms=55.0, rows=220),
    )


@pytest.mark.parametrize(
    ("text", "figure"),
    [
        ("op_duration{op:read}:p(95)<96ms", 95),
        ("op_duration{op:read}:med<1s", 50),
        ("op_duration{op:read}:p(99.9)<=101", 100),
        ("op_duration{op:create}:avg<=5.1ms", 5),
        ("op_duration:max<101ms", 100),
        ("op_duration:count==108", 108),
        ("pool_wait{op:read}:p(50)<1100us", 1),
        ("orm_time{op:read}:max<2.1ms", 2),
        ("db_time{op:read}:p(90)<91", 90),
        ("statements{op:read}:avg<2.2", 2.1),
        ("statements:max<=12", 12),
        ("errors{op:create}:rate<=20%", 0.2),
        ("errors:count<3", 2),
        ("errors{op:read}:rate==0", 0),
        ("checks:rate>=95%", 0.95),
        ("checks{op:total}:rate<0.91", 0.9),
        ("checks:count==19", 19),
        ("ops:rate>26", 27),
        ("op_duration:min>=0.999", 1),
        ("pool_wait{op:read}:min<2ms", 1),
        ("schedule_lag:max<5ms", 4),
        ("schedule_lag:count==3", 3),
        ("dropped:count<=20", 20),
        ("dropped{op:create}:rate<=67%", 2 / 3),
        ("ops{op:create}:count>=8", 8),
        ("retries:count<7", 6),
        ("retries{op:create}:rate<=40%", 0.4),
        ("after_commit{team:billing}:rate<=10%", 0.1),
        ("after_commit:count==1", 1),
        ("late{op:create}:count<3", 2),
        ("late:rate<2%", 2 / 110),
        ("n_plus_one:count<3", 2),
        ("n_plus_one{op:read}:max<10", 9),
        ("server_time:avg<=0.5ms", 0.5),
        ("server_rows:count==220", 220),
        ("server_rows:avg<=2", 2),
        ("ops{tier:1,team:billing}:count==8", 8),
        ("ops{team:billing,op:create}:count==8", 8),
    ],
)
def test_each_figure_is_found_and_compared(text: str, figure: float) -> None:
    threshold = parse(text)
    assert figure_of(result(), threshold) == pytest.approx(figure, rel=0.002)
    assert threshold.holds(figure_of(result(), threshold) or 0.0)


@pytest.mark.parametrize(
    "text", ["op_duration{op:read}:p(95)<95ms", "errors:count<2", "ops:rate>28", "errors:rate<1%"]
)
def test_what_does_not_hold_fails(text: str) -> None:
    threshold = parse(text)
    assert not threshold.holds(figure_of(result(), threshold) or 0.0)


@pytest.mark.parametrize(
    "text",
    [
        "op_duration{op:absent}:avg<1s",
        "pool_wait{op:create}:avg<1s",
        "checks{op:absent}:rate>0",
    ],
)
def test_a_figure_that_does_not_exist_fails(text: str) -> None:
    (criterion,) = hold(result(), [parse(text)])
    assert criterion.figure is None
    assert criterion.outcome == "failed"


@pytest.mark.parametrize("text", ["schedule_lag:max<1s", "dropped:count==0", "dropped:rate==0"])
def test_a_closed_model_has_no_schedule(text: str) -> None:
    (criterion,) = hold(replace(result(), schedule=None), [parse(text)])
    assert criterion.figure is None
    assert criterion.outcome == "failed"


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("op_duration{op:read}:p(95)<90ms", True),
        ("errors:count<2", True),
        ("ops:rate>28", True),
        ("ops:count>=1000", False),
        ("checks:count==500", False),
        ("op_duration{op:absent}:avg<1s", False),
        ("op_duration{op:read}:p(95)<96ms", False),
    ],
)
def test_what_only_the_end_can_tell_is_not_broken_yet(text: str, broken: bool) -> None:
    assert bool(broken_so_far(result(), [parse(text)])) is broken


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("op_duration:p(95)", "in op_duration:p(95)▶: expected a comparison"),
        (
            "op_durtion:avg<1",
            "in ▶op_durtion:avg<1: unknown metric 'op_durtion'; the metrics",
        ),
        ("op_duration:p95<1", "in op_duration:▶p95<1: op_duration has the aggregates p(N)"),
        ("op_duration:p(101)<1", "op_duration:▶p(101)<1"),
        ("op_duration:p(N)<1", "op_duration:▶p(N)<1"),
        ("op_duration<1", "op_duration▶<1: op_duration has the aggregates"),
        ("op_duration{op:read:avg<1", "▶"),
        ("op_duration{read}:avg<1", "op_duration{▶read}:avg<1: expected op:NAME"),
        ("op_duration:avg<fast", "op_duration:avg<▶fast: expected a number"),
        ("op_duration:avg<5%", "not measured in %"),
        ("ops:rate<5ms", "not measured in ms"),
        ("dropped:rate<5ms", "not measured in ms"),
        ("dropped:p(95)<5", "dropped:▶p(95)<5: dropped has the aggregates rate, count"),
        ("schedule_lag{op:read}:max<5", "schedule_lag▶{op:read}:max<5: the schedule is one"),
        ("server_time{team:a}:avg<5", "server_time▶{team:a}:avg<5: the server's account is of all"),
        ("checks{team:a}:rate<5", "checks▶{team:a}:rate<5: a check has a name, and no tags"),
        ("op_duration{stage:0}:avg<1", "op_duration{▶stage:0}:avg<1: expected op:NAME, stage:"),
        ("op_duration{stage:two}:avg<1", "op_duration{▶stage:two}"),
        ("op_duration{team:}:avg<1", "op_duration{▶team:}"),
        ("db_time{stage:1}:avg<1", "db_time▶{stage:1}:avg<1: over time and by stages there are"),
        ("db_time:avg<1ms for 3s", "db_time:avg<▶1ms for 3s: over time and by stages there are"),
        ("op_duration:avg<1ms for ever", "op_duration:avg<▶1ms for ever: expected a number"),
        ("op_duration:avg<1ms for 3s after 2s", "op_duration:avg<▶1ms for 3s after"),
        ("errors:count==0 for 3s", "errors:count==▶0 for 3s: what lasts is above or below"),
        ("", "expected a comparison"),
    ],
)
def test_a_wrong_one_is_refused_with_the_place_marked(text: str, marked: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert marked in str(caught.value)


def test_every_metric_has_a_row_and_a_figure() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
    rows = re.findall(r"^\| (`.*?) \| (`.*) \|$", page.read_text(), re.M)
    told = {
        metric: set(re.findall(r"`([^`]+)`", aggregates))
        for metrics, aggregates in rows
        for metric in re.findall(r"`(\w+)`", metrics)
    }
    assert told == {metric: set(aggregates) for metric, aggregates in AGGREGATES.items()}
    assert set(DURATIONS) | set(SHARES) <= set(AGGREGATES)
    for metric, aggregates in AGGREGATES.items():
        one = next(a for a in aggregates if a != "p(N)")
        figure_of(result(), parse(f"{metric}:{one}<1"))  # it is known how
