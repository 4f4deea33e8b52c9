"""Running a workload over `AsyncSession`, as a `RunSpec` says, and counting what happens."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack, nullcontext
from dataclasses import replace

from ...concurrency.clock import SYSTEM_CLOCK, Clock
from ...concurrency.stop import Stop
from ...database.session_factories import Sessions, engine_of, why_unusable
from ...errors import ConfigurationError, TeardownError
from ...results.run import RunResult
from ...verdict.thresholds import check_names
from ..effects import watched
from ..instruments import attached
from ..metrics.process_meter import ProcessMeter
from ..partition import WHOLE, ShardCoordinator
from ..server.statistics import server_watch
from ..specs.run import RunSpec, VerdictSpec
from ..workload import Mix, Workload
from .phase import OnProgress, Phase
from .preparation import prepared
from .under_way import under_way
from .work_done import unawaited_noted


async def perform(
    workload: Workload,
    spec: RunSpec,
    *,
    sessions: Sessions | None = None,
    read_sessions: Sessions | None = None,
    stop: Stop | None = None,
    on_progress: OnProgress | None = None,
    lead: ShardCoordinator | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> RunResult:
    """
    Run the workload and return what was found; `library.run` says what that means.

    With a `lead` this is one part of a run: the operations are its own ones only, the limit is
    theirs, and the workload's set-up and tear-down are the lead's.
    """
    load, timeouts, wanted = spec.load, spec.timeouts, spec.instruments
    stop = stop or Stop()
    stop.heeded = True
    mix = workload.mix(seed=spec.sampling.seed, write_ratio=spec.sampling.write_ratio)
    _check(workload, mix, sessions, spec.verdict)
    result = None
    under_way.enter("set-up")
    try:
        async with AsyncExitStack() as stack:
            afterwards = stack.enter_context(ExitStack())
            stack.enter_context(watched(raw_drivers=load.max_tries > 1))
            stack.enter_context(unawaited_noted())
            shared = await stack.enter_async_context(
                nullcontext(lead.shared)
                if lead is not None
                else prepared(
                    workload,
                    sessions=sessions,
                    seed=spec.sampling.seed,
                    stop=stop,
                    patience=timeouts.op_timeout + timeouts.grace,
                )
            )
            part = lead.part if lead is not None else WHOLE
            instruments = attached(
                sessions,
                stack,
                time_split=wanted.time_split and any(o.isolated for o in mix.operations),
                n_plus_one=wanted.n_plus_one,
                keep_stacks=wanted.profile is not None,
            )
            pool = instruments.pool
            engine = engine_of(sessions)
            server = await stack.enter_async_context(
                server_watch(engine, pool, wanted=wanted.server_side)
            )
            phase = Phase(
                workload.name,
                mix,
                spec,
                shared=shared,
                sessions=sessions,
                read_sessions=read_sessions or sessions,
                instruments=instruments,
                stop=stop,
                clock=clock,
            )
            under_way.enter("running", phase.so_far)
            if load.warmup is not None:
                metrics, seconds = await phase.perform_all(load.warmup, part.warm_up_numbers())
            meter = ProcessMeter()
            warm_up = None
            if phase.outcome == "done":  # else what the warm-up met is all there is to tell
                if load.warmup is not None:
                    warm_up = metrics.warm_up(seconds)
                await server.begin()
                instruments.begin()
                if lead is not None:
                    await lead.begin()
                meter = phase.meter = ProcessMeter()
                metrics, seconds = await phase.perform_all(
                    load.limit,
                    part.numbers() if lead is None else lead.numbers(),
                    judged=True,
                    on_progress=on_progress,
                    on_look=None if lead is None else lead.look,
                )
            if phase.outcome == "aborted":  # who has not answered the run may hang a tear-down
                hurry = asyncio.get_running_loop().call_later(timeouts.grace, stop.at_once.set)
                afterwards.callback(hurry.cancel)
            interrupted = phase.outcome == "done" and stop.requested.is_set()
            result = metrics.result(
                outcome="interrupted" if interrupted else phase.outcome,
                mode=spec.throttle.mode,
                workload=workload.name,
                seconds=seconds,
                planned=load.limit.ops,
                pool=pool,
                process=meter.result(metrics.loop_lag),
            )
            result = replace(
                result,
                stopped_by=stop.by if interrupted else None,
                server_side=await server.end(),
                loop_profile=instruments.profile(),
                leaks=instruments.leaks(),
                unseen=instruments.unseen(),
                warm_up=warm_up,
            )
            if wanted.profile is not None:
                instruments.write_profile(wanted.profile, workload.name)
            finished = result
            under_way.enter("tear-down", lambda _outcome, _where: finished)
    except TeardownError as error:
        error.result = result
        raise
    return result


def _check(workload: Workload, mix: Mix, sessions: Sessions | None, verdict: VerdictSpec) -> None:
    """Raise `ConfigurationError` for what could only go wrong."""
    check_names(verdict.thresholds, [operation.name for operation in mix.operations])
    if sessions is None and any("session" in o.wants for o in mix.operations):
        raise ConfigurationError(f"workload {workload.name!r} needs `sessions`")
    if sessions is not None and (why := why_unusable(sessions)) is not None:
        raise ConfigurationError(f"`sessions` {why}")
