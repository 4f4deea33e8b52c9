"""What this process itself took: CPU, memory, and how late its event loop was."""

from __future__ import annotations

import asyncio
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ...concurrency.clock import SECOND_NS, Clock
from ...results.histogram import Histogram
from ...results.parts import ProcessResult
from .machine_meter import MachineMeter, thread_times


class ProcessMeter:
    """This process's CPU, memory and event loop, from its making to `result`."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()
        self._thread = thread_times()
        self._machine = MachineMeter()

    def result(self, loop_lag: Histogram, busy_share: float | None = None) -> ProcessResult:
        """Return what was used since; the busy share is this thread's unless it is given."""
        wall = time.perf_counter() - self._wall
        busy = busy_seconds_since(self._thread) if busy_share is None else busy_share * wall
        return ProcessResult(
            cpu_seconds=time.process_time() - self._cpu,
            peak_memory_bytes=peak_memory_bytes(),
            loop_busy=min(max(busy, 0.0) / wall, 1.0) if wall else 0.0,
            loop_lag=loop_lag,
            machine=self._machine.result() if busy_share is None else None,
        )


def peak_memory_bytes() -> int:
    """Return the most memory this process has had resident."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def usable_cores() -> int:
    """Return how many cores this process may use; a container's quota counts, rounded up."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, max(math.ceil(int(quota) / int(period)), 1))
    except (OSError, ValueError):  # no such file, or `max`
        return cores


def busy_seconds_since(then: tuple[float, float | None]) -> float:
    """
    Return for how long this thread ran since its `thread_times` were such.

    And for how long it waited for a core, where Linux tells: it does not without a descriptor.

    A loop that is ready but waits for a core is as late for its operations as one that
    computes: on a machine shared with the server CPU time alone would call it idle.
    """
    ran, waited = thread_times()
    ran_then, waited_then = then
    in_queue = 0.0 if waited is None or waited_then is None else waited - waited_then
    return ran - ran_then + in_queue


async def watch_loop(clock: Clock, sample: Callable[[int], None], every: float = 0.05) -> None:
    """Call `sample` with how late a timer fired, in nanoseconds, until cancelled."""
    while True:
        asked = clock.now_ns()
        await clock.sleep(every)
        sample(clock.now_ns() - asked - int(every * SECOND_NS))
        await asyncio.sleep(0)
