"""
Who had the machine's cores during a run, and whether this process was left any.

Linux tells by the scheduler's own count of each thread, `/proc/stat` (steal, all cores' time),
the cgroup's throttling and `/proc/pressure`; elsewhere psutil does, where it is installed, of
the machine as a whole.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...concurrency.clock import SECOND_NS
from ...results.machine import MachineResult

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class _Instant:
    """Seconds since some time in the past; None for what this system does not tell."""

    wall: float
    own_cpu: float
    ran: float
    waited: float | None
    machine_busy: float | None
    stolen: float | None
    throttled: float | None
    pressure: float | None
    processes: dict[tuple[int, str], float]


class MachineMeter:
    """The machine from its making to `result`, seen from the thread that makes it."""

    def __init__(self) -> None:
        self._before = _now()

    def result(self) -> MachineResult:
        """Return what was used since, by whom."""
        before, after = self._before, _now()
        wall = max(after.wall - before.wall, 1e-9)
        own = after.own_cpu - before.own_cpu

        def share(name: str, of: float = wall) -> float | None:
            start, end = getattr(before, name), getattr(after, name)
            return None if start is None or end is None else min(max((end - start) / of, 0), 1.0)

        cores = _cores()
        others = None
        if before.machine_busy is not None and after.machine_busy is not None:
            others = max(after.machine_busy - before.machine_busy - own, 0.0) / wall
        return MachineResult(
            ran=share("ran") or 0.0,
            waited=share("waited"),
            stolen=share("stolen", wall * cores),
            throttled=share("throttled"),
            pressure=share("pressure"),
            others=others,
            cores=cores,
            busiest=tuple(_busiest(before, after, wall)),
        )


def _now() -> _Instant:
    ran, waited = thread_times()
    busy, stolen = _machine()
    return _Instant(
        wall=time.perf_counter(),
        own_cpu=time.process_time(),
        ran=ran,
        waited=waited,
        machine_busy=busy,
        stolen=stolen,
        throttled=_throttled(),
        pressure=_pressure(),
        processes=_processes(),
    )


def thread_times() -> tuple[float, float | None]:
    """Return the seconds that this thread ran, and those that it waited for a core (Linux)."""
    try:
        ran_ns, waited_ns, _ = Path("/proc/thread-self/schedstat").read_text().split()
        return int(ran_ns) / SECOND_NS, int(waited_ns) / SECOND_NS
    except (OSError, ValueError):
        return time.thread_time(), None


def _cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _machine() -> tuple[float | None, float | None]:
    """Return the seconds that our cores were used, and those that were stolen from them."""
    if sys.platform != "linux":
        return _machine_by_psutil(), None
    try:
        lines = (_PROC / "stat").read_text().splitlines()
    except OSError:
        return None, None
    tick = os.sysconf("SC_CLK_TCK")
    ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    used = stolen = 0.0
    for line in lines:
        name, *fields = line.split()
        if name in ours:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            used += (user + nice + system + irq + softirq) / tick
            stolen += steal / tick
    return used, stolen


def _machine_by_psutil() -> float | None:
    try:
        import psutil  # noqa: PLC0415  where it is not installed, nobody tells
    except ImportError:
        return None
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def _throttled() -> float | None:
    """Return the seconds for which the container's quota has stopped it."""
    for place in _cgroups():
        with suppress(OSError, ValueError):
            counts = dict(line.split() for line in (place / "cpu.stat").read_text().splitlines())
            if "throttled_usec" in counts:
                return int(counts["throttled_usec"]) / 1e6
            if "throttled_time" in counts:  # cgroup v1
                return int(counts["throttled_time"]) / SECOND_NS
    return None


def _cgroups() -> Iterator[Path]:
    """Yield the places where this process's own cgroup may count."""
    with suppress(OSError):
        for line in (_PROC / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield _CGROUP / path.lstrip("/")
            elif "cpu" in controllers.split(","):
                yield _CGROUP / "cpu" / path.lstrip("/")
    yield _CGROUP
    yield _CGROUP / "cpu"


def _pressure() -> float | None:
    try:
        some = (_PROC / "pressure/cpu").read_text().splitlines()[0]
        return int(some.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError, IndexError):
        return None


def _processes() -> dict[tuple[int, str], float]:
    """Return the CPU seconds of each process but this one, by its number and name (Linux)."""
    found: dict[tuple[int, str], float] = {}
    if sys.platform != "linux":
        return found
    tick, own = os.sysconf("SC_CLK_TCK"), str(os.getpid())
    try:
        entries = list(_PROC.iterdir())
    except OSError:  # no descriptor is left, say
        return found
    for entry in entries:
        if entry.name.isdigit() and entry.name != own:
            with suppress(OSError, ValueError, IndexError):
                text = (entry / "stat").read_text(errors="replace")
                name = text[text.index("(") + 1 : text.rindex(")")]
                fields = text[text.rindex(")") + 2 :].split()
                found[int(entry.name), name] = (int(fields[11]) + int(fields[12])) / tick
    return found


def _busiest(before: _Instant, after: _Instant, wall: float) -> Iterator[str]:
    """Yield the names of the processes that used most, each with its cores."""
    used: dict[str, float] = {}
    for (number, name), seconds in after.processes.items():
        spent = seconds - before.processes.get((number, name), 0)
        used[name] = used.get(name, 0.0) + spent / wall
    most = sorted(used.items(), key=lambda item: -item[1])[:_MOST_NAMED]
    yield from (f"{name} {cores:.1f}" for name, cores in most if cores >= 0.1)
