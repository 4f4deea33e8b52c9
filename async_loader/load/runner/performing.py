"""Performing one operation, in a task and a context of its own, and counting how it ended."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from ...concurrency.clock import Clock
from ...concurrency.stop import Stop
from ...concurrency.tasks import frames_of, holder
from ...failures.classification import Failure
from ...failures.source_lines import user_line
from ...failures.tracebacks import Sample
from ..effects import Effects, current_effects
from ..feeds import FeedEnded
from ..instruments import Instruments
from ..metrics.metrics import Metrics
from ..workload import Operation
from .in_flight import ABANDONED, Flight, FlightTask, InFlight
from .work_done import check_work, effects_so_far, failure_of

Call = Callable[[int], Coroutine[Any, Any, Any]]


class Performer:
    """
    Performs operations, each from the opening of its session to its close, and counts them.

    Whatever an operation raises is counted; only `KeyboardInterrupt` asks for the run's end.
    """

    def __init__(
        self,
        calls: Mapping[str, Call],
        *,
        instruments: Instruments,
        op_timeout: float,
        stop: Stop,
        clock: Clock,
        on_ended: Callable[[str], None],
    ) -> None:
        self._calls = calls
        self._on_ended = on_ended
        self._instruments = instruments
        self._stop = stop
        self._now = clock.now_ns
        self._loop = asyncio.get_running_loop()
        # As it was when the run began: nothing of one operation reaches the next.
        self._context = contextvars.copy_context()
        self.in_flight = InFlight(op_timeout, instruments.pool, _count_let_go)

    async def perform(
        self, operation: Operation, index: int, metrics: Metrics, due_ns: int | None
    ) -> Failure | None:
        """Perform an operation, and return how it failed; its latency counts from when due."""
        started = self._now()
        if due_ns is not None:
            metrics.arrived(started - due_ns)
        if not operation.isolated:
            await self._calls[operation.name](index)
            metrics.succeeded(operation.name, started, self._now(), None, due_ns)
            return None
        over = self._loop.create_future()
        flight = Flight(operation.name, metrics, started, over)
        work = self._operate(flight, operation, index, due_ns)
        FlightTask(work, loop=self._loop, context=self._context.copy(), flight=flight)
        # Only now: a signal's handler may raise between any two of these lines.
        self.in_flight.begin(flight)
        await over
        return flight.failure

    async def _operate(
        self, flight: Flight, operation: Operation, index: int, due_ns: int | None
    ) -> None:
        holder.set(flight)
        current_effects.set(Effects())
        queued_ns = self._now() - flight.started_ns  # until the loop came to its task
        times = self._instruments.times(operation.name, queued_ns)
        metrics, name = flight.metrics, operation.name
        try:
            flight.task.enter()
            value = [await self._instruments.drive(self._calls[name](index), times)]
            ended = self._now()
            self._instruments.settle(times)
            if operation.kind is None and effects_so_far().wrote:
                metrics.wrote(name)
            check_work(operation, value, effects_so_far())
        except BaseException as error:
            self._raised(flight, operation, error)
        else:
            if not flight.let_go:
                metrics.succeeded(name, flight.started_ns, ended, times, due_ns)
                if flight.undone is not None:
                    metrics.undone(name, *flight.undone)
        finally:
            if not flight.let_go:  # else the garbage collector may end it, in anybody's context
                effects_so_far().end(rolls_back=operation.rolls_back)
            self.in_flight.ended(flight)

    def _raised(self, flight: Flight, operation: Operation, error: BaseException) -> None:
        """Count an operation that failed; what found no work to do is none."""
        effects, metrics, name = effects_so_far(), flight.metrics, flight.name
        if isinstance(error, KeyboardInterrupt):
            self._stop.request("a KeyboardInterrupt")
        if isinstance(error, FeedEnded) and not effects.committed:
            self._on_ended(str(error))
            return
        flight.failure = self._failure_of(flight, error)
        if not flight.let_go:
            metrics.failed(name, flight.failure, error, after_commit=effects.committed)
            if operation.kind is None and effects.wrote:
                metrics.wrote(name)

    def _failure_of(self, flight: Flight, error: BaseException) -> Failure:
        if (ours := self.in_flight.why_ended(flight)) is not None:
            return ours
        return failure_of(error)


def _count_let_go(flight: Flight) -> None:
    """Count an operation that does not end, by the line at which it stays."""
    where = user_line(frames_of(flight.task))
    told = f"did not end when it was cancelled: {where or 'nobody knows where it is'}"
    flight.failure = ABANDONED
    flight.metrics.failed(flight.name, flight.failure, None, sample=Sample(told, where))
