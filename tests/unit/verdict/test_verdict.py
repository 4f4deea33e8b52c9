"""The verdict: what holds, what does not, and what nobody can tell, with the exit code of each."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from async_loader import ConfigurationError, OperationResult, RunResult, verdict
from async_loader.results.machine import MachineResult
from async_loader.results.schedule import ScheduleResult
from async_loader.settings.sources import in_flags, load
from async_loader.verdict.thresholds import check_names, parse
from async_loader.verdict.verdict import judge, worst
from tests.unit.results.test_results import histogram_of
from tests.unit.verdict.test_validity import MS, run, schedule

VERDICT = Path(verdict.__file__).parent
STARVED = MachineResult(ran=0.3, waited=0.7)


def gate(text: str, **options: Any) -> RunResult:
    return run(count=1000, threshold=[text], op_timeout=30.0, **options)


def starved(text: str) -> RunResult:
    result = gate(text)
    return replace(result, process=replace(result.process, machine=STARVED))


def dropping(text: str, dropped: int, **settings: Any) -> RunResult:
    result = gate(text, mode="open", schedule=schedule(1.0, dropped), **settings)
    ((name, operation),) = result.by_operation.items()
    return replace(result, by_operation={name: replace(operation, dropped=dropped)})


@pytest.mark.parametrize(
    ("result", "word", "code"),
    [
        (gate("op_duration:p(95)<1s"), "passed", 0),
        (gate("op_duration:p(95)<1ms"), "failed", 99),
        # A busy client makes latencies longer, and at full speed measures throughput well.
        (gate("op_duration:p(95)<1s", busy=1.0), "passed", 0),
        (gate("op_duration:p(95)<1ms", busy=1.0), "not measured", 112),
        (gate("op_duration:p(95)>1ms", busy=1.0), "not measured", 112),
        (gate("op_duration:p(95)>1s", busy=1.0), "failed", 99),
        (gate("ops:rate>=100", busy=1.0), "passed", 0),
        (gate("ops:rate>=101", busy=1.0), "failed", 99),
        (starved("ops:rate>=100"), "passed", 0),
        (starved("ops:rate>=101"), "not measured", 112),
        # What was dropped counts as over the bound, and as failed.
        (dropping("op_duration:p(95)<1s", 10), "passed", 0),
        (dropping("op_duration:p(95)<1s", 100), "not measured", 112),
        (dropping("op_duration:p(95)<31s", 100), "passed", 0),
        (dropping("op_duration:p(95)<1ms", 100), "failed", 99),
        (dropping("errors:rate<5%", 100), "not measured", 112),
        (dropping("ops:count>=1000", 100, max_error_rate=0.01), "not measured", 112),
        # So is what a closed model did not begin while nothing ended.
        (replace(gate("op_duration:p(99)<1s"), stalls=(1.0,)), "passed", 0),
        (replace(gate("op_duration:p(99)<1s"), outcome="interrupted"), "stopped", 105),
        (replace(gate("op_duration:p(99)<1s"), outcome="lost"), "failed", 113),
        (replace(gate("op_duration:p(99)<1s"), outcome="hung"), "failed", 99),
        (replace(gate("op_duration:p(99)<1s"), outcome="aborted"), "failed", 1),
        (replace(gate("op_duration:p(99)<1s"), planned=1001), "failed", 99),
    ],
)
def test_each_word_has_its_exit_code(result: RunResult, word: str, code: int) -> None:
    found = judge(result)
    assert (found.word, found.exit_code) == (word, code), found.reasons
    assert bool(found.reasons) is (word != "passed") or word == "stopped"


@pytest.mark.parametrize(
    ("by", "said"),
    [("SIGTERM", "SIGTERM stopped the run"), (None, "somebody stopped the run")],
)
def test_who_stopped_a_run_is_named(by: str | None, said: str) -> None:
    found = judge(replace(run(), outcome="interrupted", stopped_by=by))
    assert found.sentence == f"stopped: {said} before its end"


def test_a_closed_model_hides_what_it_did_not_begin_over_a_stall() -> None:
    fast, slow = [MS] * 10_000, [4000 * MS] * 4
    operation = OperationResult("read", 10_004, 0, 0, histogram_of(*fast, *slow))
    settings = {"concurrency": 4, "op_timeout": 30.0}
    calm = replace(run(), seconds=8.0, by_operation={"read": operation}, settings=settings)
    asked = {**settings, "threshold": ["op_duration:p(99)<100ms"]}
    assert judge(replace(calm, settings=asked)).word == "passed"
    found = judge(replace(calm, settings=asked, stalls=(4.0,)))
    assert found.word == "not measured"
    assert "while the run stood still for 4.0 s" in found.sentence
    longer = {**settings, "threshold": ["op_duration:p(99)<5s"]}
    assert judge(replace(calm, settings=longer, stalls=(4.0,))).word == "passed"


@pytest.mark.parametrize(
    "text", ["errors:count<1", "errors{op:rare}:count<1", "ops{op:rare}:count<1", "dropped:count<1"]
)
def test_what_has_no_sample_fails(text: str) -> None:
    """And no operation at all is no success, whatever is asked."""
    rare = OperationResult("write", 0, 0, 0, histogram_of(), share=1e-9)
    nothing = replace(run(count=0, threshold=[text]), by_operation={"rare": rare})
    assert judge(nothing).exit_code == 99
    assert judge(replace(nothing, settings={})).reasons == ("no operation was performed",)


@pytest.mark.parametrize(("share", "word"), [(0.001, "passed"), (0.5, "failed")])
def test_an_operation_of_the_mix_that_never_ran_is_told(share: float, word: str) -> None:
    rare = OperationResult("write", 0, 0, 0, histogram_of(), share=share)
    result = run()
    found = judge(replace(result, by_operation={**result.by_operation, "rare": rare}))
    assert found.word == word
    assert "operation 'rare' never ran" in found.sentence


@pytest.mark.parametrize(
    ("count", "word"),
    [(99, "not measured"), (100, "failed"), (199, "failed"), (50, "not measured")],
)
def test_a_breach_needs_samples_too(count: int, word: str) -> None:
    assert judge(run(count=count, threshold=["op_duration:p(95)<1ms"])).word == word
    assert judge(run(count=count, threshold=["op_duration:p(95)<1s"])).word == "not measured"


def test_of_several_the_worst_counts() -> None:
    results = [run(), run(busy=1.0, require_valid=True), gate("ops:count<1"), run()]
    assert worst(map(judge, results)).word == "failed"
    assert worst(map(judge, results[:2])).word == "not measured"
    stopped = replace(run(), outcome="interrupted")
    assert worst(map(judge, [*results, stopped])).word == "stopped"


def test_names_have_braces_of_their_own() -> None:
    text = "op_duration{op:GET /orders/{order_id}}:p(95)<5s"
    assert parse(text).operation == "GET /orders/{order_id}"
    with pytest.raises(ConfigurationError, match=r"are checkout, browse.*did you mean checkout"):
        check_names([parse("errors{op:chekout}:rate<1%")], {"checkout": {}, "browse": {}})


@pytest.mark.parametrize("option", ["threshold", "compare-fail", "baseline", "out"])
@pytest.mark.parametrize("value", ["", ",", " ", "ops:count>1,"])
def test_a_variable_that_is_not_set_is_no_gate(option: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--{option}"):
        load(["--workload", "noop", f"--{option}", value])


def test_what_was_dropped_is_not_begun() -> None:
    nothing = replace(run(count=0, mode="open"), schedule=ScheduleResult(0, 0, histogram_of()))
    assert judge(nothing).exit_code == 99


@pytest.mark.parametrize("path", sorted(VERDICT.glob("*.py")), ids=lambda path: path.name)
def test_it_names_parameters_and_no_flags(path: Path) -> None:
    """A service has none; the command line puts its own in their place."""
    tree = ast.parse(path.read_text())
    said = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said
    ]
    assert not [text for text in texts if re.search(r"--[a-z]", text)]


def test_the_command_line_says_it_by_its_flags() -> None:
    assert in_flags("a lower `rate`, without `time_split`; `x` of theirs") == (
        "a lower --rate, without --time-split; `x` of theirs"
    )
