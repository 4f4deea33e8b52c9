"""Where a chunk can be cut off by a test; see `async_loader.testing.interrupt_after`."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Literal


class Cut(BaseException):
    """Stands for a kill: nothing of ours or of a user's is to see it, or say what became of it."""


Place = Literal["before commit", "after commit"]

WATCHER: ContextVar[Callable[[Place], None] | None] = ContextVar("watcher", default=None)


def reached(place: Place) -> None:
    """Tell the watcher, if there is one, that a chunk has come so far."""
    watcher = WATCHER.get()
    if watcher is not None:
        watcher(place)
