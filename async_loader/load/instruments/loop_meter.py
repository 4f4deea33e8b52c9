"""How long what an operation waited for had been there before the event loop came to it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from time import perf_counter_ns
from typing import Any, Protocol

# Between the beginning of a round and its first operation: more than this, and the loop may have
# slept. It has, if that is most of what an operation waited.
_IDLE_NS = 50_000
# How far apart the earliest and the latest time of a reply may be for it to be an example.
_CERTAIN_NS = 100_000
_WEIGHT = 0.1


class Shares:
    """
    How much of what an operation ran was SQLAlchemy's and the driver's, by samples.

    Outside of SQLAlchemy's awaited calls none of it is, and within them all, until as many
    samples say otherwise.
    """

    __slots__ = ("_orm", "_seen")

    _TRUST = 20

    def __init__(self) -> None:
        self._seen = [self._TRUST, self._TRUST]
        self._orm = [0, self._TRUST]

    def count(self, *, inside: bool, orm: bool) -> None:
        """Count a sample."""
        self._seen[inside] += 1
        self._orm[inside] += orm

    def of_orm(self, outside_ns: int, inside_ns: int) -> int:
        """Return what is SQLAlchemy's of what ran outside of its awaited calls and within."""
        outside = outside_ns * self._orm[0] // self._seen[0]
        return outside + inside_ns * self._orm[1] // self._seen[1]


class Stepped(Protocol):
    """One call of an operation, whose steps are told."""

    operation: str


class LoopMeter:
    """
    The rounds of one event loop, seen from the operations that it runs.

    A loop asks for replies once a round and then runs what they are for. So a reply to an
    operation that goes on now came after the poll before the last (else it would have gone on
    in the round before) and before the last; or when the loop awoke, if it slept. Within those
    bounds it is taken to have come when such a reply usually comes, which those tell that came
    while the loop slept. All after is the loop's queue, and nobody's work.

    The rounds cost one callback each, and none while the loop sleeps. `current` and `step_ns`
    are for a thread that looks on: whose operation runs now, and since when. It sets
    `blocked_ns`, from when to when the loop was at something else that did not end.
    """

    __slots__ = (
        "_awake",
        "_later",
        "_pending",
        "_rounds",
        "_usual",
        "blocked_ns",
        "current",
        "loop",
        "sampler",
        "shares",
        "step_ns",
        "steps",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # asyncio's own loop calls a reader in one round, and what that wakes in the next.
        self._later = 0 if type(loop).__module__.startswith("uvloop") else 1
        start = perf_counter_ns()
        # When each of the last rounds began, and when it came to its first operation.
        self._rounds = [(start, start)] * 4
        self._pending = False
        self._awake = 0
        self._usual: dict[str, dict[str | None, float]] = defaultdict(dict)
        self.current: Stepped | None = None
        self.step_ns = 0
        self.steps = 0
        self.blocked_ns = (0, 0)
        self.shares: dict[str, Shares] = defaultdict(Shares)
        self.sampler: Any = None

    def stepped(self, operation: Stepped, at_ns: int) -> None:
        """Note that an operation goes on."""
        self.current = operation
        self.step_ns = at_ns
        self.steps += 1
        if not self._awake:
            self._awake = at_ns

    def left(self) -> None:
        """Note that the operation waits, or has ended."""
        self.current = None
        if not self._pending:
            self._pending = True
            self.loop.call_soon(self._next_round)

    def _next_round(self) -> None:
        began, _ = self._rounds[0]
        self._rounds = [(perf_counter_ns(), 0), (began, self._awake or began), *self._rounds[1:3]]
        self._awake = 0
        self._pending = False

    def came(  # noqa: PLR0917  by position: four times an operation, and names cost
        self,
        operation: Stepped,
        wait: str | None,
        since_ns: int,
        now_ns: int,
        steps: int,
        probably_ns: int | None = None,
    ) -> int:
        """
        Note that an operation goes on, and return when what it waited for since then had come.

        `wait`: for what. `steps`: the count of them when the wait began; `probably_ns`: what is
        known of it, in place of what is usual.
        """
        self.stepped(operation, now_ns)
        if self.steps == steps + 1 and self.blocked_ns[1] <= since_ns:
            earliest = latest = now_ns  # nobody else went on meanwhile
        else:
            earliest, latest = self._bounds(since_ns, now_ns)
        if probably_ns is not None:
            return min(max(probably_ns, earliest), latest)
        usual = self._usual[operation.operation]
        waited = usual.get(wait)
        if latest - earliest <= _CERTAIN_NS:
            ns = latest - since_ns
            usual[wait] = ns if waited is None else waited + _WEIGHT * (ns - waited)
            return latest
        if waited is None:
            return (earliest + latest) // 2
        probably_ns = since_ns + int(waited)
        if probably_ns < earliest:
            return earliest
        return probably_ns if probably_ns < latest else latest

    def _bounds(self, since_ns: int, now_ns: int) -> tuple[int, int]:
        rounds, awake = self._rounds, self._awake
        began = rounds[0][0]
        latest = rounds[self._later][0]
        earliest = rounds[1 + self._later][1]
        if (idle := awake - began) > _IDLE_NS:
            blocked_from, blocked_until = self.blocked_ns
            latest = awake
            if blocked_until > max(began, since_ns):  # it did not sleep, but was at something else
                earliest = blocked_from
            elif 2 * idle > awake - since_ns:
                earliest = latest
        # By hand: calls of `min` and `max` would be half of what this costs.
        if earliest < since_ns:  # noqa: PLR1730
            earliest = since_ns
        if earliest > now_ns:  # noqa: PLR1730
            earliest = now_ns
        if latest < earliest:  # noqa: PLR1730
            latest = earliest
        return earliest, latest if latest < now_ns else now_ns
