"""The operations that are under way in threads, where nothing can be cancelled."""

from __future__ import annotations

import sys
import threading
import traceback

from ...concurrency.clock import SECOND_NS
from ...concurrency.tasks import CLOSING
from ...failures.classification import CANCELLED, TIMEOUT, Failure
from ...failures.source_lines import line_of, user_line
from ...failures.tracebacks import Sample
from ..instruments import PoolWatch, break_off
from ..metrics.metrics import Metrics
from .in_flight import ABANDONED, LET_GO, Flight


class ThreadFlight(Flight):
    """One operation under way in a thread of its crew's: the one that makes this."""

    __slots__ = ("thread",)

    def __init__(self, name: str, metrics: Metrics, started_ns: int) -> None:
        super().__init__(name, metrics, started_ns)
        self.thread = threading.get_ident()

    @property
    def where(self) -> str | None:
        """At which line of the user's it is now."""
        frame = sys._current_frames().get(self.thread)
        return user_line(line_of(f) for f, _ in traceback.walk_stack(frame)) if frame else None


class ThreadFlights:
    """
    The operations under way, of which the overdue ones lose their connections, and then us.

    A statement's own timeout comes first, as the server has the same; what is broken off fails by
    that, if it waits for its database. What does not end by it is let go, with its thread.
    """

    def __init__(self, op_timeout: float, pool: PoolWatch | None) -> None:
        self._op_timeout_ns = int(op_timeout * SECOND_NS)
        self._pool = pool
        self._flights: set[ThreadFlight] = set()
        self.ending_ns: float | None = None
        """From when on none of them is waited for, as the run has to end."""

    def begin(self, flight: ThreadFlight) -> None:
        """Note an operation that starts."""
        self._flights.add(flight)

    def ended(self, flight: ThreadFlight) -> None:
        """Forget an operation."""
        self._flights.discard(flight)

    def why_ended(self, flight: ThreadFlight) -> Failure | None:
        """Return why an operation was broken off by us, however it ended then, if it was."""
        if flight.cancelled_ns is None:
            return None
        return TIMEOUT if self.ending_ns is None else CANCELLED

    def let_go_overdue(self, now_ns: int) -> set[int]:
        """Break off what takes too long, let go of what does not end; return those threads."""
        let_go = set()
        for flight in tuple(self._flights):
            until_ns = flight.started_ns + self._op_timeout_ns + CLOSING * SECOND_NS
            if self.ending_ns is not None:
                until_ns = min(until_ns, self.ending_ns)
            if now_ns < until_ns:
                continue
            if flight.cancelled_ns is None:
                flight.cancelled_ns = now_ns
                break_off(self._pool, (flight,))
            elif now_ns > flight.cancelled_ns + (LET_GO - CLOSING) * SECOND_NS:
                self._let_go(flight)
                let_go.add(flight.thread)
        return let_go

    def count_cut_off(self) -> None:
        """Count all of them as cut off: the process ends with them."""
        for flight in tuple(self._flights):
            flight.metrics.failed(flight.name, CANCELLED, None)
            flight.let_go = True

    def _let_go(self, flight: ThreadFlight) -> None:
        where = flight.where
        flight.let_go = True
        flight.failure = ABANDONED
        told = f"did not end, and a thread cannot be cancelled: it stays at {where or 'an end'}"
        flight.metrics.failed(flight.name, ABANDONED, None, sample=Sample(told, where))
        self.ended(flight)
