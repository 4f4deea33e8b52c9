"""The slices of a run while it goes on, in bounded memory."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping

from ...results.slices import NOTHING, Buckets, Slice, Slices, bucket_of, pairs, percentile_ns

# Halves and doubles of a second: the slices of any two runs have one width that fits both.
FIRST_WIDTH_NS = 125_000_000
MOST_SLICES = 128
RECENT_SECONDS = 5.0


class SliceTally:
    """
    The running counts of a run in slices of time.

    The first are an eighth of a second. When there are 128, neighbours are merged and those
    that come are twice as wide. So a run always has 64 to 128, if it is longer than 8 s.
    """

    def __init__(self, operations: Iterable[str]) -> None:
        self.width_ns = FIRST_WIDTH_NS
        self._length = 0
        self._closed: dict[str, list[Slice]] = {name: [] for name in operations}
        self._open: dict[str, Buckets] = {name: {} for name in self._closed}
        self._failed = dict.fromkeys(self._closed, 0)

    @property
    def closes_ns(self) -> int:
        """When the open slice is over, in nanoseconds from the start of the run."""
        return (self._length + 1) * self.width_ns

    def add(self, name: str, durations: Mapping[int, int]) -> None:
        """Count what ended well in the open slice: how many, by their nanoseconds."""
        buckets = self._open[name]
        for ns, count in durations.items():
            bucket = bucket_of(ns)
            buckets[bucket] = buckets.get(bucket, 0) + count

    def fail(self, name: str) -> None:
        """Count an operation that did not end well in the open slice."""
        self._failed[name] += 1

    def advance(self, elapsed_ns: int) -> None:
        """Close the slices that are over by then."""
        while self.closes_ns <= elapsed_ns:
            self._close()
            if self._length == MOST_SLICES:
                self.width_ns *= 2
                self._length //= 2
                self._closed = {name: list(pairs(s)) for name, s in self._closed.items()}

    def result(self, elapsed_ns: int) -> Slices:
        """Return the slices of a run that ended then."""
        self.advance(elapsed_ns)
        last = {name: self._open_slice(name) for name in self._closed}
        begun = self._length * self.width_ns < elapsed_ns or any(
            one != NOTHING for one in last.values()
        )
        return Slices(
            self.width_ns / 1e9,
            {name: (*s, last[name]) if begun else tuple(s) for name, s in self._closed.items()},
        )

    def _open_slice(self, name: str) -> Slice:
        return Slice.of(self._open[name], self._failed[name])

    def _close(self) -> None:
        for name, closed in self._closed.items():
            closed.append(self._open_slice(name))
            self._open[name] = {}
            self._failed[name] = 0
        self._length += 1


class RecentTally:
    """The latencies of the last seconds, as what came to them from one look to the next."""

    def __init__(self) -> None:
        self._fresh: Counter[int] = Counter()
        self._looks: deque[tuple[float, Counter[int]]] = deque()

    def add(self, durations: Iterable[tuple[int, int]]) -> None:
        """Count what has ended well since the last look: nanoseconds, and how often."""
        for ns, count in durations:
            self._fresh[bucket_of(ns)] += count

    def look(self, seconds: float, wanted: Mapping[str, float]) -> dict[str, float] | None:
        """
        Return these percentiles of the last 5 s by name, in milliseconds, at most 1.6 % off.

        `seconds` are of the run so far. None where nothing ended well, and where that is not
        known: from counts that were told less finely meanwhile, more were taken than there are.
        """
        self._looks.append((seconds, self._fresh))
        self._fresh = Counter()
        while self._looks[0][0] <= seconds - RECENT_SECONDS:
            self._looks.popleft()
        recent: Counter[int] = Counter()
        for _, fresh in self._looks:
            recent.update(fresh)
        if not any(recent.values()) or min(recent.values()) < 0:
            return None
        counted = +recent
        return {name: percentile_ns(counted, each) / 1e6 for name, each in wanted.items()}
