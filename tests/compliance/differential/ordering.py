"""
Sets that come out alike in both runs of an example.

SQLAlchemy keeps the objects of a flush, and the actions of one with cycles, in sets, which iterate
by where their members lie in memory: two stock runs may write in another order, and fail in
another row. Here they iterate by numbers, which are others in each example.
"""

from __future__ import annotations

from itertools import count
from typing import Any
from zlib import crc32

from sqlalchemy.orm import unitofwork
from sqlalchemy.orm.state import InstanceState

_BITS = (1 << 64) - 1


class _Numbers:
    """Numbers of the states of one run, in an order that the example's own number makes."""

    def __init__(self) -> None:
        self.start(1)

    def start(self, example: int) -> None:
        self._factor = example * 0x9E3779B97F4A7C15 | 1
        self._counter = count(1)
        self._keys: dict[Any, int] = {}

    def next(self) -> int:
        return self._spread(next(self._counter))

    def _spread(self, number: int) -> int:
        # A set goes by the lowest bits, and of a product the highest are those that mix.
        return (number * self._factor & _BITS) >> 32

    def of(self, action: Any) -> int:
        """Return one of what an action does, to what."""
        key = (type(action).__name__, action.sort_key)
        number = self._keys.get(key)
        if number is None:
            number = self._keys[key] = self._spread(crc32(repr(key).encode()))
        return number ^ hash(getattr(action, "state", None) or 0)


_numbers = _Numbers()


def start_run(example: int) -> None:
    """Begin with the numbers of an example."""
    _numbers.start(example)


def install() -> None:
    """Have states and actions hashed by numbers, until the process ends."""
    if "__hash__" in vars(InstanceState):
        return
    state: Any = InstanceState
    original = state.__init__

    def initialize(self: Any, *arguments: Any) -> None:
        self._turn = _numbers.next()
        original(self, *arguments)

    state.__init__ = initialize
    state.__hash__ = lambda self: self._turn
    actions: Any = unitofwork
    name = "_PostSortRec" if hasattr(actions, "_PostSortRec") else "PostSortRec"  # 2.1, 2.0
    getattr(actions, name).__hash__ = _hash_of_action


def _hash_of_action(action: Any) -> int:
    return _numbers.of(action)
