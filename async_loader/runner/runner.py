"""
Running a workload over `AsyncSession`, and counting what happens.

    result = await run(workload, sessions=async_sessionmaker(engine), ops=35_000, concurrency=40)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

from ..clock import SYSTEM_CLOCK, Clock
from ..effects import watched
from ..errors import ConfigurationError, TeardownError
from ..instruments import attached
from ..limits import Limit, Stop
from ..metrics.process_meter import ProcessMeter
from ..metrics.repeats import LEAST
from ..parts import WHOLE, Lead
from ..results.run import RunResult
from ..server_side import server_watch
from ..session_factories import Sessions, engine_of, why_unusable
from ..throttles import Semaphore, Throttle
from ..verdict.thresholds import check_names, parse
from ..workload import Mix, Workload
from .phase import OnProgress, Phase
from .preparation import prepared
from .under_way import under_way
from .work_done import unawaited_noted


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
    latency_limit: float | None = None,
    max_tries: int = 1,
    thresholds: Sequence[str] = (),
    abort_on_fail: float | None = None,
    stop: Stop | None = None,
    time_split: bool = True,
    n_plus_one: int = LEAST,
    profile: Path | None = None,
    server_side: bool = False,
    on_progress: OnProgress | None = None,
    lead: Lead | None = None,
    clock: Clock = SYSTEM_CLOCK,
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

    `time_split` also tells where each operation's time goes, for some 2 % of the throughput,
    and names a statement that one operation executes `n_plus_one` times (0: none). `profile` is a
    file for the stacks that the event loop was seen at, in speedscope's format.
    `server_side` asks the server for its own account of the run, on a connection of its own.
    With a `lead` this is one part of a run: the operations are its own ones only, `ops` is
    their number, and the workload's set-up and tear-down are the lead's.

    Raises `ConfigurationError` before anything runs, `SetupError` when the workload's set-up
    raised, and `TeardownError`, which holds the result. Operations' own errors are counted, not
    raised.
    """
    throttle = throttle or Semaphore(concurrency)
    limit = Limit(ops, duration)
    stop = stop or Stop()
    stop.heeded = True
    mix = workload.mix(seed=seed, write_ratio=write_ratio)
    _check(workload, mix, sessions, thresholds)
    result = None
    under_way.enter("set-up")
    try:
        async with AsyncExitStack() as stack:
            afterwards = stack.enter_context(ExitStack())
            stack.enter_context(watched(raw_drivers=max_tries > 1))
            stack.enter_context(unawaited_noted())
            shared = await stack.enter_async_context(
                nullcontext(lead.shared)
                if lead is not None
                else prepared(
                    workload,
                    sessions=sessions,
                    seed=seed,
                    stop=stop,
                    patience=op_timeout + grace,
                )
            )
            part = lead.part if lead is not None else WHOLE
            instruments = attached(
                sessions,
                stack,
                time_split=time_split and any(o.isolated for o in mix.operations),
                n_plus_one=n_plus_one,
                keep_stacks=profile is not None,
            )
            pool = instruments.pool
            engine = engine_of(sessions)
            server = await stack.enter_async_context(server_watch(engine, pool, wanted=server_side))
            phase = Phase(
                workload=workload.name,
                planned=ops,
                mix=mix,
                throttle=throttle,
                shared=shared,
                sessions=sessions,
                read_sessions=read_sessions or sessions,
                instruments=instruments,
                op_timeout=op_timeout,
                grace=grace,
                give_up=max(give_up, 2 * op_timeout),
                stop=stop,
                latency_limit=latency_limit,
                max_tries=max_tries,
                thresholds=tuple(map(parse, thresholds)),
                abort_on_fail=abort_on_fail,
                clock=clock,
            )
            under_way.enter("running", phase.so_far)
            if warmup is not None:
                metrics, seconds = await phase.perform_all(warmup, part.warm_up_numbers())
            meter = ProcessMeter()
            warm_up = None
            if phase.outcome == "done":  # else what the warm-up met is all there is to tell
                if warmup is not None:
                    warm_up = metrics.warm_up(seconds)
                await server.begin()
                instruments.begin()
                if lead is not None:
                    await lead.begin()
                meter = phase.meter = ProcessMeter()
                metrics, seconds = await phase.perform_all(
                    limit,
                    part.numbers() if lead is None else lead.numbers(),
                    judged=True,
                    on_progress=on_progress,
                    on_look=None if lead is None else lead.look,
                )
            if phase.outcome == "aborted":  # who has not answered the run may hang a tear-down
                hurry = asyncio.get_running_loop().call_later(grace, stop.at_once.set)
                afterwards.callback(hurry.cancel)
            interrupted = phase.outcome == "done" and stop.requested.is_set()
            result = metrics.result(
                outcome="interrupted" if interrupted else phase.outcome,
                mode=throttle.mode,
                workload=workload.name,
                seconds=seconds,
                planned=ops,
                pool=pool,
                process=meter.result(metrics.loop_lag),
            )
            result = replace(
                result,
                server_side=await server.end(),
                loop_profile=instruments.profile(),
                leaks=instruments.leaks(),
                unseen=instruments.unseen(),
                warm_up=warm_up,
            )
            if profile is not None:
                instruments.write_profile(profile, workload.name)
            finished = result
            under_way.enter("tear-down", lambda _outcome, _where: finished)
    except TeardownError as error:
        error.result = result
        raise
    return result


def _check(
    workload: Workload, mix: Mix, sessions: Sessions | None, thresholds: Sequence[str]
) -> None:
    """Raise `ConfigurationError` for what could only go wrong."""
    check_names(map(parse, thresholds), [operation.name for operation in mix.operations])
    if sessions is None and any("session" in o.wants for o in mix.operations):
        raise ConfigurationError(f"workload {workload.name!r} needs `sessions`")
    if sessions is not None and (why := why_unusable(sessions)) is not None:
        raise ConfigurationError(f"`sessions` {why}")
