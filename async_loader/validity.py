"""
Is the measurement good? What in a run was the generator's own doing, with its figures.

The latencies of a run are the database's and the application's as long as this process was
quick to start what was due and to notice what had ended. Where it was not, they are its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from .diagnosis import BUSY, SHORTEST
from .results import RunResult
from .thresholds import parse, percentile_in, samples_of

# A lag is a distortion when it is this share of the latencies at the same percentile, and
# longer than a loop's timers are late for by themselves.
_DISTORTING = 0.2
_TIMER_NS = 2_000_000
# Samples that have to lie beyond a percentile for it to be one.
_LEAST_BEYOND = 10
# A share of dropped arrivals beyond which the load was not the one that was asked for.
_MOST_DROPPED = 0.01


@dataclass(frozen=True, slots=True)
class Doubt:
    """
    Why a run's latencies are not what they seem: in a few words, and in a sentence.

    `is_bottleneck`: `diagnosis.bottleneck` says the same.
    """

    about: str
    sentence: str
    is_bottleneck: bool = False


def doubts(result: RunResult) -> tuple[Doubt, ...]:
    """Return what speaks against the measurement; nothing where it is good."""
    return tuple(
        doubt
        for look in (_too_short, _busy_loop, _loop_lag, _late_starts, _dropped, _few_samples)
        for doubt in look(result)
    )


def _too_short(result: RunResult) -> Iterator[Doubt]:
    if result.seconds < SHORTEST:
        yield Doubt(
            f"only {result.seconds:.2f} s long",
            f"The run took {result.seconds:.2f} s: that is mostly its own beginning and end.",
        )


def _busy_loop(result: RunResult) -> Iterator[Doubt]:
    """A busy process delays operations for each other; one alone has nobody to wait for."""
    busy = result.process.loop_busy
    alone = result.mode == "sync" or result.settings.get("concurrency") == 1
    if busy > BUSY and not (alone and result.schedule is None):
        yield Doubt(
            f"this process {busy:.0%} busy",
            f"This process was {busy:.0%} busy: operations waited for it, and their latencies "
            "contain that wait.",
            is_bottleneck=result.seconds >= SHORTEST,
        )


def _loop_lag(result: RunResult) -> Iterator[Doubt]:
    lag_ns = result.process.loop_lag.percentiles_ns([99.0])[99.0]
    if result.settings.get("concurrency") != 1 and _distorts(result, lag_ns):
        yield Doubt(
            f"event loop lag p99 {lag_ns / 1e6:.1f} ms",
            f"The event loop was {lag_ns / 1e6:.1f} ms late at p99, a large part of the latencies.",
            is_bottleneck=result.process.loop_busy > BUSY,
        )


def _late_starts(result: RunResult) -> Iterator[Doubt]:
    lag_ns = result.schedule.lag.percentiles_ns([99.0])[99.0] if result.schedule else 0
    if _distorts(result, lag_ns):
        yield Doubt(
            f"starts {lag_ns / 1e6:.1f} ms late at p99",
            f"Operations began {lag_ns / 1e6:.1f} ms after they were due at p99: this process "
            "did not keep up with its schedule.",
        )


def _dropped(result: RunResult) -> Iterator[Doubt]:
    schedule = result.schedule
    if schedule is not None and schedule.drop_rate > _MOST_DROPPED:
        yield Doubt(
            f"{schedule.drop_rate:.1%} of the arrivals dropped",
            f"{schedule.dropped:,} of {schedule.due:,} arrivals could not start: the load was not "
            "the one that was asked for, and the slowest operations are missing.",
        )


def _few_samples(result: RunResult) -> Iterator[Doubt]:
    """Return the thresholds whose percentile lies among the last few samples."""
    for text in result.settings.get("threshold", []):
        threshold = parse(text)
        percentile, samples = percentile_in(threshold.aggregate), samples_of(result, threshold)
        if percentile is None or samples is None or percentile == 100:
            continue
        needed = math.ceil(round(_LEAST_BEYOND * 100 / (100 - percentile), 6))
        if samples < needed:
            yield Doubt(
                f"p({percentile:g}) of {samples:,} samples",
                f"{text} rests on {samples:,} samples: p({percentile:g}) needs {needed:,}.",
            )


def _distorts(result: RunResult, lag_ns: int) -> bool:
    if lag_ns <= _TIMER_NS:
        return False
    return lag_ns > _DISTORTING * result.latency().percentiles_ns([99.0])[99.0]
