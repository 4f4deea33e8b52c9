"""When a run has had enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ...concurrency.clock import SECOND_NS, Clock
from ...errors import ConfigurationError

MOST_OPS = 10**12
"""More than a year's work; a number beyond it was meant otherwise."""

MOST_SECONDS = 10 * 366 * 86_400
"""Ten years; timers of an event loop take no more than some hundred."""


@dataclass(frozen=True, slots=True)
class Limit:
    """When a run has had enough: after so many operations, or so many seconds."""

    ops: int | None = None
    duration: float | None = None

    def __post_init__(self) -> None:
        if (self.ops is None) == (self.duration is None):
            raise ConfigurationError("a run needs either a number of operations or a duration")
        if self.ops is not None and not (type(self.ops) is int and 0 <= self.ops <= MOST_OPS):
            raise ConfigurationError(
                f"a run's operations are a whole number from 0 to {MOST_OPS:,}, not {self.ops!r}"
            )
        seconds: Any = self.duration  # a library's caller may give anything
        if seconds is not None and not (
            isinstance(seconds, int | float) and 0 <= seconds <= MOST_SECONDS
        ):
            raise ConfigurationError(
                f"a run's duration is from 0 to {MOST_SECONDS:,} seconds, not {self.duration!r}"
            )

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
