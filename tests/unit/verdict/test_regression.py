"""A run against a baseline, by simulation: how often an alarm is false, or missing."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from async_loader import ConfigurationError, Histogram, RunResult
from async_loader.load.metrics.slice_tally import SliceTally
from async_loader.results.changes import Change, Comparison
from async_loader.verdict import regression
from async_loader.verdict.bootstrap import correlation_time, draws
from async_loader.verdict.circumstances import differences
from async_loader.verdict.regression import compare_with, parse_check
from tests.unit.runs import made_up_run

P95 = "op_duration{op:read}:p(95):10%"
SECOND = 10**9
# Pairs of runs, and how many of them are nineteen in twenty.
many = pytest.mark.parametrize("pairs", [20, pytest.param(40, marks=pytest.mark.soak)])


def change(check: str, now: RunResult, *baselines: RunResult) -> Change:
    named = {f"{number}.json": baseline for number, baseline in enumerate(baselines)}
    return compare_with(named, now, [parse_check(check)]).changes[0]


def findings(
    check: str, pairs: int, seed: int, *, slower: float = 0.0, runs: int = 1, **noise: Any
) -> Counter[str]:
    """Return what is found, and how often, in pairs of runs of which the later may be slower."""
    rng = random.Random(seed)
    found: Counter[str] = Counter()
    for _ in range(pairs):
        baselines = [made_up_run(rng, **noise) for _ in range(runs)]
        found[change(check, made_up_run(rng, slower=slower, **noise), *baselines).finding] += 1
    return found


def width(found: Change) -> float:
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


def covering(check: str, pairs: int, seed: int, **noise: Any) -> int:
    """Return how many intervals, of those that there are in so many runs, hold the truth."""
    rng = random.Random(seed)
    held = 0
    for _ in range(pairs):
        one = change(check, made_up_run(rng, **noise), made_up_run(rng, **noise))
        held += one.low is None or one.high is None or one.low <= 0 <= one.high
    return held


@many
def test_the_same_code_passes_and_a_fifth_more_is_caught(pairs: int) -> None:
    same = findings(P95, pairs, 1)
    assert same["regression"] == 0
    assert same["holds"] >= pairs * 9 // 10
    assert findings(P95, pairs, 2, slower=0.2, ops=6000)["regression"] >= pairs * 19 // 20


@many
@pytest.mark.parametrize("aggregate", ["med", "avg", "p(95)"])
def test_intervals_hold_the_truth_19_times_in_20(aggregate: str, pairs: int) -> None:
    assert (
        covering(f"op_duration{{op:read}}:{aggregate}:0%", pairs, 3) >= pairs * 9 // 10
    )  # 38 but for chance


@many
def test_noise_that_lasts_does_not_pass_for_a_regression(pairs: int) -> None:
    """Neighbouring slices that move together are fewer witnesses than they seem."""
    assert findings(P95, pairs, 4, waves=0.1)["regression"] <= 1
    found = findings(P95, pairs, 5, waves=0.05, ops=8000, seconds=60.0, slower=0.25)
    assert found["regression"] >= pairs * 19 // 20


def test_noise_that_lasts_widens_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(21)
    pairs = [(made_up_run(rng, waves=0.2), made_up_run(rng, waves=0.2)) for _ in range(10)]
    aware = sum(width(change(P95, *pair)) for pair in pairs)
    monkeypatch.setattr(regression, "correlation_time", lambda _: 1.0)
    assert aware > 1.3 * sum(width(change(P95, *pair)) for pair in pairs)


@many
def test_what_both_runs_have_in_common_over_time_is_no_noise(pairs: int) -> None:
    """A stage of three times the load makes no interval three times as wide."""
    average, stages = "op_duration:avg:10%", (1.0, 1.0, 1.0, 3.0)
    assert findings(average, pairs, 6, stages=stages)["regression"] == 0
    assert findings(average, pairs, 7, stages=stages, slower=0.2)["regression"] >= pairs * 19 // 20


@many
def test_several_baselines_tell_how_much_runs_differ(pairs: int) -> None:
    """Of runs of the same code that differ by a tenth each one baseline cannot know."""
    alone, three = (findings(P95, pairs, 8, level=0.1, runs=runs) for runs in (1, 3))
    assert alone["regression"] > pairs / 10, "else this shows nothing"
    assert three["regression"] <= pairs / 20
    steady = findings(P95, pairs, 9, level=0.01, runs=3, slower=0.3)
    assert steady["regression"] >= pairs * 19 // 20


def test_the_interval_is_as_wide_as_the_baselines_lie_apart() -> None:
    rng = random.Random(22)
    baselines = [made_up_run(rng, slower=slower, ops=6000) for slower in (-0.15, 0.0, 0.15)]
    found = change(P95, made_up_run(rng, ops=6000), *baselines)
    assert found.low is not None
    assert found.high is not None
    assert found.low < -0.15
    assert found.high > 0.15


def test_too_little_is_inconclusive_and_says_so() -> None:
    rng = random.Random(10)
    long, short = made_up_run(rng), made_up_run(rng, seconds=1.5)
    assert change(P95, short, long).reason == "too few data: a run must last two seconds or more"
    few = made_up_run(rng, ops=320)
    found = change(P95, few, long)
    assert (found.finding, found.low) == ("inconclusive", None)
    assert found.reason == "too few data: 320 of 400 operations"
    assert found.change is not None, "the figures are shown all the same"


def test_an_interval_around_the_tolerance_says_how_much_longer_a_run_would_tell() -> None:
    rng = random.Random(11)
    short = made_up_run(rng, ops=640), made_up_run(rng, ops=640)
    found = change("op_duration{op:read}:p(95):4%", *short)
    assert found.finding == "inconclusive"
    assert found.low is not None
    assert found.high is not None
    assert found.low <= 0.04 <= found.high
    assert "times the operations would tell" in found.reason


def test_an_improvement_is_named() -> None:
    rng = random.Random(12)
    found = change(P95, made_up_run(rng, slower=-0.3), made_up_run(rng))
    assert found.finding == "improved"


def test_throughput_gets_worse_downwards() -> None:
    rng = random.Random(13)
    slow, fast = made_up_run(rng, ops=2000), made_up_run(rng, ops=3000)
    found = change("ops:rate:10%", slow, fast)
    assert (found.finding, found.unit) == ("regression", "/s")
    assert found.change == pytest.approx(-1 / 3, abs=0.02)
    assert change("ops:rate:10%", fast, slow).finding == "improved"
    assert change("ops:rate:50%", slow, fast).finding == "holds"
    assert change("ops:rate:100%", slow, fast).finding == "holds"


def in_step(rng: random.Random, seconds: float) -> RunResult:
    """Twenty operations at a time for five seconds, each as long as the others, nearly."""
    result, tally = made_up_run(rng), SliceTally(["read"])
    histogram, now = Histogram(), 0
    while now < 5 * SECOND:
        each = [int(rng.gauss(seconds, 0.01 * seconds) * SECOND) for _ in range(20)]
        now += max(each)
        tally.advance(now)
        tally.add("read", Counter(each))
        for ns in each:
            histogram.record(ns)
    read = replace(result.by_operation["read"], count=histogram.count, histogram=histogram)
    return replace(
        result, seconds=now / SECOND, by_operation={"read": read}, slices=tally.result(now)
    )


def test_operations_in_step_are_no_noise() -> None:
    """A slice has all of them or none: by when they end, the rate seems to jump."""
    rng = random.Random(23)
    found: Counter[str] = Counter()
    for _ in range(20):
        usual, same, slower = in_step(rng, 0.2), in_step(rng, 0.2), in_step(rng, 0.25)
        found["same " + change("ops:rate:10%", same, usual).finding] += 1
        found["slower " + change("ops:rate:10%", slower, usual).finding] += 1
    assert found == {"same holds": 20, "slower regression": 20}


def test_errors_are_compared_in_points() -> None:
    rng = random.Random(14)
    none, some = made_up_run(rng), made_up_run(rng, failing=0.05)
    found = change("errors:rate:1%", some, none)
    assert (found.finding, found.unit, found.before) == ("regression", "share", 0)
    assert found.change == pytest.approx(0.05, abs=0.02)
    assert change("errors:rate:1%", none, none).finding == "holds"
    assert change("errors:rate:1%", none, some).finding == "improved"


def test_the_figures_are_those_of_the_whole_runs() -> None:
    rng = random.Random(15)
    then, now = made_up_run(rng), made_up_run(rng, slower=0.5)
    found = change(P95, now, then)
    before, after = (
        run.by_operation["read"].histogram.percentiles_ns([95.0])[95.0] / 1e6 for run in (then, now)
    )
    assert found.before == pytest.approx(before)
    assert found.now == pytest.approx(after)
    assert found.change == pytest.approx(after / before - 1)
    assert found.low is not None
    assert found.high is not None
    assert found.change is not None
    assert found.low < found.change < found.high


def test_the_same_results_have_the_same_verdict() -> None:
    rng = random.Random(16)
    then, now = made_up_run(rng, ops=700), made_up_run(rng, ops=700, slower=0.1)
    found = change(P95, now, then)
    draws.cache_clear()
    assert change(P95, now, then) == found


def test_what_is_not_in_both_is_inconclusive() -> None:
    rng = random.Random(17)
    run = made_up_run(rng)
    other = replace(run, by_operation={"write": run.by_operation["read"]})
    assert change(P95, run, other).reason == "the baseline has no such figure"
    assert change(P95, other, run).reason == "this run has no such figure"
    assert change(P95, other, other).reason == "this run has no such figure"
    old = replace(run, slices=None)
    found = change(P95, run, old)
    assert (found.finding, found.change) == ("inconclusive", 0)
    assert "older version" in found.reason


def test_without_checks_the_usual_figures_are_shown_and_fail_nothing() -> None:
    rng = random.Random(18)
    found = compare_with({"main.json": made_up_run(rng)}, made_up_run(rng, slower=0.5))
    assert [one.check for one in found.changes] == [
        "op_duration{op:read}:med:10%",
        "op_duration{op:read}:p(95):10%",
        "ops:rate:10%",
        "errors:rate:1%",
    ]
    assert [one.finding for one in found.changes[:2]] == ["regression"] * 2
    assert found.regressions == ()


def test_a_comparison_reads_back_and_has_a_sentence_for_each_change() -> None:
    rng = random.Random(19)
    found = compare_with(
        {"main.json": made_up_run(rng)}, made_up_run(rng, slower=0.5), [parse_check(P95)]
    )
    assert Comparison.from_dict(found.to_dict()) == found
    assert found.regressions == found.changes
    (sentence,) = (one.sentence for one in found.changes)
    assert sentence.startswith("op_duration{op:read}:p(95):10%: regression, ")
    assert " ms, was " in sentence
    assert re.search(r"\+\d+\.\d% \(95 %: \+\d+\.\d% to \+\d+\.\d%\)$", sentence)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("op_duration:p(95)", "op_duration:▶p(95): expected a tolerance"),
        ("op_duration:p(95):10", "op_duration:p(95):▶10: expected a tolerance"),
        ("op_duration:p(95):-1%", "op_duration:p(95):▶-1%: expected a tolerance"),
        ("op_duration{op:x:p(95):1%", "▶"),
        ("op_time:p(95):10%", "▶op_time:p(95):10%: unknown metric"),
        ("op_duration:p(x):10%", "op_duration:▶p(x):10%: op_duration has the aggregates"),
        ("op_duration:max:10%", "compared with a baseline is op_duration"),
        ("op_duration:p(100):10%", "compared with a baseline is op_duration"),
        ("ops:count:10%", "compared with a baseline is"),
        ("db_time:p(95):10%", "compared with a baseline is"),
        ("", "expected a tolerance"),
    ],
)
def test_a_wrong_check_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match="▶") as refused:
        parse_check(text)
    assert message in str(refused.value)


def facts(change: Callable[[dict[str, Any]], None]) -> RunResult:
    environment: dict[str, Any] = {
        "versions": {"Python": "3.13.0", "SQLAlchemy": "2.1.9"},
        "machine": {"platform": "Linux x86_64", "cpus": 2, "loop": "uvloop"},
        "database": {
            "product": "PostgreSQL",
            "version": "18.6",
            "where": "(embedded)",
            "settings": {"fsync": "on"},
        },
    }
    settings: dict[str, Any] = {"concurrency": 40, "ops": 5000, "threshold": [], "out": []}
    both = {"settings": settings, "environment": environment}
    change(both)
    run = made_up_run(random.Random(1), ops=64)
    return replace(run, settings=settings, environment=environment)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("settings", "concurrency"), 4, "`concurrency`: 40 now, 4 in the baseline"),
        (("environment", "versions", "Python"), "3.12", "Python: 3.13.0 now, 3.12 in the baseline"),
        (("environment", "machine", "cpus"), 64, "cpus: 2 now, 64 in the baseline"),
        (
            ("environment", "database", "version"),
            "17.1",
            "database: PostgreSQL 18.6 now, PostgreSQL 17.1 in the baseline",
        ),
        (
            ("environment", "database", "settings", "fsync"),
            "off",
            "database's fsync: on now, off in the baseline",
        ),
        (("settings", "threshold"), ["errors:rate<1%"], None),
        (("settings", "out"), ["json=-"], None),
    ],
)
def test_what_else_differs_is_named(
    path: tuple[str, ...], value: object, sentence: str | None
) -> None:
    def set_it(both: dict[str, Any]) -> None:
        *way, last = path
        for key in way:
            both = both[key]
        both[last] = value

    now, then = facts(lambda _: None), facts(set_it)
    assert list(differences({"main.json": then}, now)) == ([sentence] if sentence else [])
    if sentence is not None:
        named = sentence.replace("in the baseline", "in a.json")
        assert list(differences({"a.json": then, "b.json": now}, now)) == [named]


def test_a_baseline_that_was_cut_short_is_named() -> None:
    run = made_up_run(random.Random(1), ops=64)
    cut = replace(run, outcome="interrupted")
    assert list(differences({"x": cut}, run)) == ["the run was interrupted in the baseline"]


def test_correlation_time_of_known_series() -> None:
    rng = random.Random(2)
    white = [rng.gauss(0, 1) for _ in range(2000)]
    assert correlation_time(white) == pytest.approx(1, abs=0.3)
    value, lasting = 0.0, []
    for _ in range(20_000):
        value = 0.8 * value + rng.gauss(0, 1)
        lasting.append(value)
    assert correlation_time(lasting) == pytest.approx((1 + 0.8) / (1 - 0.8), rel=0.25)
    assert correlation_time([3.0] * 20) == 1
