"""A clock for tests."""

from __future__ import annotations

import asyncio


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
