"""What a user's own tests need."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from .exactly_once import NotExactlyOnceError, assert_exactly_once
from .interrupting import Interrupted, interrupt_after

with suppress(ModuleNotFoundError):  # where there is no pytest the rest is of use all the same
    from .fixture import LoadTest, LoadTestResult, load_test

__all__ = [
    "FakeClock",
    "Interrupted",
    "LoadTest",
    "LoadTestResult",
    "NotExactlyOnceError",
    "assert_exactly_once",
    "interrupt_after",
    "load_test",
]


class FakeClock:
    """A clock that stands still, and jumps when somebody sleeps."""

    def __init__(self) -> None:
        self._now_ns = 0
        self.slept: list[float] = []

    def now_ns(self) -> int:
        """Return the time of this clock."""
        return self._now_ns

    def advance(self, seconds: float) -> None:
        """Be that much later, as after a pause of the whole loop."""
        self._now_ns += round(max(seconds, 0.0) * 1e9)

    async def sleep(self, seconds: float) -> None:
        """Let others run, and be that much later."""
        self.slept.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)
