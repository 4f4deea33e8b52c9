"""
The ways that async is compared with: the same operations over a plain `Session`, in one
thread or in several.
"""

from __future__ import annotations

import contextvars
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from ...concurrency.clock import SECOND_NS, SYSTEM_CLOCK
from ...concurrency.stop import Stop
from ...errors import ConfigurationError
from ...results.histogram import Histogram
from ...results.run import Outcome, RunResult
from ...runtime.under_way import under_way
from ...verdict.thresholds import broken_so_far
from ..effects import Effects, current_effects, watched
from ..feeds import FeedEnded
from ..instruments import Instruments, attached, current_times, holder
from ..metrics.machine_meter import thread_times
from ..metrics.metrics import Metrics
from ..metrics.process_meter import ProcessMeter, busy_seconds_since
from ..metrics.snapshot import Snapshot
from ..pacing.limits import Limit
from ..specs.run import RunSpec
from ..workload import Mix, Operation, Workload
from .aside import aside_counted, end_aside, settle
from .calls import (
    SyncSessions,
    import_what_is_called,
    sessions_by_kind,
    sync_call_of,
    sync_retrying,
)
from .kept import KeptCoroutines
from .thread_flights import ThreadFlight, ThreadFlights
from .work_done import check_work, effects_so_far, failure_of, unawaited_noted

_SAMPLE_EVERY = 0.05
_PROGRESS_EVERY = 0.5
_JUDGE_EVERY = 1.0


def run_sync(
    workload: Workload,
    spec: RunSpec,
    *,
    sessions: SyncSessions | None,
    read_sessions: SyncSessions | None = None,
    threads: int | None = None,
    shared: Any = None,
    stop: Stop | None = None,
    on_progress: Callable[[Snapshot], None] | None = None,
) -> RunResult:
    """
    Run the sync twins of a workload's operations; blocks until the limit or the stop.

    `threads` None is one thread (mode `sync`), a number that many (mode `threads`). `shared`
    is what the workload's set-up returned: it is a coroutine function, and the caller's to
    run. The throttle of the spec is not asked. An operation cannot be cancelled here: one that
    takes longer than its `op_timeout` loses its connections, and what does not end by that is
    abandoned with its thread, for which another goes on; so is what is under way `grace` seconds
    after a stop. Raises `ConfigurationError` for an operation without a twin.
    """
    mix = workload.mix(seed=spec.sampling.seed, write_ratio=spec.sampling.write_ratio)
    require_twins(workload.name, mix)
    import_what_is_called()
    stop = stop or Stop()
    stop.heeded = True
    with ExitStack() as stack:
        stack.enter_context(watched(raw_drivers=spec.load.max_tries > 1))
        stack.enter_context(unawaited_noted())
        stack.enter_context(aside_counted())
        instruments = attached(
            sessions,
            stack,
            time_split=spec.instruments.time_split,
            n_plus_one=spec.instruments.n_plus_one,
            on_loop=False,
        )
        crew = _ThreadedRunner(
            mix,
            spec,
            sessions=sessions,
            read_sessions=read_sessions or sessions,
            shared=shared,
            instruments=instruments,
            stop=stop,
            threads=threads,
        )
        under_way.enter("running", partial(crew.so_far, workload.name))
        result = _measured(
            crew,
            spec,
            workload=workload.name,
            mode=_mode(threads),
            instruments=instruments,
            on_progress=on_progress,
        )
    by = stop.by or ("a KeyboardInterrupt" if crew.asked else None)
    result = replace(result, stopped_by=by if result.outcome == "interrupted" else None)
    under_way.enter("tear-down", lambda _outcome, _where: result)
    return result


def _measured(
    crew: _ThreadedRunner,
    spec: RunSpec,
    *,
    workload: str,
    mode: str,
    instruments: Instruments,
    on_progress: Callable[[Snapshot], None] | None,
) -> RunResult:
    """Warm up, perform all, and return what was found."""
    load, warm_up = spec.load, None
    if load.warmup is not None:
        warming, seconds, _ = crew.perform_all(load.warmup, count(-1, -1), None)
        warm_up = warming.warm_up(seconds)
    meter = ProcessMeter()
    crew.judged_from = spec.verdict.abort_on_fail
    metrics, seconds, busy = crew.perform_all(load.limit, count(), on_progress)
    result = metrics.result(
        outcome=_outcome(crew, crew.stop),
        mode=mode,
        workload=workload,
        seconds=seconds,
        planned=load.limit.ops,
        pool=instruments.pool,
        process=meter.result(metrics.loop_lag, busy),
    )
    result = replace(result, warm_up=warm_up)
    return result if crew.ended_by is None else result.ended_early(crew.ended_by)


def _mode(threads: int | None) -> str:
    return "sync" if threads is None else "threads"


def _outcome(crew: _ThreadedRunner, stop: Stop) -> Outcome:
    if crew.failed:
        return "failed"
    if crew.aborted:
        return "aborted"
    return "interrupted" if stop.requested.is_set() or crew.asked else "done"


def require_twins(workload: str, mix: Mix) -> None:
    """Raise `ConfigurationError` where an operation has no sync twin."""
    for operation in mix.operations:
        if operation.twin is None:
            raise ConfigurationError(
                f"operation {operation.name!r} of workload {workload!r} has no sync twin, which "
                f"the modes sync and threads need: add one with @{operation.name}.sync"
            )


class _ThreadedRunner:
    """Threads that take operations from one stream, and the counts they share."""

    def __init__(
        self,
        mix: Mix,
        spec: RunSpec,
        *,
        sessions: SyncSessions | None,
        read_sessions: SyncSessions | None,
        shared: Any,
        instruments: Instruments,
        stop: Stop,
        threads: int | None,
    ) -> None:
        self._mix = mix
        by_kind = sessions_by_kind(sessions, read_sessions)
        self._calls = {
            o.name: sync_retrying(
                sync_call_of(o, mix, by_kind, shared, self._check),
                spec.load.max_tries,
                partial(self._retried, o.name),
            )
            for o in mix.operations
        }
        self._threads = threads
        self._verdict = spec.verdict
        self._timeouts = spec.timeouts
        self._planned = spec.load.limit.ops
        self.judged_from: float | None = None
        self.failed = False
        self.aborted = False  # as none succeeds any more
        self.asked = False  # by an operation that raised KeyboardInterrupt
        self.ended_by: str | None = None  # what said that it has no more work
        self._metrics = Metrics(mix.operations, SYSTEM_CLOCK)
        self._instruments = instruments
        self._pool = instruments.pool
        self.stop = stop
        self._kept = KeptCoroutines(mix.operations)
        self._in_flight = ThreadFlights(spec.timeouts.op_timeout, instruments.pool)
        self._meter = ProcessMeter()
        self._busy: list[float] = []
        self._lock = threading.Lock()
        self._left = self._until_ns = math.inf

    def perform_all(
        self,
        limit: Limit,
        numbers: Iterator[int],
        on_progress: Callable[[Snapshot], None] | None,
    ) -> tuple[Metrics, float, float]:
        """Perform until the limit; return counts, seconds, and how busy Python was (0 to 1)."""
        cpu = time.process_time()
        metrics = self._metrics = Metrics(
            self._mix.operations, SYSTEM_CLOCK, latency_limit=self._verdict.latency_limit
        )
        feed = limit.cut(numbers, SYSTEM_CLOCK, self._is_closed)
        self._left = math.inf if limit.ops is None else limit.ops
        duration = math.inf if limit.duration is None else limit.duration
        self._until_ns = metrics.started_ns + duration * SECOND_NS
        self._busy = []
        crew = [self._started(feed) for _ in range(self._threads or 1)]
        self._watch(crew, feed, metrics, limit, on_progress)
        seconds = (SYSTEM_CLOCK.now_ns() - metrics.started_ns) / SECOND_NS
        end_aside(metrics, 0.0 if self._is_closed() else self._timeouts.grace)
        # One thread at a time runs Python: together they are as busy as one can be.
        together = max([time.process_time() - cpu, *self._busy])
        self._kept.count(metrics)
        return metrics, seconds, min(together / (seconds or 1.0), 1.0)

    def _started(self, feed: Iterator[int]) -> threading.Thread:
        thread = threading.Thread(target=self._work, args=(feed,), daemon=True)
        thread.start()
        return thread

    def so_far(self, workload: str, outcome: Outcome | None, _where: str | None) -> RunResult:
        """See `UnderWay.result`."""
        mode, metrics = _mode(self._threads), self._metrics
        with self._lock:
            if outcome is None:
                interim = metrics.interim(look=Histogram.copied)
                return replace(interim, mode=mode, workload=workload, planned=self._planned)
            self._in_flight.count_cut_off()
            return metrics.result(
                outcome=outcome,
                mode=mode,
                workload=workload,
                seconds=(SYSTEM_CLOCK.now_ns() - metrics.started_ns) / SECOND_NS,
                planned=self._planned,
                pool=self._pool,
                process=self._meter.result(metrics.loop_lag),
            )

    def _watch(
        self,
        crew: list[threading.Thread],
        feed: Iterator[int],
        metrics: Metrics,
        limit: Limit,
        on_progress: Callable[[Snapshot], None] | None,
    ) -> None:
        """Sample the pool, show progress and see to what hangs until all have ended."""
        shown = judged = 0.0
        while alive := [thread for thread in crew if thread.is_alive()]:
            with self._lock:
                metrics.sample_pool(self._pool)
                if on_progress is not None and time.monotonic() - shown > _PROGRESS_EVERY:
                    shown = time.monotonic()
                    on_progress(metrics.snapshot(self._pool, limit.ops, limit.duration))
                if time.monotonic() - judged > _JUDGE_EVERY:
                    judged = time.monotonic()
                    self._judge(metrics)
                lost = self._see_to_the_overdue()
                settle(metrics)
            crew = [thread for thread in alive if thread.ident not in lost]
            crew += [self._started(feed) for _ in lost]
            crew[0].join(_SAMPLE_EVERY)
        if on_progress is not None:
            on_progress(metrics.snapshot(self._pool, limit.ops, limit.duration))

    def _see_to_the_overdue(self) -> set[int]:
        """Let go of what hangs; return its threads, for each of which another goes on."""
        now = SYSTEM_CLOCK.now_ns()
        if self._is_closed():
            grace = 0.0 if self.stop.at_once.is_set() else self._timeouts.grace
            until = now + grace * SECOND_NS
            self._in_flight.ending_ns = min(self._in_flight.ending_ns or until, until)
        return self._in_flight.let_go_overdue(now)

    def _judge(self, metrics: Metrics) -> None:
        """Let no more in when none succeeds, or, from a time on, when a threshold is broken."""
        succeeded = metrics.last_success_ns
        failing = metrics.last_failure_ns > succeeded
        silent = SYSTEM_CLOCK.now_ns() - succeeded
        self.aborted = failing and silent > self._timeouts.until_aborted * SECOND_NS
        if self.judged_from is not None:
            interim = metrics.interim()
            late_enough = interim.seconds >= self.judged_from
            self.failed = late_enough and bool(broken_so_far(interim, self._verdict.thresholds))

    def _is_closed(self) -> bool:
        over = self.failed or self.aborted or self.asked or self.ended_by is not None
        return over or self.stop.requested.is_set()

    def _work(self, feed: Iterator[int]) -> None:
        started = thread_times()
        while True:
            with self._lock:  # a generator serves one thread at a time
                index = next(feed, None)
                self._left -= 1
            if index is None or not contextvars.copy_context().run(self._perform, index):
                self._busy.append(busy_seconds_since(started))
                return
            if think := self._mix.think_time(index):
                self._think(think)

    def _think(self, seconds: float) -> None:
        """Wait before the next operation, but not when there will be none."""
        until_ns = min(SYSTEM_CLOCK.now_ns() + seconds * SECOND_NS, self._until_ns)
        while self._left > 0 and not self._is_closed():
            left_ns = until_ns - SYSTEM_CLOCK.now_ns()
            if left_ns <= 0:
                return
            time.sleep(min(left_ns / SECOND_NS, _SAMPLE_EVERY))

    def _perform(self, index: int) -> bool:
        """Perform an operation; return whether its thread is still wanted."""
        operation = self._mix.choose(index)
        name = operation.name
        times = self._instruments.times(name)
        current_effects.set(Effects())
        started = SYSTEM_CLOCK.now_ns()
        flight = ThreadFlight(name, self._metrics, started)
        holder.set(flight)
        self._in_flight.begin(flight)
        try:
            value = [self._calls[name](index)]
            ended = SYSTEM_CLOCK.now_ns()
            check_work(operation, value, effects_so_far())
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                self.asked = True
            if isinstance(error, FeedEnded) and not effects_so_far().committed:
                return self._no_more(flight, operation, str(error))
            return self._failed(flight, operation, error)
        with self._lock:
            if self._is_let_go(flight, operation):
                return False
            flight.metrics.succeeded(name, started, ended, times)
            if flight.undone is not None:
                flight.metrics.undone(name, *flight.undone)
        return True

    def _no_more(self, flight: ThreadFlight, operation: Operation, what: str) -> bool:
        """Let no more operations in: there is no work for them, and this one has not begun."""
        with self._lock:
            self.ended_by = what
            return not self._is_let_go(flight, operation)

    def _failed(self, flight: ThreadFlight, operation: Operation, error: BaseException) -> bool:
        with self._lock:
            if self._is_let_go(flight, operation):
                return False
            flight.failure = self._in_flight.why_ended(flight) or failure_of(error)
            committed = effects_so_far().committed
            flight.metrics.failed(flight.name, flight.failure, error, after_commit=committed)
        return True

    def _is_let_go(self, flight: ThreadFlight, operation: Operation) -> bool:
        """Note an operation's end; return whether it was counted without that."""
        self._in_flight.ended(flight)
        if flight.let_go:
            return True
        effects = effects_so_far()
        effects.end(rolls_back=operation.rolls_back)
        flight.ended = True
        if operation.kind is None and effects.wrote:
            flight.metrics.wrote(flight.name)
        return False

    def _check(self, name: str, passed: bool) -> None:
        with self._lock:
            self._metrics.checked(name, passed)

    def _retried(self, name: str, first: bool) -> None:
        with self._lock:
            self._metrics.retried(name, first)
        if (times := current_times.get()) is not None:
            times.tried_again()
