"""What is being waited for at this moment, by one task or thread of an operation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from time import perf_counter_ns

from .times import OperationTimes, Wait


class Window:
    """
    A call that waits for one thing, from its beginning to its end.

    Where it awaits, who drives the task counts the wait; where it blocks, the call does.
    """

    __slots__ = ("blocks", "since_ns", "wait")

    def __init__(self, wait: Wait, *, blocks: bool) -> None:
        self.wait = wait
        self.blocks = blocks
        self.since_ns = perf_counter_ns() if blocks else 0


# A context variable: of two tasks of an operation one may wait for the pool, one for the database.
window: ContextVar[Window | None] = ContextVar("window", default=None)


_AWAITED: dict[Wait, Window] = {
    wait: Window(wait, blocks=False) for wait in ("pool", "connect", "ping", "database")
}


def awaited(wait: Wait) -> Token[Window | None]:
    """Have a task wait for this, until the window is reset."""
    return window.set(_AWAITED[wait])


@contextmanager
def waiting(times: OperationTimes, wait: Wait, *, blocks: bool) -> Iterator[None]:
    """Have an operation wait for this, within the block; what surrounds it goes on after."""
    outer = window.get()
    inner = Window(wait, blocks=blocks)
    if blocks:
        if outer is None:
            times.lap(inner.since_ns)
        else:
            times.waited(outer.wait, outer.since_ns, inner.since_ns)
    token = window.set(inner)
    try:
        yield
    finally:
        window.reset(token)
        if blocks:
            now = perf_counter_ns()
            times.waited(wait, inner.since_ns, now)
            if outer is None:
                times.resumed(now)
            else:
                outer.since_ns = now
