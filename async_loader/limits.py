"""When a run ends: by itself, or because somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .clock import SECOND_NS, Clock
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
        """Yield numbers until the limit, for which time runs from now, or until it is closed."""
        if self.duration is not None:
            return _until(clock.now_ns() + int(self.duration * SECOND_NS), numbers, clock, closed)
        return _first(self.ops or 0, numbers, closed)


def _until(
    time_ns: int, numbers: Iterator[int], clock: Clock, closed: Callable[[], bool]
) -> Iterator[int]:
    while clock.now_ns() < time_ns and not closed():
        yield next(numbers)


def _first(ops: int, numbers: Iterator[int], closed: Callable[[], bool]) -> Iterator[int]:
    for _ in range(ops):
        if closed():
            return
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
        self.by: str | None = None
        """Who asked first, for people: a signal's name."""

    def request(self, by: str | None = None) -> None:
        """Ask for the end; call it on the event loop's thread."""
        self.by = self.by or by
        (self.at_once if self.requested.is_set() else self.requested).set()
