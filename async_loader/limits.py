"""When a run ends: by itself, or because somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .clock import Clock
from .errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Limit:
    """When a run has had enough: after so many operations, or so many seconds."""

    ops: int | None = None
    duration: float | None = None

    def __post_init__(self) -> None:
        if (self.ops is None) == (self.duration is None):
            raise ConfigurationError("a run needs either a number of operations or a duration")
        if (self.ops if self.ops is not None else self.duration or 0) < 0:
            raise ConfigurationError("a run's operations or duration cannot be negative")

    def cut(
        self, numbers: Iterator[int], clock: Clock, closed: Callable[[], bool]
    ) -> Iterator[int]:
        """Yield numbers until the limit, which starts now, or until it is closed."""
        if self.ops is not None:
            for _ in range(self.ops):
                if closed():
                    return
                yield next(numbers)
        elif self.duration is not None:
            until = clock.now_ns() + int(self.duration * 1e9)
            while clock.now_ns() < until and not closed():
                yield next(numbers)


class Stop:
    """
    The way to end a run early: the first `request` lets no more operations in, the second
    does not wait for those in flight either.
    """

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.at_once = asyncio.Event()
        self.heeded = False
        """Whether a run has begun to listen."""

    def request(self) -> None:
        """Ask for the end; call it on the event loop's thread."""
        (self.at_once if self.requested.is_set() else self.requested).set()
