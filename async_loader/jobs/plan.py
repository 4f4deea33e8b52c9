"""How a run is cut into partitions: ranges of keys, fixed at the start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select

from .keyset import Keyset, encode

Read = Callable[[Select[Any]], Awaitable[list[Any]]]
"""Run a select in a short transaction of its own and return its rows."""

# The longest stride: one query that counts so many keys is still a short transaction.
_LONGEST = 10_000


@dataclass(frozen=True, slots=True)
class Plan:
    """The inclusive upper end of each partition in ascending order, and the rows in all."""

    uppers: tuple[str | None, ...]  # None: no keys at all, a job of one transaction
    total: int


async def plan(read: Read, keyset: Keyset, *, chunk: int, partitions: int) -> Plan:
    """
    Walk over the keys in strides and return at most `partitions` ranges of like size.

    No query looks at more than a few strides, so that no transaction is long; every row is
    counted. When there are too many ends every second one goes, and the distance doubles.
    """
    last = await read(keyset.last())
    if not last:
        return Plan((), 0)
    end, total, cursor = encode(last[0]), 0, None
    uppers: list[str] = []
    stride = distance = chunk
    while True:
        times = max(1, _LONGEST // stride)
        found = await read(keyset.every(stride, times, cursor, end))
        for key in found:
            cursor, total = encode(key), total + stride
            if total % distance == 0:
                uppers.append(cursor)
            if len(uppers) >= 2 * partitions:
                uppers, distance = uppers[1::2], 2 * distance
        if len(found) < times:
            break
        if distance <= _LONGEST and total % distance == 0:
            stride = distance
    rest = (await read(keyset.count(cursor, end)))[0][0]
    inner = _evenly(uppers if not uppers or uppers[-1] != end else uppers[:-1], partitions)
    return Plan((*inner, end), total + rest)


def _evenly(uppers: list[str], partitions: int) -> list[str]:
    """Return as many ends as part a range into `partitions`, as evenly as these can."""
    if len(uppers) < partitions:
        return uppers
    return [uppers[n * (len(uppers) + 1) // partitions - 1] for n in range(1, partitions)]
