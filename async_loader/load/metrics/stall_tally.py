"""The times in which operations were under way and none of them ended."""

from __future__ import annotations

from ...concurrency.clock import SECOND_NS

LEAST_STALL_NS = SECOND_NS // 2
_MOST = 1000


class StallTally:
    """
    The longest stalls so far, in nanoseconds.

    Whether one was remarkable is judged at the end, beside the median: operations of a second
    each end a second apart.
    """

    def __init__(self) -> None:
        self._stalls: list[int] = []

    def add(self, ns: int) -> None:
        """Take a time in which no operation ended, if it is long enough."""
        if ns < LEAST_STALL_NS:
            return
        self._stalls.append(ns)
        if len(self._stalls) > 2 * _MOST:  # now and then: memory is bounded all the same
            self._stalls = self._longest()

    def result(self) -> tuple[float, ...]:
        """Return the longest in seconds, as they came."""
        return tuple(ns / SECOND_NS for ns in self._longest())

    def _longest(self) -> list[int]:
        least = sorted(self._stalls, reverse=True)[:_MOST][-1:]
        return [ns for ns in self._stalls if ns >= least[0]][:_MOST] if least else []
