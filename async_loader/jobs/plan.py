"""How a run is cut into partitions: ranges of keys, fixed at the start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select

from .keyset import Keyset, encode

Read = Callable[[Select[Any]], Awaitable[Any]]
"""Run a select in a short transaction of its own and return its first row, or None."""

# The longest stride: one query that counts so many keys is still a short transaction.
_LONGEST = 50_000


@dataclass(frozen=True, slots=True)
class Plan:
    """The inclusive upper end of each partition in ascending order, and the rows in all."""

    uppers: tuple[str | None, ...]  # None: no keys at all, a job of one transaction
    total: int


async def plan(read: Read, keyset: Keyset, *, chunk: int, partitions: int) -> Plan:
    """
    Walk over the keys in strides and return at most `partitions` ranges of like size.

    No query looks at more than a stride, so that no transaction is long; every row is
    counted. When there are too many ends every second one goes, and the distance doubles.
    """
    last = await read(keyset.last())
    if last is None:
        return Plan((), 0)
    end, total = encode(last), 0
    uppers: list[str] = []
    cursor, stride, distance = None, chunk, chunk
    while (found := await read(keyset.nth(stride, cursor, end))) is not None:
        cursor, total = encode(found), total + stride
        if total % distance == 0:
            uppers.append(cursor)
        if len(uppers) > max(partitions - 1, 1):
            uppers, distance = uppers[1::2], 2 * distance
            if distance <= _LONGEST and total % distance == 0:
                stride = distance
    rest = (await read(keyset.count(cursor, end)))[0]
    if not uppers or uppers[-1] != end:
        uppers.append(end)
    if partitions == 1:
        uppers = [end]
    return Plan(tuple(uppers), total + rest)
