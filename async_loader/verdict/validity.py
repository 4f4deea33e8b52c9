"""
Is the measurement good? What in a run was the generator's own doing, with its figures.

The latencies of a run are the database's and the application's as long as this process was
quick to start what was due and to notice what had ended. Where it was not, they are its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..histogram import Histogram
from ..results.run import RunResult
from ..results.shards import ShardResult
from .diagnosis import BUSY, SHORTEST, starvation
from .thresholds import parse, percentile_in, samples_of

# A lag is a distortion when it is this share of the latencies at the same percentile, and
# longer than a loop's timers are late for by themselves.
_DISTORTING = 0.2
_TIMER_MS = 2.0
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
        for look in (_too_short, _lost, *_OF_A_PROCESS, _dropped, _few_samples)
        for doubt in look(result)
    )


def _too_short(result: RunResult) -> Iterator[Doubt]:
    if result.seconds < SHORTEST:
        yield Doubt(
            f"only {result.seconds:.2f} s long",
            f"The run took {result.seconds:.2f} s: that is mostly its own beginning and end.",
        )


def _lost(result: RunResult) -> Iterator[Doubt]:
    lost = [shard for shard in result.shards if shard.lost]
    if lost:
        of = f"{len(lost)} of {len(result.shards)} processes"
        yield Doubt(
            f"{of} lost",
            f"{lost[0].name} {lost[0].lost}: the load was not the one that was asked for, and of "
            f"{of} there are the last snapshots.",
        )


def _busy_loop(result: RunResult) -> Iterator[Doubt]:
    """A busy process delays operations for each other; one alone has nobody to wait for."""
    busy, who = _worst(result, result.process.loop_busy, lambda shard: shard.loop_busy)
    alone = result.mode == "sync" or _one_at_a_time(result)
    machine = starvation(result)
    if machine is not None:
        waited = machine.waited if machine.waited is not None else 1 - machine.ran
        yield Doubt(
            f"waited for a core {waited:.0%} of the time",
            f"This process waited for a core for {waited:.0%} of the time: other processes had "
            "it, and the latencies contain that wait.",
            is_bottleneck=result.seconds >= SHORTEST,
        )
    elif busy > BUSY and not (alone and result.schedule is None):
        yield Doubt(
            f"{who} {busy:.0%} busy",
            f"{who[0].upper()}{who[1:]} was {busy:.0%} busy: operations waited for it, and their "
            "latencies contain that wait.",
            is_bottleneck=result.seconds >= SHORTEST,
        )


def _loop_lag(result: RunResult) -> Iterator[Doubt]:
    lag, who = _worst(result, _p99_ms(result.process.loop_lag), lambda shard: shard.loop_lag_ms)
    of = f" of {who}" if result.shards else ""
    if not _one_at_a_time(result) and _distorts(result, lag):
        yield Doubt(
            f"event loop lag{of} p99 {lag:.1f} ms",
            f"The event loop{of} was {lag:.1f} ms late at p99, a large part of the latencies.",
            is_bottleneck=result.process.loop_busy > BUSY,
        )


def _late_starts(result: RunResult) -> Iterator[Doubt]:
    whole = _p99_ms(result.schedule.lag) if result.schedule else 0.0
    lag, who = _worst(result, whole, lambda shard: shard.schedule_lag_ms or 0.0)
    if _distorts(result, lag):
        yield Doubt(
            f"starts {lag:.1f} ms late at p99",
            f"Operations began {lag:.1f} ms after they were due at p99: {who} "
            "did not keep up with its schedule.",
        )


# What one of several processes can spoil, however good the others are.
_OF_A_PROCESS = (_busy_loop, _loop_lag, _late_starts)


def _worst(
    result: RunResult, whole: float, of_one: Callable[[ShardResult], float]
) -> tuple[float, str]:
    """Return the highest figure of a process, and which one it is."""
    if not result.shards:
        return whole, "this process"
    worst = max(result.shards, key=of_one)
    return of_one(worst), worst.name


def _one_at_a_time(result: RunResult) -> bool:
    return result.settings.get("concurrency") == max(len(result.shards), 1)


def _p99_ms(histogram: Histogram) -> float:
    return histogram.percentiles_ns([99.0])[99.0] / 1e6


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


def _distorts(result: RunResult, lag_ms: float) -> bool:
    return lag_ms > _TIMER_MS and lag_ms > _DISTORTING * _p99_ms(result.latency())
