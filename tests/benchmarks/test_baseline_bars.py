"""The verdict against a baseline on real runs: how often it is a false alarm, or misses."""

from __future__ import annotations

import random
import time
from collections import Counter
from math import ceil
from pathlib import Path

import pytest

from async_loader import RunResult
from async_loader.verdict.regression import compare_with, parse_check
from tests.unit.runs import made_up_run

from .conftest import load, quote

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

PAIRS = 20
CHECKS = ("op_duration{op:nap}:med:10%", "op_duration{op:nap}:p(95):10%", "ops:rate:10%")
# A server that takes 0.2 s, or a fifth more: what else the machine does weighs less than that.
SLEEPS = """
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from async_loader import Workload

def naps(seconds):
    workload = Workload("naps")

    @workload.operation("nap", kind="read")
    async def nap(session: AsyncSession) -> None:
        await session.execute(text(f"SELECT pg_sleep({seconds})"))

    return workload

usual, slower = naps(0.2), naps(0.244)
"""


@pytest.fixture(scope="module")
def runs(
    server_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[RunResult, RunResult]]:
    """Runs of the same code, each with one of code that takes a fifth longer, in turns."""
    path = tmp_path_factory.mktemp("naps") / "naps.py"
    path.write_text(SLEEPS)

    def run(name: str) -> RunResult:
        where = ("--workload", f"{path}:{name}", "--server-directory", str(server_directory / "x"))
        return RunResult.from_dict(load(*where, "--concurrency", "20", "--duration", "8s"))

    return [(run("usual"), run("slower")) for _ in range(PAIRS)]


@pytest.mark.parametrize("baselines", [1, 3])
@pytest.mark.parametrize("check", CHECKS)
def test_the_same_code_passes_and_a_fifth_more_is_caught(
    runs: list[tuple[RunResult, RunResult]], check: str, baselines: int
) -> None:
    """Bar: each 19 times in 20, on a machine that does nothing else."""
    same: Counter[str] = Counter()
    slower: Counter[str] = Counter()
    for number in range(baselines, PAIRS):
        before = {str(n): runs[n][0] for n in range(number - baselines, number)}
        for found, now in zip((same, slower), runs[number], strict=True):
            found[compare_with(before, now, [parse_check(check)]).changes[0].finding] += 1
    made = PAIRS - baselines
    quote(
        f"{check}, {baselines} baseline(s), {made} comparisons",
        [f"same code {dict(same)}", f"a fifth slower {dict(slower)}"],
    )
    allowed = ceil(made / 20)
    assert same["regression"] <= allowed
    assert slower["regression"] >= made - allowed


def test_a_verdict_takes_a_moment() -> None:
    """Bar: 2 s for the usual figures of runs of ten minutes."""
    rng = random.Random(1)
    then, now = (made_up_run(rng, ops=200_000, seconds=600.0, spread=1.0) for _ in range(2))
    started = time.perf_counter()
    compare_with({"main.json": then}, now)
    seconds = time.perf_counter() - started
    quote("a verdict on two runs of ten minutes, 4 figures", [f"{seconds:.2f} s"])
    assert seconds < 2
