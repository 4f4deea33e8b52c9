"""
Where more load stops being more throughput: the knee of a sweep, and what to run with.

Each step of a sweep is a `RunResult` at its own concurrency or rate of arrivals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..results.run import RunResult
from ..schedules import parse_rate

By = Literal["concurrency", "rate"]

# More throughput than this share of the best is not worth a longer queue.
_ENOUGH = 0.95
# An open run that ends fewer operations a second than this share of those due is overloaded.
_SUSTAINED = 0.9
_MOST_FAILED = _MOST_DROPPED = 0.01


@dataclass(frozen=True, slots=True)
class Advice:
    """
    The step to run at, by its place in the sweep, and the most connections that it used.

    `level` is a concurrency, or arrivals a second.
    """

    by: By
    step: int
    level: float
    pool_size: int
    throughput: float
    p95_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "by": self.by,
            "step": self.step,
            "level": self.level,
            "pool_size": self.pool_size,
            "throughput": round(self.throughput, 3),
            "p95_ms": round(self.p95_ms, 6),
        }


def advise(steps: Sequence[RunResult], latency_limit: float | None = None) -> Advice | None:
    """
    Return the knee: the lowest step with nearly the most throughput of those that are good.

    None where no step is good: too many operations failed or were dropped, the arrivals were
    not kept up with, or p95 is over `latency_limit` (seconds).
    """
    good = [n for n, step in enumerate(steps) if fault(step, latency_limit) is None]
    if not good:
        return None
    enough = _ENOUGH * max(steps[n].throughput for n in good)
    knee = next(n for n in sorted(good, key=lambda n: level_of(steps[n])) if
                steps[n].throughput >= enough)  # fmt: skip
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
    if step.error_rate > _MOST_FAILED or not step.completed:
        return f"{step.error_rate:.1%} failed"
    if step.schedule is not None and step.schedule.drop_rate > _MOST_DROPPED:
        return f"{step.schedule.drop_rate:.1%} dropped"
    if step.throughput < _SUSTAINED * _offered(step):
        return "not kept up with"
    if latency_limit is not None and p95_ms(step) > latency_limit * 1e3:
        return "over the limit"
    return None


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


def _offered(step: RunResult) -> float:
    """Return the arrivals a second that came due; 0 in a closed model."""
    duration = step.settings.get("duration")
    if step.schedule is None or not duration:
        return 0.0
    return step.schedule.due / float(duration)
