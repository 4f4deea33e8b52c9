"""Processes as workers: calls and messages, and their end, however it comes."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from async_loader.errors import WorkerLostError
from async_loader.workers import Arrived, Link, ProcessWorkers

ROOT = Path(__file__).parents[3]


def who(link: Link, *words: str) -> tuple[str, int, tuple[str, ...]]:
    return link.name, os.getpid(), words


def echo(link: Link) -> int:
    """Send back what comes, until it is told to end; return how much that was."""
    heard: queue.SimpleQueue[Arrived | None] = queue.SimpleQueue()
    link.listen(heard.put)
    link.tell({"ready": True})
    number = 0
    while (message := heard.get()) != {"end": True}:
        if message is None:
            return number
        number += 1
        link.tell({"echo": message, "number": number})
    return number


def stubborn(link: Link) -> None:
    """Hear nothing, and go on."""
    link.tell({"pid": os.getpid()})
    while True:
        time.sleep(60)


def raising(link: Link) -> None:
    raise KeyError(link.name)


def fatal(link: Link) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def test_each_call_runs_on_its_worker() -> None:
    async with ProcessWorkers(2, lambda index, message: None) as workers:
        calls = [workers.submit(index, who, "a", "b") for index in (0, 1, 0)]
        first, second, again = [await asyncio.wrap_future(call) for call in calls]
        with pytest.raises(KeyError, match="process 2"):
            await asyncio.wrap_future(workers.submit(1, raising))
    assert workers.names == ("process 1", "process 2")
    assert first == again
    assert (first[0], second[0]) == workers.names
    assert len({os.getpid(), first[1], second[1]}) == 3
    assert first[2] == ("a", "b")


async def test_messages_go_both_ways_in_order() -> None:
    heard: list[tuple[int, Arrived]] = []
    async with ProcessWorkers(2, lambda *what: heard.append(what)) as workers:
        calls = [workers.submit(index, echo) for index in (0, 1)]
        for number in range(50):
            for index in (0, 1):
                workers.tell(index, {"number": number, "text": "é" * 100})
        for index in (0, 1):
            workers.tell(index, {"end": True})
        assert [await asyncio.wrap_future(call) for call in calls] == [50, 50]
        async with asyncio.timeout(10):
            while len(heard) < 102:
                await asyncio.sleep(0.01)
    for index in (0, 1):
        mine = [message for worker, message in heard if worker == index]
        assert mine[0] == {"ready": True}
        assert [message["number"] for message in mine[1:]] == [*range(1, 51)]
        assert [message["echo"]["number"] for message in mine[1:]] == [*range(50)]


async def test_one_that_is_killed_is_named_and_the_others_go_on() -> None:
    async with ProcessWorkers(3, lambda index, message: None) as workers:
        lost, calls = workers.submit(1, fatal), [workers.submit(n, echo) for n in (0, 2)]
        with pytest.raises(WorkerLostError, match=r"^process 2 was killed by SIGKILL$") as error:
            await asyncio.wrap_future(lost)
        assert error.value.worker == "process 2"
        workers.tell(1, {"end": True})  # goes nowhere
        with pytest.raises(WorkerLostError, match="process 2"):
            await asyncio.wrap_future(workers.submit(1, who))
        for index in (0, 2):
            workers.tell(index, {"end": True})
        assert [await asyncio.wrap_future(call) for call in calls] == [0, 0]


async def test_leaving_ends_what_they_do() -> None:
    pids: list[Any] = []
    async with ProcessWorkers(2, lambda index, message: pids.append(message["pid"])) as workers:
        calls = [workers.submit(index, stubborn) for index in (0, 1)]
        async with asyncio.timeout(20):
            while len(pids) < 2:
                await asyncio.sleep(0.01)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    for call in calls:
        with pytest.raises(WorkerLostError):
            call.result(timeout=10)


async def test_signals_to_the_whole_group_are_the_coordinators() -> None:
    async with ProcessWorkers(1, lambda index, message: None) as workers:
        pid = await asyncio.wrap_future(workers.submit(0, who))
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid[1], number)
        assert await asyncio.wrap_future(workers.submit(0, who)) == pid


COORDINATOR = """
import asyncio, sys
from async_loader.workers import ProcessWorkers
from tests.integration.workers.test_workers import echo, stubborn

def heard(index, message):
    print(message.get("pid", "listening"), flush=True)

async def main():
    async with ProcessWorkers(3, heard) as workers:
        print(*[workers._workers[n].process.pid for n in range(3)], flush=True)
        workers.submit(0, stubborn)
        workers.submit(1, echo)
        await asyncio.sleep(60)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_a_killed_coordinator_leaves_nobody(tmp_path: Path) -> None:
    """One of its workers is busy and deaf, one listens, one has nothing to do."""
    script = tmp_path / "coordinator.py"
    script.write_text(COORDINATOR)
    with subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as coordinator:
        assert coordinator.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in coordinator.stdout.readline().split()]
        assert len(workers) == 3
        both = {coordinator.stdout.readline(), coordinator.stdout.readline()}
        assert both == {f"{workers[0].pid}\n", "listening\n"}
        coordinator.kill()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
