"""
Running a workload over `AsyncSession`, and counting what happens.

    result = await run(workload, sessions=async_sessionmaker(engine), ops=35_000, concurrency=40)
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Task, current_task
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import ExitStack, asynccontextmanager
from itertools import count
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from .clock import SYSTEM_CLOCK, Clock
from .database import first_line
from .errors import AsyncLoaderError, ConfigurationError, SetupError
from .failures import CANCELLED, TIMEOUT, Backoff, Failure, classify
from .instruments import DialectTimer, OperationTimes, PoolWatch, current_times, holder
from .limits import Limit, Stop
from .metrics import SECOND_NS, Metrics, ProcessMeter, Snapshot, pool_result, watch_loop
from .repeats import LEAST
from .results import Outcome, RunResult
from .tasks import CLOSING, cancel, end, first_of
from .throttles import Semaphore, Throttle
from .workload import Mix, Operation, Workload

Sessions = async_sessionmaker[AsyncSession]
OnProgress = Callable[[Snapshot], None]

# An operation that never waits would keep every timer of the loop waiting.
_YIELD_EVERY = 128
_PROGRESS_EVERY = 0.5
_WATCH_EVERY = 0.5


async def run(
    workload: Workload,
    *,
    sessions: Sessions | None = None,
    read_sessions: Sessions | None = None,
    ops: int | None = None,
    duration: float | None = None,
    concurrency: int = 40,
    throttle: Throttle | None = None,
    seed: int = 0,
    write_ratio: float | None = None,
    warmup: Limit | None = None,
    op_timeout: float = 30.0,
    grace: float = 10.0,
    give_up: float = 60.0,
    stop: Stop | None = None,
    time_split: bool = True,
    n_plus_one: int = LEAST,
    on_progress: OnProgress | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> RunResult:
    """
    Run the workload and return what was found.

    `ops` or `duration` (seconds) ends the run; `warmup` runs first and is not counted.
    `sessions` makes each operation's session, `read_sessions` those of reads (default: the
    same). `throttle` overrides `concurrency`, which stands for `Semaphore(concurrency)`.
    An operation longer than `op_timeout` seconds is cancelled; where even its connection's
    close is not answered it ends within 5 s more. When `stop` is requested no more are
    started, those in flight have `grace` seconds, and the result so far is returned.
    Operations that find the server down or full wait before the next attempt. When some fail
    and none has succeeded for `give_up` seconds, or two `op_timeout` if that is longer, the
    run ends: its outcome is "aborted". `time_split` also tells where each operation's time
    goes, for some 2 % of the throughput, and names a statement that one operation executes
    `n_plus_one` times (0: none). Cancelling `run` leaves no task and no checked-out connection.

    Raises `ConfigurationError` before anything runs, and `SetupError` when the workload's
    set-up raised. Operations' own errors are counted, not raised.
    """
    throttle = throttle or Semaphore(concurrency)
    limit = Limit(ops, duration)
    stop = stop or Stop()
    stop.heeded = True
    mix = workload.mix(seed=seed, write_ratio=write_ratio)
    if sessions is None and any("session" in o.wants for o in mix.operations):
        raise ConfigurationError(f"workload {workload.name!r} needs `sessions`")
    async with prepared(workload, sessions=sessions, seed=seed, stop=stop) as shared:
        with ExitStack() as stack:
            pool = _attach_instruments(sessions, time_split, n_plus_one, stack)
            phase = _Phase(
                mix=mix,
                throttle=throttle,
                shared=shared,
                sessions=sessions,
                read_sessions=read_sessions or sessions,
                pool=pool,
                time_split=time_split,
                op_timeout=op_timeout,
                grace=grace,
                give_up=max(give_up, 2 * op_timeout),
                stop=stop,
                clock=clock,
            )
            if warmup is not None:
                # Numbers below zero: the warm-up takes none of the run's own operations.
                metrics, seconds = await phase.perform_all(warmup, count(-1, -1))
            meter = ProcessMeter()
            if not phase.gave_up.is_set():  # else what the warm-up met is all there is to tell
                metrics, seconds = await phase.perform_all(limit, count(), on_progress)
            return RunResult(
                outcome=_outcome(stop, phase),
                mode=throttle.mode,
                workload=workload.name,
                seconds=seconds,
                planned=ops,
                by_operation=metrics.operations(),
                errors=metrics.errors(),
                checks=metrics.checks(),
                pool=pool_result(pool),
                series=metrics.series(seconds),
                slices=metrics.slices(seconds),
                process=meter.result(metrics.loop_lag),
                repeated_statements=metrics.repeated_statements(),
            )


def _outcome(stop: Stop, phase: _Phase) -> Outcome:
    if phase.gave_up.is_set():
        return "aborted"
    return "interrupted" if stop.requested.is_set() else "done"


@asynccontextmanager
async def prepared(
    workload: Workload, *, sessions: Sessions | None, seed: int, stop: Stop
) -> AsyncIterator[Any]:
    """
    Yield what the workload's set-up returns; its tear-down always runs.

    Raises `SetupError`. A stop cancels the set-up, and yields None.
    """
    shared = await _set_up(workload, sessions, seed, stop)
    try:
        yield shared
    finally:
        if workload.teardown_hook is not None:
            await workload.teardown_hook(sessions=sessions, shared=shared)


def _attach_instruments(
    sessions: Sessions | None, time_split: bool, n_plus_one: int, stack: ExitStack
) -> PoolWatch | None:
    """Watch the engine of the factory's sessions, where it names one, until the stack ends."""
    bind = sessions.kw.get("bind") if sessions is not None else None
    if not isinstance(bind, AsyncEngine):
        return None
    pool = stack.enter_context(PoolWatch(bind.sync_engine))
    if time_split:
        stack.enter_context(DialectTimer(bind.sync_engine, n_plus_one=n_plus_one))
    return pool


async def _set_up(workload: Workload, sessions: Sessions | None, seed: int, stop: Stop) -> Any:
    """Return what the workload's set-up returns; a stop cancels it."""
    if workload.setup_hook is None:
        return None
    with ExitStack() as stack:
        pool = _attach_instruments(sessions, False, 0, stack)
        token = holder.set(workload)
        task = asyncio.create_task(workload.setup_hook(sessions=sessions, seed=seed))
        holder.reset(token)
        try:
            await first_of(task, stop.requested)
        finally:
            await end(task, lambda: _break_off(pool, (workload,)))
    if task.cancelled() or (stop.requested.is_set() and task.exception() is not None):
        return None  # it was ended, and may say so in its own way
    try:
        return task.result()
    except AsyncLoaderError:
        raise
    except Exception as error:
        raise SetupError(
            f"the set-up of workload {workload.name!r} raised {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error


class _Phase:
    """The warm-up or the run itself: operations let in by a throttle, watched and counted."""

    def __init__(
        self,
        *,
        mix: Mix,
        throttle: Throttle,
        shared: Any,
        sessions: Sessions | None,
        read_sessions: Sessions | None,
        pool: PoolWatch | None,
        time_split: bool,
        op_timeout: float,
        grace: float,
        give_up: float,
        stop: Stop,
        clock: Clock,
    ) -> None:
        self._mix = mix
        self._throttle = throttle
        self._shared = shared
        self._sessions = {"write": sessions, "read": read_sessions}
        self._pool = pool
        self._op_timeout = op_timeout
        self._grace = grace
        self._give_up = give_up
        self._stop = stop
        self._clock = clock
        self._in_flight: dict[Task[Any], int] = {}
        self._expired: dict[Task[Any], int] = {}  # when the watchdog cancelled it
        self._backoff = Backoff()
        self._closed = asyncio.Event()  # no more operations are let in
        self._closed.set()
        self.gave_up = asyncio.Event()
        self._timed = frozenset(
            o.name for o in mix.operations if time_split and pool and "session" in o.wants
        )
        self._calls = {o.name: self._call_for(o) for o in mix.operations}
        self._metrics = Metrics(mix.operations, clock)

    async def perform_all(
        self, limit: Limit, numbers: Iterator[int], on_progress: OnProgress | None = None
    ) -> tuple[Metrics, float]:
        """Perform operations until the limit or the stop; return the counts and the seconds."""
        metrics = self._metrics = Metrics(self._mix.operations, self._clock)
        if not (self._stop.requested.is_set() or self.gave_up.is_set()):
            self._closed.clear()
        watchers = [
            asyncio.create_task(
                watch_loop(self._clock, lambda lag: metrics.sample(self._pool, lag))
            ),
            asyncio.create_task(self._watch_deadlines()),
        ]
        if on_progress is not None:
            watchers.append(asyncio.create_task(self._report(limit, on_progress)))
        try:
            await self._drive(limit, numbers)
        finally:
            seconds = (self._clock.now_ns() - metrics.started_ns) / SECOND_NS
            await cancel(*watchers)
        if on_progress is not None:
            on_progress(metrics.snapshot(self._pool, limit.ops, limit.duration))
        return metrics, seconds

    async def _drive(self, limit: Limit, numbers: Iterator[int]) -> None:
        """Let the throttle run to its end, or for `grace` seconds once asked to stop."""
        driver = asyncio.create_task(
            self._throttle.drive(self._feed(limit, numbers), self._perform)
        )
        try:
            await first_of(driver, self._stop.requested, self.gave_up)
            self._closed.set()
            await first_of(driver, self._stop.at_once, timeout=self._grace)
        finally:
            self._closed.set()  # also for a worker whose operation swallows the cancellation
            await end(driver, lambda: _break_off(self._pool, self._in_flight))
        if not driver.cancelled():
            driver.result()  # a defect of ours, if any: operations' errors are counted

    def _feed(self, limit: Limit, numbers: Iterator[int]) -> Iterator[int]:
        """Yield the next operation's number when one can start: lazily, by whoever is free."""
        now = self._clock.now_ns

        def closed() -> bool:
            return self._stop.requested.is_set() or self._closed.is_set()

        if limit.ops is not None:
            for _ in range(limit.ops):
                if closed():
                    return
                yield next(numbers)
        elif limit.duration is not None:
            until = now() + int(limit.duration * SECOND_NS)
            while now() < until and not closed():
                yield next(numbers)
        self._closed.set()

    async def _perform(self, index: int) -> None:
        """Perform one operation from the opening of its session to its close, and count it."""
        operation = self._mix.choose(index)
        name = operation.name
        task = current_task()
        assert task is not None
        times = None
        if name in self._timed:
            times = OperationTimes()
            current_times.set(times)
        now = self._clock.now_ns
        holder.set(task)
        self._in_flight[task] = started = now()
        failure = None
        try:
            await self._calls[name](index)
        except CancelledError as error:
            # Past its time, unless somebody else wants the task to end as well.
            if task not in self._expired or task.uncancel():
                self._metrics.failed(name, CANCELLED, error)
                raise
            self._metrics.failed(name, TIMEOUT, None)
        except Exception as error:
            failure = self._why_ended(task) or classify(error)
            self._metrics.failed(name, failure, error)
        else:
            self._metrics.succeeded(name, started, now(), times)
            self._why_ended(task)
        finally:
            del self._in_flight[task]
            self._expired.pop(task, None)
        if failure is not None and failure.pause:
            await self._back_off(failure)
        elif index % _YIELD_EVERY == 0:
            await asyncio.sleep(0)

    def _why_ended(self, task: Task[Any]) -> Failure | None:
        """Return why an operation was cancelled that then ended in its own way, if it was."""
        if task in self._expired:
            task.uncancel()
            return TIMEOUT
        return CANCELLED if task.cancelling() else None

    async def _back_off(self, failure: Failure) -> None:
        """Wait before the next attempt, but not when there will be none."""
        pause = self._backoff.pause(failure, self._clock.now_ns() / SECOND_NS)
        if not self._closed.is_set():
            pausing = asyncio.ensure_future(self._clock.sleep(pause))
            try:
                await first_of(pausing, self._closed)
            finally:
                await cancel(pausing)

    def _call_for(self, operation: Operation) -> Callable[[int], Awaitable[Any]]:
        """Return how to call an operation: with what it asks for, and nothing else made."""
        function = operation.function
        context = self._mix.context
        shared = self._shared
        wants_op = "op" in operation.wants
        if "session" not in operation.wants:
            if not wants_op:
                return lambda _index: function()
            return lambda index: function(op=context(index, shared, self._check))
        sessions = self._sessions[operation.kind]
        assert sessions is not None

        async def with_session(index: int) -> None:
            async with sessions() as session:
                if wants_op:
                    await function(session=session, op=context(index, shared, self._check))
                else:
                    await function(session=session)

        return with_session

    def _check(self, name: str, passed: bool) -> None:
        self._metrics.checked(name, passed)

    async def _watch_deadlines(self) -> None:
        """
        Cancel what is in flight for too long: one task, not a timer for every operation.

        What does not end by that loses its connection. And give up in time.
        """
        while True:
            await self._clock.sleep(min(self._op_timeout / 4, _WATCH_EVERY))
            now = self._clock.now_ns()
            for task, started in self._in_flight.items():
                if task not in self._expired:
                    if now - started > self._op_timeout * SECOND_NS:
                        self._expired[task] = now
                        task.cancel()
                elif now - self._expired[task] > CLOSING * SECOND_NS:
                    _break_off(self._pool, (task,))
            self._consider_giving_up(now)

    def _consider_giving_up(self, now: int) -> None:
        succeeded = self._metrics.last_success_ns
        failing = self._metrics.last_failure_ns > succeeded
        if failing and now - succeeded > self._give_up * SECOND_NS:
            self.gave_up.set()

    async def _report(self, limit: Limit, on_progress: OnProgress) -> None:
        while True:
            on_progress(self._metrics.snapshot(self._pool, limit.ops, limit.duration))
            await self._clock.sleep(_PROGRESS_EVERY)


def _break_off(pool: PoolWatch | None, holders: Collection[object]) -> None:
    if pool is not None:
        for whose in holders:
            pool.break_off(whose)
