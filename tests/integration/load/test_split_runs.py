"""Runs that are split over processes: the same operations, on a real database."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader import ConfigurationError, RunResult, Snapshot, Stop
from async_loader.errors import WorkerLostError
from async_loader.load.shards import run_as_asked
from async_loader.settings.run import RunSettings
from async_loader.settings.spec import spec_of
from async_loader.workers.answers import FailedElsewhereError

LEDGER = """
import asyncio, os
from dataclasses import dataclass
from sqlalchemy import text
from async_loader import Workload

workload = Workload("ledger")
unpicklable = Workload("unpicklable")
dying = Workload("dying")
stuck = Workload("stuck")


@dataclass
class Shared:
    answer: int


@workload.setup
@dying.setup
async def prepare(sessions, seed):
    async with sessions() as session:
        await session.execute(text("CREATE TABLE done (index bigint, pid int, draw float)"))
        await session.execute(text("CREATE TABLE hooks (name text)"))
        await session.execute(text("INSERT INTO hooks VALUES ('set-up')"))
        await session.commit()
    return Shared(42)


@workload.teardown
async def finish(sessions, shared):
    async with sessions() as session:
        await session.execute(text("INSERT INTO hooks VALUES ('tear-down')"))
        await session.commit()
    assert shared.answer == 42


async def insert(session, op):
    row = {"index": op.index, "pid": os.getpid(), "draw": op.rng.random()}
    await session.execute(text("INSERT INTO done VALUES (:index, :pid, :draw)"), row)
    await session.commit()


@workload.operation("write", kind="write", weight=3)
async def write(session, op):
    op.check("the answer", op.shared.answer == 42)
    await insert(session, op)


@workload.operation("read", kind="read", weight=1)
async def read(session, op):
    await session.execute(text("SELECT 1"))


@dying.operation("write", kind="write")
async def dying_write(session, op):
    if op.index == -1:
        os.kill(os.getpid(), 9)
    await insert(session, op)


class Stuck:
    def __reduce__(self):
        return (int, ("no number",))


@stuck.setup
async def return_it():
    return Stuck()


@stuck.operation("nothing", kind="read")
async def nothing_either(op):
    pass


@unpicklable.setup
async def not_to_be_shipped():
    return lambda: None


@unpicklable.operation("nothing", kind="read")
async def nothing(op):
    pass


@unpicklable.teardown
async def say_so():
    print("torn down")
"""


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """The path of a workload whose writes leave a row."""
    path = tmp_path / "ledger.py"
    path.write_text(LEDGER)
    return str(path)


class Run:
    """A run, and what it said."""

    def __init__(self, **given: Any) -> None:
        self.settings = RunSettings(keep_data=True, **given)
        self.stop = Stop()
        self.notes: list[str] = []
        self.snapshots: list[Snapshot] = []

    async def result(self) -> RunResult:
        finished = await run_as_asked(
            spec_of(self.settings),
            stop=self.stop,
            on_progress=self.snapshots.append,
            say=lambda phase: None,
            note=self.notes.append,
        )
        assert finished.cleanup_error is None
        return finished.result


async def rows(engine: AsyncEngine, result: RunResult, columns: str, table: str = "done") -> Any:
    schema = result.environment["database"]["kept"]
    async with engine.connect() as connection:
        return (await connection.execute(text(f"SELECT {columns} FROM {schema}.{table}"))).all()


def counts(result: RunResult) -> dict[str, tuple[int, int, int]]:
    return {n: (o.count, o.failed, o.indeterminate) for n, o in result.by_operation.items()}


@pytest.mark.parametrize(
    "given", [{}, pytest.param({"rate": "900/s"}, marks=pytest.mark.soak)], ids=str
)
async def test_any_number_of_shards_does_the_same(
    ledger: str, database_url: str, engine: AsyncEngine, given: dict[str, Any]
) -> None:
    """The same operations, and the rows that they create are equal."""
    results = []
    for processes in (1, 2) if given else (1, 2, 4):
        run = Run(
            workload=f"{ledger}:workload", database_url=database_url, processes=processes,
            ops=301, concurrency=9, seed=3, warmup=10, **given,
        )  # fmt: skip
        results.append(result := await run.result())
        assert result.outcome == "done"
        assert result.planned == 301
        assert result.warm_up is not None
        assert result.warm_up.completed == 10
        assert sum(result.series.throughput) == 301
        assert result.process.processes == processes
        assert (result.pool.size if result.pool else 0) == 9
        assert result.server_side is not None
        assert result.checks["the answer"].failed == 0
        assert {name for (name,) in await rows(engine, result, "name", "hooks")} == {
            "set-up", "tear-down"}  # fmt: skip
        assert len(await rows(engine, result, "name", "hooks")) == 2
        if processes > 1:
            pids = Counter(pid for (pid,) in await rows(engine, result, "pid"))
            assert len(pids) == processes
            assert sum(shard.completed for shard in result.shards) == 301
            assert [s.name for s in result.shards] == [
                f"process {n + 1}" for n in range(processes)]  # fmt: skip
            assert run.snapshots[-1].completed == 301
    assert len({str(counts(result)) for result in results}) == 1
    created = [sorted(await rows(engine, result, "index, draw")) for result in results]
    assert all(some == created[0] for some in created)
    assert len(created[0]) > 220


async def test_what_cannot_be_shipped_is_said_before_the_run(
    ledger: str, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"database_url": database_url, "processes": 2, "ops": 10}
    with pytest.raises(ConfigurationError, match=r"op\.shared, and cannot be pickled"):
        await Run(workload=f"{ledger}:unpicklable", **given).result()
    assert capsys.readouterr().out == "torn down\n"


async def test_what_cannot_be_unpickled_there_names_the_process(
    ledger: str, database_url: str
) -> None:
    given = {"database_url": database_url, "processes": 2, "ops": 10}
    what = r"process [12]: op\.shared cannot be unpickled here"
    with pytest.raises(FailedElsewhereError, match=what) as e:
        await Run(workload=f"{ledger}:stuck", **given).result()
    assert e.value.exit_code == 107


async def test_one_that_dies_before_the_start_ends_the_run(ledger: str, database_url: str) -> None:
    given = {"database_url": database_url, "processes": 2, "ops": 10, "warmup": 4}
    with pytest.raises(WorkerLostError, match="process 1 was killed by SIGKILL"):
        await Run(workload=f"{ledger}:dying", **given).result()


async def test_a_broken_threshold_ends_all_of_them() -> None:
    run = Run(
        workload="noop", processes=2, duration=60, threshold=["ops:rate<1"], abort_on_fail=1.0
    )
    result = await run.result()
    assert result.outcome == "failed"
    assert result.seconds < 50


def worker_processes() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if "multiprocessing.spawn" in " ".join(child.cmdline())
    ]


async def kill_one_of_four(
    ledger: str, database_url: str, engine: AsyncEngine, rng: random.Random, policy: str
) -> None:
    """Kill any of four workers at any time of the run, and hold its result against the rows."""
    run = Run(
        workload=f"{ledger}:workload", database_url=database_url, processes=4,
        seed=rng.randrange(10**6), concurrency=8, duration=4.0, on_worker_loss=policy,
    )  # fmt: skip
    running = asyncio.create_task(run.result())
    while not run.snapshots:
        assert not running.done()
        await asyncio.sleep(0.01)
    await asyncio.sleep(rng.uniform(0, 2))
    rng.choice(worker_processes()).send_signal(signal.SIGKILL)
    result = await running
    reconcile(result, await rows(engine, result, "index, pid"))
    assert result.outcome == ("lost" if policy == "stop" else "done")
    (lost,) = [shard for shard in result.shards if shard.lost]
    assert lost.lost == "was killed by SIGKILL"
    assert len(run.notes) == 1
    assert run.notes[0].startswith(f"{lost.name} was killed by SIGKILL")
    assert lost.indeterminate == result.indeterminate
    assert result.errors["worker lost"].count == lost.indeterminate
    if policy == "continue":
        assert result.seconds >= 4.0


def reconcile(result: RunResult, written: Iterable[Any]) -> None:
    """Each row was counted, or is of an operation of which nobody knows; and the reverse."""
    indexes = [index for index, _ in written]
    assert len(set(indexes)) == len(indexes)
    count, failed, indeterminate = counts(result)["write"]
    assert failed == 0
    assert count <= len(indexes) <= count + indeterminate


@pytest.mark.parametrize("policy", [pytest.param("stop", marks=pytest.mark.soak), "continue"])
async def test_killing_a_worker_loses_no_account(
    ledger: str, database_url: str, engine: AsyncEngine, policy: str
) -> None:
    await kill_one_of_four(ledger, database_url, engine, random.Random(policy), policy)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_killing_a_worker_twenty_times(
    ledger: str, database_url: str, engine: AsyncEngine
) -> None:
    rng = random.Random(9)
    for _ in range(20):
        policy = rng.choice(["stop", "continue"])
        await kill_one_of_four(ledger, database_url, engine, rng, policy)
