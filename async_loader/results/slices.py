"""
A run cut into slices of time: each operation's counts and latencies in each of them.

Latencies are kept in buckets of 7 significant bits, at most 1.6 % wide: an hour's run is
some hundred kilobytes. The whole run's own histogram, which is finer, has the percentiles to
report; these are for what changes over time, and for how sure a figure is.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import Annotated, Self

from msgspec import Meta

from .annotations import Count
from .notes import Stored
from .part import Part

_BITS = 7
_HALF = 1 << (_BITS - 1)

# Counts by the number of their bucket.
Buckets = dict[int, int]


def bucket_of(ns: int) -> int:
    """Return the number of the bucket that a duration in nanoseconds falls into."""
    shift = ns.bit_length() - _BITS
    return ns if shift <= 0 else shift * _HALF + (ns >> shift)


def bounds_of(bucket: int) -> tuple[int, int]:
    """Return the nanoseconds at which a bucket begins and the next one does."""
    shift = max(bucket // _HALF - 1, 0)
    mantissa = bucket - shift * _HALF
    return mantissa << shift, (mantissa + 1) << shift


def percentile_ns(buckets: Mapping[int, int], percentile: float) -> float:
    """Return the duration at a percentile (0 to 100), interpolated in its bucket; 0 for none."""
    rank = sum(buckets.values()) * percentile / 100
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= rank:
            low, high = bounds_of(bucket)
            return high - (high - low) * (seen - rank) / buckets[bucket]
    return 0.0


def mean_ns(buckets: Mapping[int, int]) -> float:
    """Return the mean duration, each taken as the middle of its bucket; 0 where there is none."""
    total = sum(count * sum(bounds_of(bucket)) / 2 for bucket, count in buckets.items())
    return total / sum(buckets.values()) if total else 0.0


def sum_of_buckets(many: Iterable[Mapping[int, int]]) -> Buckets:
    """Return all counts together."""
    total: Buckets = {}
    for buckets in many:
        for bucket, count in buckets.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


@dataclass(frozen=True, slots=True)
class Slice:
    """
    One operation in one slice of time.

    `count` ended well in it; `failed` did not (indeterminate ones too). `packed` has the
    latencies of the former; a run has thousands of these, so it is bytes until it is asked.
    """

    count: int = 0
    failed: int = 0
    packed: bytes = b"\0"

    @classmethod
    def of(cls, buckets: Mapping[int, int], failed: int) -> Self:
        """Return the slice of these latencies."""
        return cls(sum(buckets.values()), failed, _pack(buckets))

    def buckets(self) -> Buckets:
        """Return the latencies."""
        return _unpack(iter(self.packed))

    def merged(self, other: Slice) -> Slice:
        """Return the two together."""
        if NOTHING in (self, other):
            return other if self == NOTHING else self
        return Slice.of(
            sum_of_buckets((self.buckets(), other.buckets())), self.failed + other.failed
        )


NOTHING = Slice()


@dataclass(frozen=True, slots=True)
class PackedSlices(Part):
    """
    One operation's slices, as the JSON has them.

    `buckets` are, slice after slice, variable-length integers (7 bits a byte, low first):
    how many buckets are filled, then for each the distance from the one before and the
    count; compressed by zlib, in base64.
    """

    count: Annotated[tuple[Count, ...], Meta(description="ended well, in each slice")]
    failed: Annotated[tuple[Count, ...], Meta(description="did not, in each slice")]
    buckets: Annotated[str, Meta(description="latencies; zlib, base64")]

    @classmethod
    def of(cls, slices: Iterable[Slice]) -> Self:
        """Return the slices packed."""
        slices = tuple(slices)
        packed = zlib.compress(b"".join(s.packed for s in slices), 9)
        return cls(
            tuple(s.count for s in slices),
            tuple(s.failed for s in slices),
            b64encode(packed).decode("ascii"),
        )

    def unpacked(self) -> tuple[Slice, ...]:
        """Return the slices; raises `ValueError` for damaged buckets."""
        try:
            stream = iter(zlib.decompress(b64decode(self.buckets, validate=True)))
            return tuple(Slice.of(_unpack(stream), failed) for failed in self.failed)
        except (zlib.error, ValueError, StopIteration) as error:  # binascii's is a ValueError
            raise ValueError("not the buckets of slices") from error


@dataclass(frozen=True, slots=True)
class Slices(Part):
    """
    The run in slices of time, each operation's in lists of one length.

    What happened is in the slice in which it ended. The last slice is shorter than the
    others when the run ended within it.
    """

    width: Annotated[float, Meta(gt=0, description="seconds")]
    by_operation: Mapping[
        str,
        Annotated[tuple[Slice, ...], Stored(PackedSlices, PackedSlices.of, PackedSlices.unpacked)],
    ]

    @property
    def length(self) -> int:
        """How many slices the run has."""
        return max(map(len, self.by_operation.values()), default=0)

    def halved(self) -> Slices:
        """Return half as many slices, each of two neighbours."""
        return Slices(
            2 * self.width, {name: pairs(slices) for name, slices in self.by_operation.items()}
        )

    def running(self, operation: str | None = None) -> list[float]:
        """
        Return how many operations ended well, each counted in the slices in which it ran.

        One that ran in two slices counts as a part in each. By when they end, operations
        that go in step come in waves: a slice has all of them or none.
        """
        names = self.by_operation if operation is None else (operation,)
        parts = [0.0] * self.length
        rises = [0.0] * (self.length + 1)  # of what counts in all slices from here on
        for name in names:
            for number, one in enumerate(self.by_operation[name]):
                end = number + 0.5
                for bucket, count in one.buckets().items():
                    lasted = sum(bounds_of(bucket)) / 2e9 / self.width
                    _spread(count, max(end - lasted, 0.0), end, parts, rises)
        return [part + level for part, level in zip(parts, accumulate(rises), strict=False)]

    def merged(self, other: Slices) -> Slices:
        """Return the two together, slice by slice, the narrower ones widened first."""
        mine, theirs = self, other
        while mine.width < theirs.width:
            mine = mine.halved()
        while theirs.width < mine.width:
            theirs = theirs.halved()
        if mine.width != theirs.width:
            raise ValueError(f"slices of {self.width:g} s and {other.width:g} s do not merge")
        names = dict.fromkeys([*mine.by_operation, *theirs.by_operation])
        length = max(mine.length, theirs.length)
        return Slices(
            mine.width,
            {
                name: tuple(
                    a.merged(b)
                    for a, b in zip_longest(
                        mine.by_operation.get(name, (NOTHING,) * length),
                        theirs.by_operation.get(name, (NOTHING,) * length),
                        fillvalue=NOTHING,
                    )
                )
                for name in names
            },
        )


def pairs(slices: Iterable[Slice]) -> tuple[Slice, ...]:
    """Return each two neighbours as one."""
    each = iter(slices)
    return tuple(a.merged(b) for a, b in zip_longest(each, each, fillvalue=NOTHING))


def _spread(count: int, begin: float, end: float, parts: list[float], rises: list[float]) -> None:
    """Spread a count over the slices from one place to another: over whole ones by `rises`."""
    first, last = int(begin), int(end)
    if first == last:
        parts[first] += count
        return
    density = count / (end - begin)
    parts[first] += density * (first + 1 - begin)
    parts[last] += density * (end - last)
    rises[first + 1] += density
    rises[last] -= density


def _pack(buckets: Mapping[int, int]) -> bytes:
    packed = bytearray()
    _append(packed, len(buckets))
    before = 0
    for bucket in sorted(buckets):
        _append(packed, bucket - before)
        _append(packed, buckets[bucket])
        before = bucket
    return bytes(packed)


def _unpack(stream: Iterator[int]) -> Buckets:
    buckets: Buckets = {}
    bucket = 0
    for _ in range(_next(stream)):
        bucket += _next(stream)
        buckets[bucket] = _next(stream)
    return buckets


def _append(packed: bytearray, number: int) -> None:
    while number > 127:
        packed.append(number & 127 | 128)
        number >>= 7
    packed.append(number)


def _next(stream: Iterator[int]) -> int:
    number = shift = 0
    while (byte := next(stream)) > 127:
        number |= (byte & 127) << shift
        shift += 7
    return number | byte << shift
