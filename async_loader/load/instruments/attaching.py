"""Setting the instruments on the process for the time of a run, and taking them away."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Collection, Coroutine, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy.ext.asyncio.engine
import sqlalchemy.ext.asyncio.result
import sqlalchemy.ext.asyncio.session
from sqlalchemy.orm import Session, sessionmaker

from ...database.session_factories import Sessions, sync_engine_of
from ...errors import ConfigurationError
from ...results.loop_profile import Leak, LoopProfile
from .dialects import unattributed
from .leaks import leaks_of
from .loop_meter import LoopMeter
from .patches import Patches
from .pools import Pools, PoolWatch, current_watch
from .sampler import LoopSampler
from .slow import SlowStatements
from .speedscope import write_profile
from .steps import spawning, stepped
from .times import OperationTimes, current_times

# Each has a name of its own for what runs SQLAlchemy's code in a greenlet.
_SPAWNING = (
    sqlalchemy.ext.asyncio.engine,
    sqlalchemy.ext.asyncio.result,
    sqlalchemy.ext.asyncio.session,
)


_log = logging.getLogger("async_loader")


class Instruments:
    """
    What measures one run: its connections, and where the time of its operations goes.

    Operations are split where that is wanted (`splits`); connections are counted anyway.
    """

    def __init__(
        self, pool: PoolWatch, *, splits: bool, n_plus_one: int, meter: LoopMeter | None
    ) -> None:
        self.pool = pool
        self.splits = splits
        self._n_plus_one = n_plus_one
        self.meter = meter
        self.sampler: LoopSampler | None = None
        self.slow: SlowStatements | None = None
        self._unattributed = unattributed.statements

    def times(self, operation: str, queued_ns: int = 0) -> OperationTimes | None:
        """
        Have what this task or thread does counted as an operation's; None: it is not split.

        `queued_ns`: how long it has waited already for the event loop to begin it.
        """
        if not self.splits:
            return None
        times = OperationTimes(operation, meter=self.meter, n_plus_one=self._n_plus_one)
        times.queue_ns = queued_ns
        current_times.set(times)
        return times

    def drive(
        self, coroutine: Coroutine[Any, Any, Any], times: OperationTimes | None
    ) -> Coroutine[Any, Any, Any]:
        """Return what is to be awaited in the operation's task to perform it."""
        if times is None or self.meter is None:
            return coroutine
        return stepped(coroutine, times, self.meter)

    def settle(self, times: OperationTimes | None) -> None:
        """Share out what an operation ran, which has ended, between SQLAlchemy and the rest."""
        if times is not None and self.meter is not None and self.sampler is not None:
            shares = self.meter.shares[times.operation]
            ran_ns = times.application_ns + times.orm_ns
            times.orm_ns = shares.of_orm(times.application_ns, times.orm_ns)
            times.application_ns = ran_ns - times.orm_ns

    def begin(self) -> None:
        """Forget what the warm-up showed."""
        self._unattributed = unattributed.statements
        if self.sampler is not None:
            self.sampler.reset()
        if self.slow is not None:
            self.slow.clear()

    def profile(self) -> LoopProfile | None:
        """Return what the sampler has seen; None where there is no event loop to sample."""
        return self.sampler.samples.result() if self.sampler is not None else None

    def write_profile(self, path: Path, name: str) -> None:
        """Write the stacks that were seen; log why where that cannot be: there is a result."""
        if self.sampler is None:
            return
        try:
            write_profile(path, self.sampler.samples.stacks, name)
        except OSError as error:
            _log.warning("the profile %s could not be written: %s", path, error.strerror)

    def unseen(self) -> tuple[str, ...]:
        """Return what of the run could not be seen, in a sentence each."""
        statements = unattributed.statements - self._unattributed
        if not statements:
            return ()
        return (
            f"{statements:,} statements ran in threads that do not know their operation, as those "
            "of run_in_executor: they are in nobody's split (asyncio.to_thread takes the "
            "operation's context along).",
        )

    def leaks(self) -> tuple[Leak, ...]:
        """Return the connections that operations have not given back."""
        return leaks_of(self.pool)


class _Process:
    """What is set on the process, for all runs that go on in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._patches = Patches()
        self._pools: Pools | None = None

    def enter(self, watch: PoolWatch) -> None:
        """Begin to tell a run of its connections."""
        with self._lock:
            if self._pools is None:
                self._pools = Pools(self._patches)
                for module in _SPAWNING:
                    self._patches.wrap(module, "greenlet_spawn", spawning)
            watches = self._pools.watches
            if watch.engine is not None and any(w.engine is watch.engine for w in watches):
                raise ConfigurationError(
                    "another run is measuring this engine: give each run an engine of its own"
                )
            self._pools.watches = [*watches, watch]

    def leave(self, watch: PoolWatch) -> None:
        """Tell a run nothing more; the last one leaves SQLAlchemy as it was."""
        with self._lock:
            assert self._pools is not None
            self._pools.watches = [w for w in self._pools.watches if w is not watch]
            if not self._pools.watches:
                self._pools.close()
                self._patches.restore()
                self._pools = None


_process = _Process()


def attached(
    sessions: Sessions | sessionmaker[Session] | None,
    stack: ExitStack | AsyncExitStack,
    *,
    time_split: bool,
    n_plus_one: int = 0,
    on_loop: bool = True,
    keep_stacks: bool = False,
    slow_statements: bool = False,
) -> Instruments:
    """
    Watch the engines of the process until the stack ends; `sessions` name the run's own.

    `on_loop`: operations are tasks of this thread's event loop; else they are calls in threads.
    `keep_stacks`: the sampler keeps whole stacks, for a profile. `slow_statements`: those of the
    run's own engine are timed, and the parameters of the slowest kept.
    """
    watch = PoolWatch(sync_engine_of(sessions))
    stack.enter_context(_watching(watch))
    meter = LoopMeter(asyncio.get_running_loop()) if on_loop else None
    instruments = Instruments(watch, splits=time_split, n_plus_one=n_plus_one, meter=meter)
    if meter is not None and time_split:
        instruments.sampler = LoopSampler(meter, keep_stacks=keep_stacks)
        stack.enter_context(instruments.sampler.sampling())
    if slow_statements and time_split and watch.engine is not None:
        instruments.slow = SlowStatements()
        stack.enter_context(instruments.slow.listening(watch.engine))
    return instruments


@contextmanager
def _watching(watch: PoolWatch) -> Iterator[None]:
    _process.enter(watch)
    token = current_watch.set(watch)
    try:
        yield
    finally:
        current_watch.reset(token)
        _process.leave(watch)


def break_off(pool: PoolWatch | None, holders: Collection[object]) -> None:
    """Break off the connections that these have in the pools that are watched."""
    if pool is not None:
        for whose in tuple(holders):
            pool.break_off(whose)
