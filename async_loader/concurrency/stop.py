"""The way to end a run early, for whoever asks."""

from __future__ import annotations

import asyncio


class Stop:
    """
    The way to end a run early: the first `request` lets no more operations in, the second
    does not wait for those in flight either.
    """

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.at_once = asyncio.Event()
        self.heeded = False
        """Whether a run has begun to listen."""
        self.by: str | None = None
        """Who asked first, for people: a signal's name."""

    def request(self, by: str | None = None) -> None:
        """Ask for the end; call it on the event loop's thread."""
        self.by = self.by or by
        (self.at_once if self.requested.is_set() else self.requested).set()
