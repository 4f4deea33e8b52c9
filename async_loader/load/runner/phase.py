"""The warm-up or the run itself: operations let in by a throttle, watched and counted."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from ...concurrency.clock import SECOND_NS, Clock
from ...concurrency.stop import Stop
from ...concurrency.tasks import cancel, first_of
from ...database.session_factories import Sessions
from ...failures.classification import Backoff, Failure
from ...results.histogram import Histogram
from ...results.run import Outcome, RunResult
from ...verdict.thresholds import broken_so_far
from ..instruments import Instruments, current_times
from ..metrics.metrics import Metrics
from ..metrics.process_meter import ProcessMeter, watch_loop
from ..metrics.snapshot import Snapshot
from ..metrics.tallies import PoolGauge
from ..pacing.limits import Limit
from ..specs.run import RunSpec
from ..workload import Mix, Operation
from .background import Background, background_counted, end_background
from .calls import call_of, retrying, sessions_by_kind
from .kept import KeptCoroutines
from .performing import Performer

OnProgress = Callable[[Snapshot], None]
OnLook = Callable[[RunResult, PoolGauge | None], None]

# An operation that never waits would keep every timer of the loop waiting.
_YIELD_EVERY = 128
_PROGRESS_EVERY = 0.5
_WATCH_EVERY = 0.25
_JUDGE_EVERY = 1.0
_LOOK_EVERY = 1.0


class Phase:
    """
    What the warm-up and the run share: `perform_all` is one of them from start to end.

    It is the `Work` that its throttle drives.
    """

    def __init__(
        self,
        workload: str,
        mix: Mix,
        spec: RunSpec,
        *,
        shared: Any,
        sessions: Sessions | None,
        read_sessions: Sessions | None,
        instruments: Instruments,
        stop: Stop,
        clock: Clock,
    ) -> None:
        self._mix = mix
        self._workload = workload
        self._planned = spec.load.limit.ops
        self.meter = ProcessMeter()
        self.seed = mix.seed
        self.limit = Limit(ops=0)
        self.numbers: Iterator[int] = count()
        self._until_ns = math.inf
        self._throttle = spec.throttle
        self._pool = instruments.pool
        self._timeouts = spec.timeouts
        self._watch_every = min(spec.timeouts.op_timeout / 4, _WATCH_EVERY)
        self._stop = stop
        self._verdict = spec.verdict
        self.clock = clock
        self._backoff = Backoff()
        self._in_a_row = 0
        self._closed = asyncio.Event()  # no more operations are let in
        self._closed.set()
        self._over = asyncio.Event()  # by ourselves, before the limit
        self.outcome: Outcome = "done"
        self.ended_by: str | None = None  # what said that it has no more work
        by_kind = sessions_by_kind(sessions, read_sessions)
        calls = {
            o.name: retrying(
                call_of(o, mix, by_kind, shared, self._check),
                spec.load.max_tries,
                partial(self._retried, o.name),
            )
            for o in mix.operations
        }
        self._performer = Performer(
            calls,
            instruments=instruments,
            op_timeout=spec.timeouts.op_timeout,
            stop=stop,
            clock=clock,
            on_ended=self._no_more,
        )
        self._in_flight = self._performer.in_flight
        self._metrics = Metrics(mix.operations, clock)
        self._kept = KeptCoroutines(mix.operations)
        self._background: Background

    async def perform_all(
        self,
        limit: Limit,
        numbers: Iterator[int],
        *,
        judged: bool = False,
        on_progress: OnProgress | None = None,
        on_look: OnLook | None = None,
    ) -> tuple[Metrics, float]:
        """
        Perform operations until the limit or the stop; return the counts and the seconds.

        One that is `judged` ends when a threshold is broken, where that is wanted. `on_look` gets
        each second what was counted so far.
        """
        metrics = self._metrics = Metrics(
            self._mix.operations, self.clock, latency_limit=self._verdict.latency_limit
        )
        self.limit, self.numbers = limit, numbers
        duration = math.inf if limit.duration is None else limit.duration
        self._until_ns = metrics.started_ns + duration * SECOND_NS
        if not (self._stop.requested.is_set() or self._over.is_set()):
            self._closed.clear()
            self._in_flight.ending = False
        watchers = [
            asyncio.create_task(
                watch_loop(self.clock, lambda lag: metrics.sample(self._pool, lag))
            ),
            asyncio.create_task(self._watch()),
        ]
        if judged and self._verdict.abort_on_fail is not None:
            judging = self._judge(self._verdict.abort_on_fail)
            watchers.append(asyncio.create_task(judging))
        if on_progress is not None:
            watchers.append(asyncio.create_task(self._report(limit, on_progress)))
        if on_look is not None:
            watchers.append(asyncio.create_task(self._show(on_look)))
        try:
            with background_counted(metrics) as self._background:
                await self._drive()
                seconds = (self.clock.now_ns() - metrics.started_ns) / SECOND_NS
                stopped = self._stop.requested.is_set()
                await end_background(metrics, 0.0 if stopped else self._timeouts.grace)
                self._kept.count(metrics)
        finally:
            await cancel(*watchers)
        if on_progress is not None:
            on_progress(metrics.snapshot(self._pool, limit.ops, limit.duration))
        return metrics, seconds

    def so_far(self, outcome: Outcome | None, where: str | None) -> RunResult:
        """See `UnderWay.result`; `where` is the line at which the event loop stays."""
        metrics = self._metrics
        if outcome is None:
            return replace(self._interim(), mode=self._throttle.mode, workload=self._workload)
        self._in_flight.count_cut_off(where)
        seconds = (self.clock.now_ns() - metrics.started_ns) / SECOND_NS
        return metrics.result(
            outcome=outcome,
            mode=self._throttle.mode,
            workload=self._workload,
            seconds=seconds,
            planned=self._planned,
            pool=self._pool,
            process=self.meter.result(metrics.loop_lag, 1.0 if where else None),
        )

    def _interim(self) -> RunResult:
        """Return the counts so far, in a thread beside the loop's, too."""
        while True:
            try:
                interim = self._metrics.interim(look=Histogram.copied)
                return replace(interim, planned=self._planned)
            except RuntimeError:  # something was counted for the first time meanwhile
                continue

    async def _drive(self) -> None:
        """Let the throttle run to its end, or for `grace` seconds once asked to stop."""
        driver = asyncio.create_task(self._throttle.drive(self))
        try:
            await first_of(driver, self._stop.requested, self._over)
            self._closed.set()
            await first_of(driver, self._stop.at_once, timeout=self._timeouts.grace)
        finally:
            self._closed.set()  # also for a worker whose operation swallows the cancellation
            await self._in_flight.end_all(self.clock.now_ns())
            await cancel(driver)
        if not driver.cancelled():
            driver.result()  # a defect of ours, if any: operations' errors are counted

    def take(self) -> Iterator[int]:
        """Yield the next operation's number when one can start: lazily, by whoever is free."""
        indexes = self.limit.cut(self.numbers, self.clock, self.is_closed)

        def taken() -> Iterator[int]:
            for number, index in enumerate(indexes, 1):
                if number == self.limit.ops:
                    self._closed.set()  # nobody waits for what comes after the last
                yield index
            self._closed.set()

        return taken()

    def is_closed(self) -> bool:
        """Return whether no more operations may start."""
        return self._stop.requested.is_set() or self._closed.is_set()

    def drop(self, index: int) -> None:
        """Count an operation that was due and cannot start."""
        if self.ended_by is None:  # else it was not due any more
            self._metrics.dropped(self._mix.choose(index).name)

    async def perform(self, index: int, due_ns: int | None = None) -> None:
        """Perform one operation from the opening of its session to its close, and count it."""
        operation = self._mix.choose(index)
        failure = await self._performer.perform(operation, index, self._metrics, due_ns)
        if due_ns is None:  # else whoever arrives next does not wait for us
            await self._before_next(operation, index, failure)

    def _no_more(self, what: str) -> None:
        """Let no more operations in: there is no work for them."""
        self.ended_by = what
        self._closed.set()

    async def _before_next(self, operation: Operation, index: int, failure: Failure | None) -> None:
        """Wait as the user of the application would, and as a failing server wants."""
        if operation.think is not None or (failure is not None and failure.pause):
            pause = self._mix.think_time(index)
            if failure is not None:
                pause = max(pause, self._backoff.pause(failure, self.clock.now_ns() / SECOND_NS))
            await self._pause(pause)
            return
        self._in_a_row += 1  # by number would do, but a shard has, say, the odd ones only
        if self._in_a_row >= _YIELD_EVERY:
            self._in_a_row = 0
            await asyncio.sleep(0)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next operation, but not when there will be none."""
        left = (self._until_ns - self.clock.now_ns()) / SECOND_NS
        seconds = min(seconds, left)
        if not self._closed.is_set():
            pausing = asyncio.ensure_future(self.clock.sleep(seconds))
            try:
                await first_of(pausing, self._closed)
            finally:
                await cancel(pausing)
        if seconds == left:  # whatever the clock says: a timer may be a little early
            self._closed.set()

    def _check(self, name: str, passed: bool) -> None:
        self._metrics.checked(name, passed)

    def _retried(self, name: str, first: bool) -> None:
        self._metrics.retried(name, first)
        if (times := current_times.get()) is not None:
            times.tried_again()

    async def _watch(self) -> None:
        """See to what takes too long, and give up in time: one task, for all operations."""
        while True:
            await self.clock.sleep(self._watch_every)
            now = self.clock.now_ns()
            self._in_flight.cancel_overdue(now)
            self._background.look()
            self._consider_giving_up(now)

    def _consider_giving_up(self, now: int) -> None:
        succeeded = self._metrics.last_success_ns
        failing = self._metrics.last_failure_ns > succeeded
        if failing and now - succeeded > self._timeouts.until_aborted * SECOND_NS:
            self._end("aborted")

    def _end(self, outcome: Outcome) -> None:
        if not self._over.is_set():
            self.outcome = outcome
            self._over.set()

    async def _judge(self, delay: float) -> None:
        """End the run when a threshold is broken, from so many seconds on."""
        await self.clock.sleep(delay)
        while not broken_so_far(self._metrics.interim(), self._verdict.thresholds):
            await self.clock.sleep(_JUDGE_EVERY)
        self._end("failed")

    async def _report(self, limit: Limit, on_progress: OnProgress) -> None:
        while True:
            on_progress(self._metrics.snapshot(self._pool, limit.ops, limit.duration))
            await self.clock.sleep(_PROGRESS_EVERY)

    async def _show(self, on_look: OnLook) -> None:
        while True:
            await self.clock.sleep(_LOOK_EVERY)
            on_look(self._metrics.interim(), self._pool)
