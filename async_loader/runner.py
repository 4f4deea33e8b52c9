"""
Running a workload over `AsyncSession`, and counting what happens.

    result = await run(workload, sessions=async_sessionmaker(engine), ops=35_000, concurrency=40)
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Task, current_task
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from itertools import count
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from .clock import SYSTEM_CLOCK, Clock
from .errors import AsyncLoaderError, ConfigurationError, SetupError
from .failures import CANCELLED, TIMEOUT, classify
from .instruments import DialectTimer, OperationTimes, PoolWatch, current_times
from .limits import Limit, Stop
from .metrics import SECOND_NS, Metrics, ProcessMeter, Snapshot, pool_result, watch_loop
from .results import Outcome, RunResult
from .throttles import Semaphore, Throttle
from .workload import Mix, Operation, Workload

Sessions = async_sessionmaker[AsyncSession]
OnProgress = Callable[[Snapshot], None]

# An operation that never waits would keep every timer of the loop waiting.
_YIELD_EVERY = 128
_PROGRESS_EVERY = 0.5


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
    stop: Stop | None = None,
    time_split: bool = True,
    on_progress: OnProgress | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> RunResult:
    """
    Run the workload and return what was found.

    `ops` or `duration` (seconds) ends the run; `warmup` runs first and is not counted.
    `sessions` makes each operation's session, `read_sessions` those of reads (default: the
    same). `throttle` overrides `concurrency`, which stands for `Semaphore(concurrency)`.
    An operation longer than `op_timeout` seconds is cancelled. When `stop` is requested no
    more are started, those in flight have `grace` seconds, and the result so far is
    returned. `time_split` also tells where each operation's time goes, for some 2 % of the
    throughput. Cancelling `run` leaves no task and no checked-out connection.

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
            pool = _attach_instruments(sessions, time_split, stack)
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
                stop=stop,
                clock=clock,
            )
            if warmup is not None:
                # Numbers below zero: the warm-up takes none of the run's own operations.
                await phase.perform_all(warmup, count(-1, -1))
            meter = ProcessMeter()
            metrics, seconds = await phase.perform_all(limit, count(), on_progress)
            outcome: Outcome = "interrupted" if stop.requested.is_set() else "done"
            return RunResult(
                outcome=outcome,
                mode=throttle.mode,
                workload=workload.name,
                seconds=seconds,
                planned=ops,
                by_operation=metrics.operations(),
                errors=metrics.errors(),
                pool=pool_result(pool),
                series=metrics.series(seconds),
                process=meter.result(metrics.loop_lag),
            )


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
    sessions: Sessions | None, time_split: bool, stack: ExitStack
) -> PoolWatch | None:
    """Watch the engine of the factory's sessions, where it names one, until the stack ends."""
    bind = sessions.kw.get("bind") if sessions is not None else None
    if not isinstance(bind, AsyncEngine):
        return None
    pool = stack.enter_context(PoolWatch(bind.sync_engine))
    if time_split:
        stack.enter_context(DialectTimer(bind.sync_engine))
    return pool


async def _set_up(workload: Workload, sessions: Sessions | None, seed: int, stop: Stop) -> Any:
    """Return what the workload's set-up returns; a stop cancels it."""
    if workload.setup_hook is None:
        return None
    task = asyncio.create_task(workload.setup_hook(sessions=sessions, seed=seed))
    try:
        await _first_of(task, stop.requested)
    finally:
        await _cancel(task)
    if task.cancelled():
        return None
    try:
        return task.result()
    except AsyncLoaderError:
        raise
    except Exception as error:
        raise SetupError(
            f"the set-up of workload {workload.name!r} raised {type(error).__name__}: {error}"
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
        self._stop = stop
        self._clock = clock
        self._in_flight: dict[Task[Any], int] = {}
        self._expired: set[Task[Any]] = set()
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
        watchers = [
            asyncio.create_task(
                watch_loop(self._clock, lambda lag: metrics.sample(self._pool, lag))
            ),
            asyncio.create_task(self._watch_timeouts()),
        ]
        if on_progress is not None:
            watchers.append(asyncio.create_task(self._report(limit, on_progress)))
        try:
            await self._drive(limit, numbers)
        finally:
            seconds = (self._clock.now_ns() - metrics.started_ns) / SECOND_NS
            await _cancel(*watchers)
        if on_progress is not None:
            on_progress(metrics.snapshot(self._pool, limit.ops, limit.duration))
        return metrics, seconds

    async def _drive(self, limit: Limit, numbers: Iterator[int]) -> None:
        """Let the throttle run to its end, or for `grace` seconds once asked to stop."""
        driver = asyncio.create_task(
            self._throttle.drive(self._feed(limit, numbers), self._perform)
        )
        try:
            await _first_of(driver, self._stop.requested)
            await _first_of(driver, self._stop.at_once, self._grace)
        finally:
            await _cancel(driver)
        if not driver.cancelled():
            driver.result()  # a defect of ours, if any: operations' errors are counted

    def _feed(self, limit: Limit, numbers: Iterator[int]) -> Iterator[int]:
        """Yield the next operation's number when one can start: lazily, by whoever is free."""
        stopping = self._stop.requested.is_set
        now = self._clock.now_ns
        if limit.ops is not None:
            for _ in range(limit.ops):
                if stopping():
                    return
                yield next(numbers)
        elif limit.duration is not None:
            end = now() + int(limit.duration * SECOND_NS)
            while now() < end and not stopping():
                yield next(numbers)

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
        self._in_flight[task] = started = now()
        try:
            await self._calls[name](index)
        except CancelledError as error:
            # Past its time, unless somebody else wants the task to end as well.
            if task not in self._expired or task.uncancel():
                self._metrics.failed(name, CANCELLED, error)
                raise
            self._metrics.failed(name, TIMEOUT, None)
        except Exception as error:
            self._metrics.failed(name, classify(error), error)
        else:
            self._metrics.succeeded(name, started, now(), times)
        finally:
            del self._in_flight[task]
            self._expired.discard(task)
        if index % _YIELD_EVERY == 0:
            await asyncio.sleep(0)

    def _call_for(self, operation: Operation) -> Callable[[int], Awaitable[Any]]:
        """Return how to call an operation: with what it asks for, and nothing else made."""
        function = operation.function
        context = self._mix.context
        shared = self._shared
        wants_op = "op" in operation.wants
        if "session" not in operation.wants:
            if not wants_op:
                return lambda _index: function()
            return lambda index: function(op=context(index, shared))
        sessions = self._sessions[operation.kind]
        assert sessions is not None

        async def with_session(index: int) -> None:
            async with sessions() as session:
                if wants_op:
                    await function(session=session, op=context(index, shared))
                else:
                    await function(session=session)

        return with_session

    async def _watch_timeouts(self) -> None:
        """Cancel what is in flight for too long: one task, not a timer for every operation."""
        allowed = int(self._op_timeout * SECOND_NS)
        while True:
            await self._clock.sleep(min(self._op_timeout / 4, 0.5))
            now = self._clock.now_ns()
            for task, started in self._in_flight.items():
                if now - started > allowed and task not in self._expired:
                    self._expired.add(task)
                    task.cancel()

    async def _report(self, limit: Limit, on_progress: OnProgress) -> None:
        while True:
            on_progress(self._metrics.snapshot(self._pool, limit.ops, limit.duration))
            await self._clock.sleep(_PROGRESS_EVERY)


async def _first_of(task: Task[Any], event: asyncio.Event, timeout: float | None = None) -> None:
    """Wait for the task, the event or the timeout, whichever is first; cancel none."""
    waiter = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiter}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancel(waiter)


async def _cancel(*tasks: Task[Any]) -> None:
    """Cancel tasks and wait for their end, whatever it is."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
