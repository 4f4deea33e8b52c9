"""Time as a parameter, so that tests of schedules never really sleep."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

SECOND_NS = 1_000_000_000


class Clock(Protocol):
    """What everything timed takes: a monotonic clock and a way to wait on it."""

    def now_ns(self) -> int:
        """Return monotonic time in nanoseconds; only differences have a meaning."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; a negative time is zero."""
        ...


class SystemClock:
    """`time.perf_counter_ns` and `asyncio.sleep`."""

    now_ns = staticmethod(time.perf_counter_ns)
    sleep = staticmethod(asyncio.sleep)


SYSTEM_CLOCK: Clock = SystemClock()
