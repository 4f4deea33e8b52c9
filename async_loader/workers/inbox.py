"""What has come for a call: kept until it listens, then delivered as it comes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .contract import Arrived

Heard = Callable[[Arrived | None], object]


class Inbox:
    """Messages from above, for one call at a time; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: Heard | None = None
        self._early: list[Arrived | None] = []

    def listen(self, heard: Heard) -> None:
        """See `Link.listen`."""
        with self._lock:
            self._heard = heard
            for message in self._early:
                heard(message)
            self._early.clear()

    def hang_up(self) -> None:
        """Listen no more: the call is over."""
        with self._lock:
            self._heard = None
            self._early.clear()

    def deliver(self, message: Arrived | None) -> bool:
        """Hand a message on, or keep it until somebody listens; return whether somebody did."""
        with self._lock:
            if self._heard is None:
                self._early.append(message)
                return False
            self._heard(message)
            return True
