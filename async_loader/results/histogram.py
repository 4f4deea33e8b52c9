"""Latencies as an HDR histogram: bounded memory, lossless merge, 3 significant digits."""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Self

from hdrh.histogram import HdrHistogram

HIGHEST_NS = 3600 * 10**9
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)

# 3 significant digits are 2,048 sub-buckets (11 bits) to a power of two.
_SUB_BUCKET_BITS = 11


class Histogram:
    """
    Durations in integer nanoseconds, from 1 ns to 1 hour (longer ones count as an hour).

    A percentile is the highest value equivalent to the one at that rank, so it is at most
    0.1 % above the exact one. Microsecond buckets would miss that at 0.6 ms. One that is
    `followed` also tells, by `drain`, what is new.
    """

    __slots__ = ("_fresh", "_hdr", "_pending")

    def __init__(self, *, followed: bool = False) -> None:
        # Made when it is first looked at: it is 270 KB, and a run has some fifty.
        self._hdr: Any = None
        self._pending: dict[int, int] = {}
        self._fresh: dict[int, int] | None = {} if followed else None

    def record(self, ns: int) -> None:
        """
        Count one duration.

        It is counted in a dictionary by the lowest equivalent value and goes to the HDR
        array later: 0.2 µs instead of the 0.6 µs of `HdrHistogram.record_value`, and
        nothing is lost, as all values of a bucket are one value to it.
        """
        shift = ns.bit_length() - _SUB_BUCKET_BITS
        if shift > 0:
            ns = ns >> shift << shift
        pending = self._pending
        pending[ns] = pending.get(ns, 0) + 1

    def record_many(self, ns: int, times: int) -> None:
        """Count one duration, which is less than 2 µs, so many times."""
        if times > 0:
            self._pending[ns] = self._pending.get(ns, 0) + times

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        settled = self._hdr.get_total_count() if self._hdr is not None else 0
        return int(settled) + sum(self._pending.values())

    @property
    def mean_ns(self) -> float:
        """
        The mean of the recorded durations; 0 where there are none.

        As `HdrHistogram.get_mean_value` (each value taken as the middle of its bucket), by
        one pass over the buckets up to the highest: its iterator takes 0.2 s for the same sum.
        """
        middle = self._settled()._hdr_median_equiv_value
        total = sum(count * middle(ns) for ns, count in self.counts())
        return total / self.count if total else 0.0

    @property
    def min_ns(self) -> int:
        """The shortest recorded duration, as the lowest of its bucket; 0 where there are none."""
        hdr = self._settled()  # its own minimum does not survive `add`
        first = next((index for index, count in enumerate(hdr.counts) if count), 0)
        return int(hdr.get_value_from_index(first))

    @property
    def max_ns(self) -> int:
        """The longest recorded duration; 0 where there are none."""
        return int(self._settled().get_max_value())

    def percentiles_ns(self, wanted: Iterable[float] = PERCENTILES) -> dict[float, int]:
        """Return the durations at these percentiles (0 to 100); 0 where there are none."""
        found = self._settled().get_percentile_to_value_dict(list(wanted))
        return {p: int(found.get(p, 0)) for p in wanted}

    def copied(self) -> Histogram:
        """
        Return a copy, made without a change to this one: for who looks from another thread.

        To move what is pending while more is recorded would count it twice or not at all. The copy
        may miss what is recorded meanwhile.
        """
        copy, hdr = Histogram(), self._hdr
        if hdr is not None:
            copy._hdr = made = _hdr_array()
            ctypes.memmove(made.counts, hdr.counts, ctypes.sizeof(hdr.counts))
            made.total_count = hdr.total_count
            made.min_value, made.max_value = hdr.min_value, hdr.max_value
        copy._pending = dict(self._pending)
        return copy

    def add(self, other: Histogram) -> None:
        """Count everything that the other histogram holds in this one too."""
        # By the arrays where there are any, and where what is added must not count as new.
        if other._hdr is not None or self._fresh is not None:
            self._settled().add(other._settled())
            return
        pending = self._pending
        for ns, count in other._pending.items():
            pending[ns] = pending.get(ns, 0) + count

    def add_encoded(self, encoded: str) -> None:
        """Count everything that the histogram held of which this is the encoding."""
        self._settled().decode_and_add(encoded.encode("ascii"))

    def coarser(self, bits: int) -> Histogram:
        """
        Return the same durations in so many significant bits (of 11), each rounded down.

        It encodes to the less, the fewer they are: 8 are a precision of 0.8 %.
        """
        coarser = Histogram()
        for ns, count in self.counts():
            shift = max(ns.bit_length() - bits, 0)
            lowest = ns >> shift << shift
            coarser._pending[lowest] = coarser._pending.get(lowest, 0) + count
        return coarser

    def counts(self) -> Iterator[tuple[int, int]]:
        """Yield each duration that was recorded, as the lowest of its bucket, and how often."""
        hdr = self._settled()
        highest = hdr._counts_index_for(hdr.get_max_value()) if hdr.total_count else -1
        for index, count in enumerate(hdr.counts[: highest + 1]):
            if count:
                yield int(hdr.get_value_from_index(index)), count

    def drain(self) -> dict[int, int]:
        """
        Return how often each duration, in nanoseconds, was recorded since the last call.

        Each is the lowest of its bucket, and stays recorded. Only for one that is followed.
        """
        self._settled()
        fresh, self._fresh = self._fresh, {}
        assert fresh is not None, "this histogram is not followed"
        return fresh

    def clear(self) -> None:
        """Forget everything, in place: a new one is 270 KB to fill."""
        self._pending.clear()
        if (hdr := self._hdr) is not None:
            ctypes.memset(hdr.counts, 0, ctypes.sizeof(hdr.counts))
            hdr.total_count, hdr.min_value, hdr.max_value = 0, sys.maxsize, 0

    def encode(self) -> str:
        """Return the HDR V2 compressed encoding in base64, as all HdrHistogram ports read it."""
        return str(self._settled().encode(), "ascii")

    @classmethod
    def decode(cls, encoded: str) -> Self:
        """
        Return the histogram that `encode` wrote.

        Raises `ValueError` for anything else.
        """
        histogram = cls()
        try:
            histogram._settled().decode_and_add(encoded.encode("ascii"))
        except Exception as error:  # hdrh raises its own, zlib's, binascii's and bare IndexError
            raise ValueError("not an encoded HDR histogram") from error
        return histogram

    def summary_ms(self) -> dict[str, float]:
        """Return mean, p50, p90, p95, p99, p99_9 and max in milliseconds."""
        figures = {"mean": self.mean_ns}
        for percentile, ns in self.percentiles_ns().items():
            figures["p" + f"{percentile:g}".replace(".", "_")] = ns
        figures["max"] = self.max_ns
        return {name: round(ns / 1e6, 6) for name, ns in figures.items()}

    def _settled(self) -> Any:
        """Move what is pending to the HDR array and return that."""
        hdr = self._hdr
        if hdr is None:
            hdr = self._hdr = _hdr_array()
        for ns, count in self._pending.items():
            hdr.record_value(min(ns, HIGHEST_NS), count)
        if self._fresh is not None:
            for ns, count in self._pending.items():
                self._fresh[ns] = self._fresh.get(ns, 0) + count
        self._pending.clear()
        return hdr


def _hdr_array() -> Any:
    hdr = HdrHistogram(1, HIGHEST_NS, 3)
    # It and its encoder hold each other: 270 KB that only a garbage collection would free,
    # which a run may never need otherwise.
    hdr.encoder.histogram = weakref.proxy(hdr)
    return hdr


def sum_of(*histograms: Histogram) -> Histogram:
    """Return one histogram that holds all."""
    total = Histogram()
    for histogram in histograms:
        total.add(histogram)
    return total
