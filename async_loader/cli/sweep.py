"""The same workload at a load that is raised in steps, each run in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from math import sqrt

from ..database.embedded import embedded_server
from ..database.urls import parse_url
from ..results.run import RunResult
from ..settings.run import RunSettings
from ..settings.sweep import SweepSettings
from ..verdict.knee import advise, fault, is_past, level_of
from .child import Stopped, run_in_child

Say = Callable[[str], object]

# Rates between the last that was kept up with and the first that was not.
_REFINEMENTS = 2


def sweep(settings: SweepSettings, say: Say) -> Iterator[RunResult]:
    """
    Yield each step's result as it ends, until the load is past the knee.

    Where the steps are ours, a rate is then looked at more closely between the last that was
    kept up with and the first that was not. A stop ends the sweep after the run it met.
    """
    if settings.database_url is not None:
        parse_url(settings.database_url.get_secret_value())
    with ExitStack() as stack:
        if settings.database_url is None:
            # Held over all steps: each joins the running server instead of starting one.
            stack.enter_context(embedded_server(settings.server_directory))
        done: list[RunResult] = []
        levels = iter(settings.levels)
        while (level := _next(done, levels, settings)) is not None:
            say(f"step {len(done) + 1}: {settings.by} {level}")
            try:
                done.append(run_in_child(run_settings(settings, level), settings.progress))
            except Stopped:
                return
            yield done[-1]
            if done[-1].outcome in ("interrupted", "aborted", "lost", "hung"):
                return


def _next(done: Sequence[RunResult], levels: Iterator[str], settings: SweepSettings) -> str | None:
    """Return the next level to try: up, or once past the knee in between."""
    limit = settings.latency_limit
    overloaded = next((n for n, step in enumerate(done) if fault(step, limit)), None)
    if settings.by == "concurrency" or overloaded is None:
        past = bool(done) and is_past(done, limit)
        return None if past else next(levels, None)
    if settings.steps or len(done) - overloaded > _REFINEMENTS or advise(done, limit) is None:
        return None
    good = max(level_of(step) for step in done if fault(step, limit) is None)
    bad = min(level_of(step) for step in done if fault(step, limit))
    return f"{sqrt(good * bad):.0f}/s"


def run_settings(settings: SweepSettings, level: str) -> RunSettings:
    """Return the settings of one step."""
    shared = {
        name: getattr(settings, name)
        for name in RunSettings.model_fields
        if name in SweepSettings.model_fields and name not in ("out", "html", "junit", "config")
    }
    limit, warmup = settings.limit, settings.warm_up
    shared |= {"ops": limit.ops, "duration": limit.duration, "warmup": warmup}
    if settings.by == "rate":
        return RunSettings(**shared, rate=level)
    if isinstance(settings.processes, int):  # a low step has no work for all of them
        shared["processes"] = min(settings.processes, int(level))
    return RunSettings(**shared | {"concurrency": int(level)})
