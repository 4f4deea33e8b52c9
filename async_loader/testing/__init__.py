"""What a user's own tests need."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..jobs.checkpoints import WATCHER, Cut, Place

with suppress(ModuleNotFoundError):  # where there is no pytest the rest is of use all the same
    from .fixture import LoadTest, LoadTestResult, load_test

__all__ = [
    "FakeClock",
    "Interrupted",
    "LoadTest",
    "LoadTestResult",
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


class Interrupted(Cut):
    """Stands for a kill: no `except Exception` of the job or of yours sees it."""


@contextmanager
def interrupt_after(chunks: int, place: Place = "before commit") -> Iterator[None]:
    """
    Cut the jobs run in this block off at a chunk, as a kill would: `Interrupted` is raised.

    `chunks` are committed, and the next is cut off when it is applied and not yet committed;
    or, with "after commit", when it is committed and nobody knows yet::

        with pytest.raises(Interrupted), interrupt_after(3):
            await job.run(Session)
        await job.run(Session)  # goes on behind the third chunk
    """
    reached = 0

    def watch(here: Place) -> None:
        nonlocal reached
        if here == place:
            reached += 1
            if reached > chunks:
                raise Interrupted(f"interrupted {place} of chunk {reached}")

    token = WATCHER.set(watch)
    try:
        yield
    finally:
        WATCHER.reset(token)
