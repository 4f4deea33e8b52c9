"""The operations that are under way: since when, and which of them have taken too long."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Callable

from ...concurrency.clock import SECOND_NS
from ...concurrency.tasks import CLOSING
from ...failures.classification import CANCELLED, TIMEOUT, Failure
from ...failures.tracebacks import Sample
from ..instruments import PoolWatch, break_off
from ..metrics.metrics import Metrics

BLOCKED = Failure("blocked the event loop", reply_lost=True)
ABANDONED = Failure("abandoned", reply_lost=True)
LET_GO = CLOSING + 1.0
"""
Seconds after its cancellation from which nobody waits for an operation any more.

With the look at what is overdue, the end of the loop and the report it is less than 5 s.
"""


class Flight:
    """
    One operation under way.

    `over` is done when nobody waits for it any more, where it is a task; `ended` says so of any.
    `let_go`: it did not end when it was cancelled, and was counted without its end. `metrics`
    are those of its phase. `unawaited`: a coroutine that was dropped in it. `undone`: how what it
    left in the background failed, of which one is counted.
    """

    __slots__ = (
        "cancelled_ns",
        "ended",
        "entered",
        "failure",
        "let_go",
        "metrics",
        "name",
        "over",
        "started_ns",
        "task",
        "unawaited",
        "undone",
    )

    def __init__(
        self,
        name: str,
        metrics: Metrics,
        started_ns: int,
        over: asyncio.Future[None] | None = None,
    ) -> None:
        self.name = name
        self.metrics = metrics
        self.started_ns = started_ns
        self.over = over
        self.ended = False
        self.task: FlightTask
        self.entered = False
        self.cancelled_ns: int | None = None
        self.let_go = False
        self.failure: Failure | None = None
        self.unawaited: str | None = None
        self.undone: tuple[Failure, BaseException | None, Sample | None] | None = None

    def left_undone(
        self, failure: Failure, error: BaseException | None, sample: Sample | None = None
    ) -> None:
        """Count it as failed by what it left in the background, once it has ended well."""
        if self.undone is None and self.failure is None and not self.let_go:
            self.undone = failure, error, sample
            if self.ended:
                self.metrics.undone(self.name, *self.undone)


class FlightTask(asyncio.Task[None]):
    """The task of one operation; cancelled before its first step it is entered all the same."""

    def __init__(self, *args: object, flight: Flight, **kwargs: object) -> None:
        self.of = flight
        self._cancelled_early = False
        flight.task = self
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # handed on as they are

    def cancel(self, msg: object | None = None) -> bool:
        """See `asyncio.Task.cancel`."""
        if not self.of.entered:  # else it would end without having been counted
            self._cancelled_early = True
            return True
        return super().cancel(msg)

    def enter(self) -> None:
        """Begin; raises `CancelledError` where it was cancelled already."""
        self.of.entered = True
        if self._cancelled_early:
            raise CancelledError


class InFlight:
    """
    The operations under way.

    `cancel_overdue`, called now and then, is what a timer for every operation would be. What
    does not end by its cancellation loses its connection, and then its worker.
    """

    def __init__(
        self, op_timeout: float, pool: PoolWatch | None, on_let_go: Callable[[Flight], None]
    ) -> None:
        self._op_timeout_ns = int(op_timeout * SECOND_NS)
        self._pool = pool
        self._on_let_go = on_let_go
        self._loop = asyncio.get_running_loop()
        self._flights: set[Flight] = set()
        self.ending = False
        """Whether all are being cancelled, whatever they do."""

    def begin(self, flight: Flight) -> None:
        """Note one that has its task; it is cancelled where it comes while all others are."""
        self._flights.add(flight)
        if self.ending:
            self._cancel(flight, flight.started_ns)

    def ended(self, flight: Flight) -> None:
        """Forget an operation, and let go on who waits for it."""
        self._flights.discard(flight)
        flight.ended = True
        if flight.over is not None and not flight.over.done():
            flight.over.set_result(None)

    def why_ended(self, flight: Flight) -> Failure | None:
        """Return why an operation was cancelled by us, however it ended then, if it was."""
        if flight.cancelled_ns is None:
            return None
        return CANCELLED if self.ending else TIMEOUT

    def cancel_overdue(self, now_ns: int) -> None:
        """Cancel what has taken too long, break off what was cancelled in vain, let it go."""
        for flight in tuple(self._flights):
            if flight.cancelled_ns is None:
                if now_ns - flight.started_ns > self._op_timeout_ns:
                    self._cancel(flight, now_ns)
                continue
            waited = (now_ns - flight.cancelled_ns) / SECOND_NS
            if waited > LET_GO:
                self._let_go(flight)
            elif waited > CLOSING:
                break_off(self._pool, (flight,))

    async def end_all(self, now_ns: int) -> None:
        """Cancel all of them and wait for their ends, but not longer than `LET_GO`."""
        self.ending = True
        for flight in self._flights:
            self._cancel(flight, now_ns)
        for seconds in (CLOSING, LET_GO - CLOSING):
            if not self._flights:
                return
            overs = [flight.over for flight in self._flights if flight.over is not None]
            await asyncio.wait(overs, timeout=seconds)
            break_off(self._pool, self._flights)
        for flight in tuple(self._flights):
            self._let_go(flight)

    def count_cut_off(self, where: str | None) -> None:
        """Count all of them as cut off; the one at work as what holds up the loop at a line."""
        task = asyncio.current_task(self._loop) if where is not None else None
        at_work = getattr(task, "of", None)
        for flight in tuple(self._flights):
            if flight is at_work:
                told = f"it never gave the event loop back: it stays at {where}"
                flight.metrics.failed(flight.name, BLOCKED, None, sample=Sample(told, where))
            else:
                flight.metrics.failed(flight.name, CANCELLED, None)

    def _cancel(self, flight: Flight, now_ns: int) -> None:
        if flight.cancelled_ns is None:
            flight.cancelled_ns = now_ns
        flight.task.cancel()

    def _let_go(self, flight: Flight) -> None:
        flight.let_go = True
        self._on_let_go(flight)
        self.ended(flight)
