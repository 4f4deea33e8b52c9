"""A connection that cannot be held for nothing: not by silence, not by never reading."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# For the first request of a connection to come whole, and for a reader to read anything.
FIRST_REQUEST = 10.0
STALLED = 30.0


class GuardedProtocol(H11Protocol):
    """uvicorn's own, which cuts off who sends no request or reads no answer."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for a request, for so long."""
        super().connection_made(transport)
        self._abort_in(FIRST_REQUEST)

    def handle_events(self) -> None:
        """See whether a request has come."""
        super().handle_events()
        if self.cycle is not None:
            self._forget()

    def pause_writing(self) -> None:
        """Note that a reader is behind by a buffer."""
        super().pause_writing()
        self._abort_in(STALLED)

    def resume_writing(self) -> None:
        """Note that it reads."""
        super().resume_writing()
        self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything."""
        self._forget()
        super().connection_lost(exc)

    def _abort_in(self, seconds: float) -> None:
        self._forget()
        self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
