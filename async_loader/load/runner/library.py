"""
The library's `run`: a call with keywords, which make the spec.

    result = await run(workload, sessions=async_sessionmaker(engine), ops=35_000, concurrency=40)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from ...concurrency.clock import SYSTEM_CLOCK, Clock
from ...concurrency.stop import Stop

if TYPE_CHECKING:
    from ...database.session_factories import Sessions
    from ...results.run import RunResult
    from ..specs.run import RunOptions
    from ..workload import Workload
    from .phase import OnProgress


async def run(
    workload: Workload,
    *,
    sessions: Sessions | None = None,
    read_sessions: Sessions | None = None,
    stop: Stop | None = None,
    on_progress: OnProgress | None = None,
    clock: Clock = SYSTEM_CLOCK,
    **options: Unpack[RunOptions],
) -> RunResult:
    """
    Run the workload and return what was found.

    `ops` or `duration` (seconds) ends the run; `warmup` runs first and is not counted.
    `sessions` makes each operation's session, `read_sessions` those of reads (default: the
    same). `throttle` overrides `concurrency`, which stands for `Semaphore(concurrency)`;
    `ArrivalRate` is the open model. How many took longer than `latency_limit` (seconds) is
    counted. An operation that the server gave up for others (a serialization failure, a
    deadlock) is tried `max_tries` times in all, within its one latency.

    An operation longer than `op_timeout` seconds is cancelled; where even its connection's
    close is not answered it ends within 5 s more. When `stop` is requested no more are
    started, those in flight have `grace` seconds, and the result so far is returned.
    Operations that find the server down or full wait before the next attempt. When some fail
    and none has succeeded for `give_up` seconds, or two `op_timeout` if that is longer, the
    run ends: its outcome is "aborted". With `abort_on_fail`, from so many seconds on, one of the
    `thresholds` that does not hold ends it: "failed". Cancelling `run` leaves no task and no
    checked-out connection.

    `time_split` also tells where each operation's time goes, for up to a tenth of the throughput,
    and names a statement that one operation executes `n_plus_one` times (0: none). `profile` is a
    file for the stacks that the event loop was seen at, in speedscope's format.
    `server_side` asks the server for its own account of the run, on a connection of its own.

    Raises `ConfigurationError` before anything runs, `SetupError` when the workload's set-up
    raised, and `TeardownError`, which holds the result. Operations' own errors are counted, not
    raised.
    """
    from ..specs.run import RunSpec  # noqa: PLC0415  who imports the names may never run anything
    from .runner import perform  # noqa: PLC0415  as above

    return await perform(
        workload,
        RunSpec.of(**options),
        sessions=sessions,
        read_sessions=read_sessions,
        stop=stop,
        on_progress=on_progress,
        clock=clock,
    )
