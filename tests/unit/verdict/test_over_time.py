"""Thresholds on a part of the run's time, and those that only fail for what lasts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from async_loader import ConfigurationError, OperationResult, RunResult
from async_loader.load.metrics.slice_tally import FIRST_WIDTH_NS, SliceTally
from async_loader.verdict.criteria import hold
from async_loader.verdict.thresholds import broken_so_far, check_names, parse
from tests.unit.results.test_results import histogram_of, result_of

MS, SECOND = 10**6, 10**9
NAMES = {"read": {}, "write": {"team": "billing"}}


def run_of(
    seconds: Iterable[float | None], *, stages: tuple[float, ...] | None = None
) -> RunResult:
    """
    Return a run with 400 reads in each second, of so many ms; in one of None nothing ended.

    Beside them are as many writes of 1 ms, of which one in each second failed.
    """
    tally, latencies = SliceTally(NAMES), []
    slices = [ms for ms in seconds for _ in range(SECOND // FIRST_WIDTH_NS)]
    for number, ms in enumerate(slices):
        for name, each in ("read", ms), ("write", 1.0):
            if each is not None:
                tally.add(name, {int(each * MS): 50})
                latencies += [int(each * MS)] * 50
        if number % 8 == 0:
            tally.fail("write")
        tally.advance((number + 1) * FIRST_WIDTH_NS)
    length = len(slices) * FIRST_WIDTH_NS
    half = len(latencies) // 2
    operations = {
        "read": OperationResult("read", half, 0, 0, histogram_of(*latencies)),
        "write": OperationResult(
            "write", half, 1, 0, histogram_of(*latencies), tags=NAMES["write"]
        ),
    }
    return replace(
        result_of(1, seconds=length / SECOND),
        by_operation=operations,
        slices=tally.result(length),
        stages=stages,
    )


SLOW_IN_THE_MIDDLE = [10.0] * 10 + [90.0] * 4 + [10.0] * 10 + [70.0] + [10.0] * 5


@pytest.mark.parametrize(
    ("text", "figure", "outcome"),
    [
        ("op_duration{op:read}:p(95)<50ms for 3s", 90, "failed"),
        ("op_duration{op:read}:p(95)<50ms for 4s", 90, "failed"),
        ("op_duration{op:read}:p(95)<50ms for 5s", 10, "passed"),
        ("op_duration{op:read}:p(95)<50ms after 15s for 1s", 70, "failed"),
        ("op_duration{op:read}:p(95)<50ms for 2s", 90, "failed"),
        ("op_duration{op:read}:p(95)<50ms after 14s for 2s", 10, "passed"),
        ("op_duration{op:read}:max<50ms after 14s", 70, "failed"),
        ("op_duration{op:read}:med<50ms after 14s", 10, "passed"),
        ("op_duration{op:read}:avg<50ms after 14s", 13.75, "passed"),
        ("op_duration{op:read,stage:1}:p(99)<50ms", 10, "passed"),
        ("op_duration{stage:2,op:read}:p(99)<50ms", 90, "failed"),
        ("op_duration{op:read,stage:2}:p(99)<50ms after 4s", 70, "failed"),
        ("op_duration{stage:2}:min<1.1ms", 1, "passed"),
        ("op_duration{stage:1}:count==8000", 8000, "passed"),
        ("ops{op:write,stage:1}:rate>=400", 400, "passed"),
        ("errors{team:billing,stage:1}:count<=10", 10, "passed"),
        ("errors{op:write}:rate<0.3% for 3s", 1 / 401, "passed"),
        ("errors{op:write}:rate<0.2% for 3s", 1 / 401, "failed"),
        ("ops{op:read}:rate>400 for 3s", 400, "failed"),
        ("ops{op:read}:rate>399 for 3s", 400, "passed"),
    ],
)
def test_what_lasts_and_when(text: str, figure: float, outcome: str) -> None:
    result = run_of(SLOW_IN_THE_MIDDLE, stages=(10.0, 20.0))
    (criterion,) = hold(result, [parse(text)])
    assert criterion.figure == pytest.approx(figure, rel=0.017)
    assert criterion.outcome == outcome, criterion.reason
    assert RunResult.from_dict(result.to_dict()).to_dict() == result.to_dict()


def test_of_throughput_the_best_that_was_not_reached_for_so_long() -> None:
    result = run_of([1.0] * 4 + [None] * 4 + [1.0] * 2)
    (criterion,) = hold(result, [parse("ops{op:read}:rate>100 for 4s")])
    assert (criterion.figure, criterion.outcome) == (0, "failed")
    (criterion,) = hold(result, [parse("ops{op:read}:rate>100 for 5s")])
    assert (criterion.figure, criterion.outcome) == (400, "passed")


def test_a_second_in_which_nothing_ended_mends_nothing() -> None:
    (criterion,) = hold(
        run_of([10.0] * 5 + [90.0, None, 90.0] + [10.0] * 5),
        [parse("op_duration{op:read}:med<50ms for 3s")],
    )
    assert criterion.outcome == "failed"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("op_duration:med<1s for 11s", "the run has no 11 s there"),
        ("op_duration:med<1s after 6s for 5s", "the run has no 5 s there"),
        ("op_duration:med<1s after 10s", "the run has nothing there: its slices are 0.125 s wide"),
        ("op_duration{stage:3}:med<1s", "the run has 2 stages"),
        ("op_duration{stage:2}:p(99.9)<1s for 1s", "p(99.9) of 800 samples"),
    ],
)
def test_what_a_run_cannot_tell_is_not_measured(text: str, reason: str) -> None:
    (criterion,) = hold(run_of([1.0] * 10, stages=(4.0, 6.0)), [parse(text)])
    assert criterion.outcome == "not measured"
    assert reason in criterion.reason


def test_without_slices_nothing_is_known() -> None:
    (criterion,) = hold(replace(run_of([1.0] * 4), slices=None), [parse("ops:rate>1 after 1s")])
    assert (criterion.outcome, criterion.reason) == (
        "not measured",
        "the result has no slices of time",
    )


def test_slices_of_a_long_run_are_its_windows() -> None:
    """Of 300 s they are 4 s wide: what lasted 10 s is in three of them."""
    result = run_of([10.0] * 100 + [90.0] * 12 + [10.0] * 188)
    assert result.slices is not None
    assert result.slices.width == 4
    outcomes = [
        criterion.outcome
        for text in ("for 10s", "for 12s", "for 13s")
        for criterion in hold(result, [parse(f"op_duration{{op:read}}:med<50ms {text}")])
    ]
    assert outcomes == ["failed", "failed", "passed"]


def test_what_is_hidden_may_have_been_then() -> None:
    result = run_of([10.0] * 10)
    lost = replace(result.by_operation["read"], dropped=5)
    result = replace(result, by_operation={**result.by_operation, "read": lost})
    (criterion,) = hold(result, [parse("op_duration{op:read}:med<50ms for 3s")])
    assert criterion.outcome == "not measured"
    (criterion,) = hold(result, [parse("op_duration{op:write}:med<50ms for 3s")])
    assert criterion.outcome == "passed"


def test_nothing_of_it_ends_a_run_early() -> None:
    interim = replace(run_of([90.0] * 10), slices=None)
    assert broken_so_far(interim, [parse("op_duration:med<1ms for 3s")]) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ops{stage:3}:rate>1", "in ops{▶stage:3}:rate>1: no stage 3: there are 2"),
        ("ops{team:shop}:rate>1", "in ops{▶team:shop}:rate>1: no operation is tagged so: The tags"),
        ("ops{op:raed,stage:2}:rate>1", "in ops{op:▶raed,stage:2}:rate>1: no operation 'raed'"),
    ],
)
def test_what_there_is_not_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        check_names([parse(text)], NAMES, 2)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize("name", ["GET /a,b/{c}", "a:b", "stage:2", "x,stage:y"])
def test_a_name_may_be_anything(name: str) -> None:
    assert parse(f"ops{{op:{name}}}:rate>1").operation == name
    staged = parse(f"ops{{op:{name},stage:2}}:rate>1")
    assert (staged.operation, staged.when.stage) == (name, 2)
    tagged = parse(f"ops{{team:billing,op:{name}}}:rate>1")
    assert (tagged.operation, tagged.tags) == (name, (("team", "billing"),))
