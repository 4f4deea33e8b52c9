"""
The work of a run that is in no percentile, counted at its worst.

    lost      was dropped, abandoned, or died with its process: took as long as one may take
    missing   a closed model over a stall: users would have begun it, and nobody did; it would
              have taken as long as the longest that was under way then
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..results.parts import OperationResult
from ..results.run import RunResult
from .figures import (
    TRENDS,
    Figure,
    durations_of,
    figure_of,
    names_of,
    operations_of,
    percentile_in,
)

# No operation ended for so many medians, and half a second (which is what a run notes).
_MEDIANS = 10
# Faults of operations whose end nobody saw.
_UNSEEN = ("abandoned", "worker lost", "blocked the event loop")


@dataclass(frozen=True, slots=True)
class Hidden:
    """How many operations are in no percentile, and for how many seconds the run stood still."""

    lost: int = 0
    missing: int = 0
    stalled: float = 0.0


_ALL = Figure("", "ops", None, "count")


def hidden_of(result: RunResult, figure: Figure = _ALL) -> Hidden:
    """Return what is hidden of a run, or of the operations that a figure is about."""
    operations = operations_of(result, figure)
    lost = sum(o.dropped for o in operations) + _unseen(result, names_of(result, figure))
    missing, stalled = _missing(result)
    if missing and len(operations) < len(result.by_operation):
        missing = round(missing * _share(result, operations))
    return Hidden(lost, missing, stalled)


def at_worst(result: RunResult, figure: Figure) -> float | None:
    """Return a figure with what is hidden counted at its worst, None where there is no figure."""
    found = figure_of(result, figure)
    hidden = hidden_of(result, figure)
    if found is None or not (hidden.lost or hidden.missing):
        return found
    if not figure.when.is_always and figure.metric in ("op_duration", "errors"):
        return math.inf  # nobody knows when those were
    if figure.metric == "errors":
        return _errors_at_worst(result, figure, found)
    if figure.metric in TRENDS and figure.aggregate not in ("count", "min"):
        return _duration_at_worst(result, figure, hidden)
    return found


def _unseen(result: RunResult, names: Iterable[str]) -> int:
    unseen = [e for name, e in result.errors.items() if (e.kind or name) in _UNSEEN]
    return sum(error.by_operation.get(name, 0) for error in unseen for name in names)


def _missing(result: RunResult) -> tuple[int, float]:
    """Return how many a closed model did not begin over its stalls, and the seconds of these."""
    if result.schedule is not None or not result.stalls or not result.completed:
        return 0, 0.0
    latency = result.latency()
    median = latency.percentiles_ns([50.0])[50.0] / 1e9
    stalls = [seconds for seconds in result.stalls if seconds > _MEDIANS * median]
    processes = max(len(result.shards), 1)
    stalled = sum(stalls) / processes
    users = int(result.settings.get("concurrency", 1))
    flowing = max(result.seconds - stalled, median)
    # No more than so many users can do, however short the rest of the run was.
    rate = min(result.completed / flowing, users / max(median, 1e-9)) / processes
    missing = sum(max(rate * seconds - users / processes, 0.0) for seconds in stalls)
    return round(missing), stalled


def _share(result: RunResult, operations: Iterable[OperationResult]) -> float:
    return sum(o.count for o in operations) / result.completed if result.completed else 0.0


def _errors_at_worst(result: RunResult, figure: Figure, found: float) -> float:
    """Return the errors if what was dropped had failed; what was abandoned has."""
    operations = operations_of(result, figure)
    dropped = sum(o.dropped for o in operations)
    if figure.aggregate == "count":
        return found + dropped
    bad = dropped + sum(o.failed + o.indeterminate for o in operations)
    return bad / sum(o.due for o in operations)


def _duration_at_worst(result: RunResult, figure: Figure, hidden: Hidden) -> float | None:
    """Return a duration in milliseconds, of those that are known and of those that are not."""
    durations = durations_of(result, figure)
    if durations is None or not durations.count:
        return None
    known, longest = durations.count, durations.max_ns / 1e6
    timeout = result.settings.get("op_timeout")
    worst = math.inf if timeout is None else max(float(timeout) * 1e3, longest)
    total = known + hidden.missing + hidden.lost
    if figure.aggregate == "avg":
        parts = (known, durations.mean_ns / 1e6), (hidden.missing, longest), (hidden.lost, worst)
        return sum(count * ms for count, ms in parts if count) / total
    percentile = 100.0 if figure.aggregate == "max" else percentile_in(figure.aggregate)
    assert percentile is not None
    rank = percentile / 100 * total
    if rank > known + hidden.missing:
        return worst
    if rank > known:
        return longest
    place = 100 * rank / known
    return durations.percentiles_ns([place])[place] / 1e6
