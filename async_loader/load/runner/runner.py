"""Running a workload over `AsyncSession`, as a `RunSpec` says, and counting what happens."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, nullcontext
from dataclasses import replace
from typing import Any

from ...concurrency.clock import SYSTEM_CLOCK, Clock
from ...concurrency.stop import Stop
from ...database.session_factories import Sessions, engine_of, why_unusable
from ...errors import ConfigurationError, TeardownError
from ...results.plans import StatementPlan
from ...results.run import RunResult
from ...runtime.under_way import under_way
from ...verdict.thresholds import check_names
from ..context import Claims
from ..effects import watched
from ..instruments import attached
from ..metrics.metrics import Metrics
from ..metrics.process_meter import ProcessMeter
from ..pacing.throttles import Throttle, stage_seconds
from ..partition import WHOLE, ShardCoordinator
from ..server.plans import plans_of
from ..server.statistics import server_watch
from ..specs.run import RunSpec, VerdictSpec
from ..workload import Mix, Workload
from .calls import import_what_is_called
from .phase import OnProgress, Phase
from .preparation import prepared
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
    stop = stop or Stop()
    stop.heeded = True
    run = _Run(workload, spec, stop, lead)
    _check(workload, run.mix, sessions, spec.verdict, spec.throttle)
    result = None
    under_way.enter("set-up")
    try:
        async with AsyncExitStack() as stack:
            await run.set_up(stack, sessions, read_sessions or sessions, clock)
            result = finished = await run.measured(on_progress)
            under_way.enter("tear-down", lambda _outcome, _where: finished)
    except TeardownError as error:
        error.result = result
        raise
    return result


class _Run:
    """A run between its set-up and its result."""

    def __init__(
        self, workload: Workload, spec: RunSpec, stop: Stop, lead: ShardCoordinator | None
    ) -> None:
        self._workload = workload
        self._spec = spec
        self._stop = stop
        self._lead = lead
        sampling = spec.sampling
        mix = workload.mix(seed=sampling.seed, write_ratio=sampling.write_ratio)
        part = lead.part if lead is not None else WHOLE
        self.mix = replace(mix, claims=Claims(part.number, part.parts))

    async def set_up(
        self,
        stack: AsyncExitStack,
        sessions: Sessions | None,
        read_sessions: Sessions | None,
        clock: Clock,
    ) -> None:
        """Set the workload up, then what watches it; `stack` takes both down again."""
        spec, wanted = self._spec, self._spec.instruments
        import_what_is_called()
        self._afterwards = stack.enter_context(ExitStack())
        stack.enter_context(watched(raw_drivers=spec.load.max_tries > 1))
        stack.enter_context(unawaited_noted())
        shared = await stack.enter_async_context(self._prepared(sessions))
        self._instruments = attached(
            sessions,
            stack,
            time_split=wanted.time_split and any(o.isolated for o in self.mix.operations),
            n_plus_one=wanted.n_plus_one,
            keep_stacks=wanted.profile is not None,
            slow_statements=wanted.explain_slowest > 0,
        )
        self._engine = engine_of(sessions)
        self._server = await stack.enter_async_context(
            server_watch(self._engine, self._instruments.pool, wanted=wanted.server_side)
        )
        self.phase = Phase(
            self._workload.name,
            self.mix,
            spec,
            shared=shared,
            sessions=sessions,
            read_sessions=read_sessions,
            instruments=self._instruments,
            stop=self._stop,
            clock=clock,
        )

    def _prepared(self, sessions: Sessions | None) -> AbstractAsyncContextManager[Any]:
        """Return what the workload's set-up is entered by; a part has its lead's."""
        if self._lead is not None:
            return nullcontext(self._lead.shared)
        timeouts = self._spec.timeouts
        return prepared(
            self._workload,
            sessions=sessions,
            seed=self._spec.sampling.seed,
            stop=self._stop,
            patience=timeouts.op_timeout + timeouts.grace,
        )

    async def measured(self, on_progress: OnProgress | None) -> RunResult:
        """Warm up, perform all, and return what was found."""
        phase, load = self.phase, self._spec.load
        under_way.enter("running", phase.so_far)
        warm_up, meter = None, ProcessMeter()
        if load.warmup is not None:
            part = self._lead.part if self._lead is not None else WHOLE
            metrics, seconds = await phase.perform_all(load.warmup, part.warm_up_numbers())
            meter = ProcessMeter()
        if phase.outcome == "done":  # else what the warm-up met is all there is to tell
            if load.warmup is not None:
                warm_up = metrics.warm_up(seconds)
            metrics, seconds, meter = await self._perform(on_progress)
        if phase.outcome == "aborted":  # who has not answered the run may hang a tear-down
            hurry = asyncio.get_running_loop().call_later(
                self._spec.timeouts.grace, self._stop.at_once.set
            )
            self._afterwards.callback(hurry.cancel)
        interrupted = phase.outcome == "done" and self._stop.requested.is_set()
        result = metrics.result(
            outcome="interrupted" if interrupted else phase.outcome,
            mode=self._spec.throttle.mode,
            workload=self._workload.name,
            seconds=seconds,
            planned=load.limit.ops,
            pool=self._instruments.pool,
            process=meter.result(metrics.loop_lag),
        )
        if (by := phase.ended_by) is not None:
            result = result.ended_early(by)
        result = replace(
            result,
            stopped_by=self._stop.by if interrupted else None,
            stages=stage_seconds(self._spec.throttle),
            plans=await self._plans(),
            server_side=await self._server.end(),
            loop_profile=self._instruments.profile(),
            leaks=self._instruments.leaks(),
            unseen=(*self._instruments.unseen(), *self._without_plans()),
            warm_up=warm_up,
        )
        if (file := self._spec.instruments.profile) is not None:
            self._instruments.write_profile(file, self._workload.name)
        return result

    def _without_plans(self) -> tuple[str, ...]:
        """Return why there are no plans, where they are wanted and cannot be had."""
        if not self._spec.instruments.explain_slowest:
            return ()
        if self._engine is None:
            return ("No plans: the run has no engine of SQLAlchemy's to ask.",)
        if (name := self._engine.dialect.name) != "postgresql":
            return (f"No plans: they are PostgreSQL's, and this is {name}.",)
        return ()

    async def _plans(self) -> tuple[StatementPlan, ...] | None:
        """Return the plans of the slowest statements, where they are wanted and can be had."""
        wanted, slow = self._spec.instruments, self._instruments.slow
        if slow is None or self._stop.requested.is_set() or self._without_plans():
            return None
        assert self._engine is not None
        slowest = slow.slowest(wanted.explain_slowest)
        return await plans_of(self._engine, slowest, parameters=wanted.explain_parameters)

    async def _perform(self, on_progress: OnProgress | None) -> tuple[Metrics, float, ProcessMeter]:
        """Perform what is counted; a part begins when all do, and tells its lead of itself."""
        lead = self._lead
        await self._server.begin()
        self._instruments.begin()
        if lead is not None:
            await lead.begin()
        meter = self.phase.meter = ProcessMeter()
        metrics, seconds = await self.phase.perform_all(
            self._spec.load.limit,
            WHOLE.numbers() if lead is None else lead.numbers(),
            judged=True,
            on_progress=on_progress,
            on_look=None if lead is None else lead.look,
        )
        return metrics, seconds, meter


def _check(
    workload: Workload,
    mix: Mix,
    sessions: Sessions | None,
    verdict: VerdictSpec,
    throttle: Throttle,
) -> None:
    """Raise `ConfigurationError` for what could only go wrong."""
    tags = {operation.name: operation.tags for operation in mix.operations}
    check_names(verdict.thresholds, tags, len(stage_seconds(throttle) or ()))
    if sessions is None and any("session" in o.wants for o in mix.operations):
        raise ConfigurationError(f"workload {workload.name!r} needs `sessions`")
    if sessions is not None and (why := why_unusable(sessions)) is not None:
        raise ConfigurationError(f"`sessions` {why}")
