"""What an operation may know of itself, and what one run has given out to its operations."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

_MASK = (1 << 64) - 1


def hash64(seed: int, index: int) -> int:
    """
    Return 64 well-mixed bits for one operation.

    The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
    number generators", 2014): a counter goes in, so every index is reached at once.
    """
    z = (seed + index * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class Claims:
    """
    Which numbers this run, or this part of it, has given out: of each source each number once.

    Part k of n gives out k, k + n, k + 2n, ...: no two parts give out the same.
    """

    def __init__(self, part: int = 0, parts: int = 1) -> None:
        self._part = part
        self._parts = parts
        self._given: dict[object, dict[int, int]] = {}
        self._lock = threading.Lock()  # an operation may be a thread's

    def number_for(self, source: object, index: int) -> int:
        """Return the number that is this operation's alone, the same whenever it asks."""
        with self._lock:
            given = self._given.setdefault(source, {})
            return given.setdefault(index, self._part + self._parts * len(given))


class OperationContext:
    """
    What an operation may know of itself.

    `index`: its number in the stream (negative during the warm-up).
    `shared`: what the workload's set-up returned.
    """

    __slots__ = ("_checks", "_rng", "claims", "index", "seed", "shared")

    def __init__(
        self,
        index: int,
        seed: int,
        shared: Any,
        checks: Callable[[str, bool], None] | None = None,
        claims: Claims | None = None,
    ) -> None:
        self.index = index
        self.shared = shared
        self.seed = seed
        self.claims = claims or Claims()
        self._checks = checks
        self._rng: random.Random | None = None

    @property
    def rng(self) -> random.Random:
        """A generator seeded by (seed, index); made when first used, as seeding costs 4 µs."""
        if self._rng is None:
            # Another stream than the one that chose the operation: equal bits would
            # correlate what is done with how.
            self._rng = random.Random(hash64(~self.seed, self.index))  # noqa: S311  load, not secrets
        return self._rng

    def check(self, name: str, condition: object) -> bool:
        """
        Count whether a condition holds, by name; return it.

        A check that fails fails no operation; the thresholds `checks:rate` and `checks:count`
        are there for it.
        """
        passed = bool(condition)
        if self._checks is not None:
            self._checks(name, passed)
        return passed
