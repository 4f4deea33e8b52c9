"""
Where more load stops being more throughput: the knee of a sweep, and what to run with.

Each step of a sweep is a `RunResult` at its own concurrency or rate of arrivals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from ..concurrency.rates import parse_rate
from ..results.annotations import Count, Milliseconds, PerSecondRate
from ..results.notes import Rounded
from ..results.part import Part
from ..results.run import RunResult
from .validity import Doubt, doubts, is_at_full_speed

By = Literal["concurrency", "rate"]

# More throughput than this share of the best is not worth a longer queue.
_ENOUGH = 0.95
# An open run that ends fewer operations a second than this share of those due is overloaded.
_SUSTAINED = 0.9
# And for longer than the last operation of a short run may take by itself, in seconds.
_LEAST_TAIL = 0.5
_MOST_FAILED = _MOST_DROPPED = 0.01
# Of the throughput at full speed: an event loop that is so busy adds little of its own.
_CALM = 0.7


@dataclass(frozen=True, slots=True)
class Advice(Part):
    """The step of a sweep to run at."""

    by: By
    step: Annotated[Count, Meta(description="its place in the runs")]
    level: Annotated[float, Meta(gt=0, description="concurrency, or arrivals a second")]
    pool_size: Annotated[Count, Meta(description="the most connections that it used")]
    throughput: PerSecondRate
    p95_ms: Annotated[Milliseconds, Rounded(6)]


def advise(steps: Sequence[RunResult], latency_limit: float | None = None) -> Advice | None:
    """
    Return the step to run at, of those that are good.

    By concurrency the knee, the lowest with nearly the most throughput: its throughput is what
    a closed run measures. By rate the highest, as its latencies are valid.
    None where no step is good: an operation failed (by rate: too many failed or were dropped,
    the arrivals were not kept up with, the latencies are not valid), or p95 is over
    `latency_limit` (seconds).
    """
    good = [n for n, step in enumerate(steps) if fault(step, latency_limit) is None]
    if not good:
        return None
    good.sort(key=lambda n: level_of(steps[n]))
    enough = _ENOUGH * max(steps[n].throughput for n in good)
    knee = next(n for n in good if steps[n].throughput >= enough)
    if by_of(steps[knee]) == "rate":
        knee = good[-1]
    found = steps[knee]
    return Advice(
        by=by_of(found),
        step=knee,
        level=level_of(found),
        pool_size=found.pool.peak_in_use if found.pool else 0,
        throughput=found.throughput,
        p95_ms=p95_ms(found),
    )


def is_past(steps: Sequence[RunResult], latency_limit: float | None = None) -> bool:
    """Return whether the last steps show that more load brings nothing any more."""
    if fault(steps[-1], latency_limit) is not None:
        return True
    if by_of(steps[-1]) == "rate" or len(steps) < 3:
        return False
    before = max(step.throughput for step in steps[:-2])
    return all(step.throughput * _ENOUGH < before for step in steps[-2:])


def fault(step: RunResult, latency_limit: float | None) -> str | None:
    """Return why a step is nothing to run at, None where it is good."""
    if (ended := _ENDINGS.get(step.outcome)) is not None:
        return ended
    most = _MOST_FAILED if by_of(step) == "rate" else 0.0
    if step.error_rate > most or not step.completed:
        return f"{step.error_rate:.1%} failed"
    if step.schedule is not None and step.schedule.drop_rate > _MOST_DROPPED:
        return f"{step.schedule.drop_rate:.1%} dropped"
    if _fell_behind(step):
        return "not kept up with"
    if latency_limit is not None and p95_ms(step) > latency_limit * 1e3:
        return "over the limit"
    return "latencies not valid" if invalid_latencies(step) is not None else None


# What of a step that did not come to its end by itself: its figures are of a part of it.
_ENDINGS = {
    "aborted": "gave up",
    "failed": "ended by a threshold",
    "hung": "did not end by itself",
    "lost": "lost a process",
}


def invalid_latencies(step: RunResult) -> Doubt | None:
    """Return why the latencies of a step of a rate are our own; None where they are not."""
    if by_of(step) != "rate":
        return None  # a closed run measures throughput
    return next((doubt for doubt in doubts(step) if doubt.bias in ("inflates", "starves")), None)


def is_undecided(steps: Sequence[RunResult], latency_limit: float | None = None) -> bool:
    """Return whether no step is good, and nobody can tell whether the lowest would have been."""
    lowest = min(steps, key=level_of)
    of_latencies = fault(lowest, latency_limit) in ("over the limit", "latencies not valid")
    return of_latencies and invalid_latencies(lowest) is not None


def rate_below(result: RunResult) -> str | None:
    """
    Return the rate at which latencies can be measured, after a closed run at full speed.

    As `--rate` takes it; None after a run that tells none: one that went through stages, failed,
    or had a core for a part of its time.
    """
    biases = {doubt.bias for doubt in doubts(result)}
    told = result.outcome == "done" and result.error_rate <= _MOST_FAILED and result.completed
    if not told or result.mode not in _CLOSED or not is_at_full_speed(result):
        return None
    if biases != {"inflates"}:
        return None
    return rate_text(_CALM * result.throughput)


def rate_text(rate: float) -> str:
    """Return so many arrivals a second as `--rate` takes them, in digits that matter."""
    if rate >= 10:
        return f"{rate:.0f}/s"
    return f"{rate:.2f}/s" if rate >= 0.1 else f"{rate * 3600:.2f}/h"


_CLOSED = ("semaphore", "chunks", "unbounded")


def by_of(step: RunResult) -> By:
    """Return what a step is a step of."""
    return "rate" if step.mode == "open" else "concurrency"


def level_of(step: RunResult) -> float:
    """Return a step's concurrency, or its arrivals a second."""
    if by_of(step) == "rate":
        return parse_rate(step.settings["rate"])
    return float(step.settings["concurrency"])


def p95_ms(step: RunResult) -> float:
    """Return the p95 of all operations together."""
    return step.latency().percentiles_ns([95.0])[95.0] / 1e6


def _fell_behind(step: RunResult) -> bool:
    """Return whether an open run was long after its arrivals with their operations."""
    duration = step.settings.get("duration")
    if step.schedule is None or not duration:
        return False
    offered = step.schedule.due / float(duration)
    tail = step.seconds - float(duration)
    return step.throughput < _SUSTAINED * offered and tail > _LEAST_TAIL
