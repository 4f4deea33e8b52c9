"""
The bound of the command's end: op-timeout, grace and 5 s, whatever an operation does.

It counts from a stop, or from the beginning of the operation or tear-down that does not end. Here
it is the time that the tests wait, and what they fail by. Where others have the processors, the
report and the end of the interpreter may take as long again.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM

import pytest

from tests.faults.command import Process

from .conftest import ROOT

pytestmark = pytest.mark.timeout(60)

OP_TIMEOUT, GRACE = 2, 1
BOUND = OP_TIMEOUT + GRACE + 5
IF_BUSY = 10
PARTS = ("completed", "failed", "indeterminate", "dropped", "not_started")
Begin = Callable[..., Process]

ARGV = ["--workload", f"{ROOT / 'tests/acceptance/foreign.py'}:workload", "--concurrency", "4"]
ARGV += ["--op-timeout", f"{OP_TIMEOUT}s", "--grace", f"{GRACE}s", "--out", "json=found.json"]

# What the command ends with by itself.
KINDS = {
    "hangs": 99,
    "swallows_its_cancellation": 99,
    "blocks_the_loop": 99,
    "holds_the_interpreter": 99,
    "hangs_in_a_thread": 99,
    "starts_a_thread": 0,
    "leaves_a_task_for_ever": 99,
    "tear-down hangs": 107,
    "tear-down blocks": 107,
}
STOPS = [
    ("hangs", SIGTERM),
    ("swallows_its_cancellation", SIGINT),
    ("blocks_the_loop", SIGTERM),
    ("holds_the_interpreter", SIGHUP),
    ("hangs_in_a_thread", SIGTERM),
    ("starts_a_thread", SIGQUIT),
    ("leaves_a_task_for_ever", SIGINT),
    ("ignores_signals", SIGTERM),
    ("blocks_signals", SIGINT),
    ("heeds_signals_by_its_loop", SIGTERM),
    ("exits_when_it_is_asked", SIGHUP),
    ("exits_at_once_when_it_is_asked", SIGTERM),
]
# The ways that async is compared with: what hangs there cannot be cancelled.
SYNC_KINDS = ["hangs", "hangs_in_a_call", "holds_the_interpreter"]
SYNC = [(mode, kind) for mode in ("sync", "threads") for kind in SYNC_KINDS]
# They end by the same watchdog in either mode.
SYNC_FEW = [
    pytest.param(*one, marks=[pytest.mark.soak] if one in SYNC[4:] else [], id="-".join(one))
    for one in SYNC
]


def bound() -> float:
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    return BOUND + (IF_BUSY if busy else 0)


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Start the command on an operation of some kind; return it when that has begun."""

    def started(kind: str, *options: str) -> Process:
        monkeypatch.setenv("KIND", kind)
        monkeypatch.setenv("PYTHONWARNINGS", "ignore")
        process = Process(*ARGV, *options, cwd=tmp_path)
        process.wait_until((tmp_path / "began").exists)
        return process

    return started


@pytest.mark.parametrize("kind", KINDS)
def test_it_ends_by_itself(begin: Begin, tmp_path: Path, kind: str) -> None:
    options = ["--threshold", "errors:count<1", "--max-error-rate", "1"]
    process = begin(kind, "--ops", "40", *options)
    output, errors = process.end(timeout=bound())
    assert process.code == KINDS[kind], errors
    assert "operations in" in output
    assert "Exception ignored" not in errors
    counted = json.loads((tmp_path / "found.json").read_text())["operations"]
    assert sum(counted[part] for part in PARTS) == counted["planned"] == 40


@pytest.mark.busy
@pytest.mark.parametrize(("kind", "number"), STOPS, ids=[kind for kind, _ in STOPS])
def test_it_ends_when_it_is_stopped(
    begin: Begin, tmp_path: Path, kind: str, number: signal.Signals
) -> None:
    process = begin(kind, "--duration", "10m")
    process.send(number)
    output, errors = process.end(timeout=bound())
    assert process.code == 105, errors
    assert output.startswith("interrupted")
    # A handler's exit comes anywhere. Within a weak reference's callback Python tells it, only.
    own = errors.count("SystemExit: 0") if kind == "exits_when_it_is_asked" else 0
    assert errors.count("Exception ignored") <= own, errors
    found = json.loads((tmp_path / "found.json").read_text())
    by = found["stopped_by"]
    assert f"stopped: {by} stopped the run before its end" in errors
    assert found["outcome"] == "interrupted"
    # Whose handler exits may be sooner with that than we hear of the signal.
    assert by == number.name or (kind, by) == ("exits_when_it_is_asked", "a SystemExit")
    if kind != "holds_the_interpreter":  # of which the last snapshot is all that is known
        assert found["operations"]["completed"] > 0


@pytest.mark.parametrize(
    "line", [5, 7, *(pytest.param(n, marks=pytest.mark.soak) for n in (0, 1, 2, 3, 4, 6, 8))]
)
def test_it_ends_by_an_exit_between_two_lines_of_the_runner(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: int
) -> None:
    monkeypatch.setenv("LINE", str(line))
    process = begin("exits_between_two_of_our_lines", "--duration", "10m")
    output, errors = process.end(timeout=bound())
    assert process.code == 105, errors
    assert output.startswith("interrupted")
    assert "stopped: a SystemExit stopped the run before its end" in errors


@pytest.mark.parametrize(("mode", "kind"), SYNC_FEW)
def test_a_sync_run_ends_by_itself(begin: Begin, tmp_path: Path, mode: str, kind: str) -> None:
    options = ["--threshold", "errors:count<1", "--max-error-rate", "1"]
    process = begin(kind, "--mode", mode, "--ops", "40", *options)
    output, errors = process.end(timeout=bound())
    assert process.code == 99, errors
    assert "operations in" in output
    found = json.loads((tmp_path / "found.json").read_text())
    counted = found["operations"]
    assert sum(counted[part] for part in PARTS) == counted["planned"] == 40
    if kind != "holds_the_interpreter":
        assert (counted["completed"], counted["failed"]) == (39, 1)
        assert f"in sync_{kind}" in " ".join(output.split())


@pytest.mark.busy
@pytest.mark.parametrize(("mode", "kind"), SYNC_FEW)
def test_a_sync_run_ends_when_it_is_stopped(
    begin: Begin, tmp_path: Path, mode: str, kind: str
) -> None:
    process = begin(kind, "--mode", mode, "--duration", "10m")
    process.send(SIGTERM)
    output, errors = process.end(timeout=bound())
    assert process.code == 105, errors
    assert output.startswith("interrupted")
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["mode"], found["outcome"], found["stopped_by"]) == (
        mode,
        "interrupted",
        "SIGTERM",
    )
