"""
Is the measurement good? What in a run was the generator's own doing, with its figures.

The latencies of a run are the database's and the application's as long as this process was
quick to start what was due and to notice what had ended. Where it was not, they are its own.
Each doubt says in which direction it bends the figures: the verdict goes by that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ..results.histogram import Histogram
from ..results.run import RunResult
from ..results.shards import ShardResult
from .diagnosis import BUSY, SHORTEST, starvation
from .figures import durations_of, percentile_in, samples_of
from .hidden import hidden_of
from .thresholds import Threshold, parse

# A lag is a distortion when it is this share of the latencies at the same percentile, and
# longer than a loop's timers are late for by themselves.
_DISTORTING = 0.2
_TIMER_MS = 2.0
# Samples that have to lie beyond a percentile for it to be one.
_LEAST_BEYOND = 10
# A share of dropped arrivals beyond which the load was not the one that was asked for.
_MOST_DROPPED = 0.01

Bias = Literal["inflates", "starves", "short", "hides", "loses", "few"]
"""
What a doubt does to the figures.

inflates: this process was slow, latencies are at most what they seem. starves: it was kept from
its core; throughput is at least what it seems, too. short: throughput is mostly beginning and
end. hides: counted work is missing, at its worst over every bound. loses: nobody knows how much
is. few: a percentile rests on too few samples.
"""


@dataclass(frozen=True, slots=True)
class Doubt:
    """
    Why a run's figures are not what they seem: in a few words, and in a sentence.

    `is_bottleneck`: `diagnosis.bottleneck` says the same.
    """

    about: str
    sentence: str
    bias: Bias
    is_bottleneck: bool = False


def doubts(result: RunResult) -> tuple[Doubt, ...]:
    """Return what speaks against the measurement; nothing where it is good."""
    looks = (_too_short, _lost, *_OF_A_PROCESS, _dropped, _stalled, _few_samples)
    return tuple(doubt for look in looks for doubt in look(result))


def is_at_full_speed(result: RunResult) -> bool:
    """Whether the run went as fast as this process could: its throughput is what it tells."""
    biases = {doubt.bias for doubt in doubts(result)}
    return result.schedule is None and "inflates" in biases and "starves" not in biases


def measurement_text(result: RunResult) -> str:
    """Return how good the measurement is, and what of it."""
    found = doubts(result)
    if not found:
        return "good"
    about = ", ".join(doubt.about for doubt in found)
    if is_at_full_speed(result) and all(doubt.bias == "inflates" for doubt in found):
        return f"good for throughput; latencies hold our own queue: {about}"
    return f"not good: {about}"


def _too_short(result: RunResult) -> Iterator[Doubt]:
    if result.seconds < SHORTEST:
        yield Doubt(
            f"only {result.seconds:.2f} s long",
            f"The run took {result.seconds:.2f} s: that is mostly its own beginning and end.",
            "short",
        )


def _lost(result: RunResult) -> Iterator[Doubt]:
    lost = [shard for shard in result.shards if shard.lost]
    if lost:
        of = f"{len(lost)} of {len(result.shards)} processes"
        yield Doubt(
            f"{of} lost",
            f"{lost[0].name} {lost[0].lost}: the load was not the one that was asked for, and of "
            f"{of} there are the last snapshots.",
            "loses",
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
            "starves",
            is_bottleneck=result.seconds >= SHORTEST,
        )
    elif busy > BUSY and not (alone and result.schedule is None):
        yield Doubt(
            f"{who} {busy:.0%} busy",
            f"{who[0].upper()}{who[1:]} was {busy:.0%} busy: operations waited for it, and their "
            "latencies contain that wait.",
            "inflates",
            is_bottleneck=result.seconds >= SHORTEST,
        )


def _loop_lag(result: RunResult) -> Iterator[Doubt]:
    lag, who = _worst(result, _p99_ms(result.process.loop_lag), lambda shard: shard.loop_lag_ms)
    of = f" of {who}" if result.shards else ""
    if not _one_at_a_time(result) and _distorts(result, lag):
        yield Doubt(
            f"event loop lag{of} p99 {lag:.1f} ms",
            f"The event loop{of} was {lag:.1f} ms late at p99, a large part of the latencies.",
            "inflates",
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
            "inflates",
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
            "hides",
        )


def _stalled(result: RunResult) -> Iterator[Doubt]:
    hidden = hidden_of(result)
    if hidden.missing:
        yield Doubt(
            f"stood still for {hidden.stalled:.1f} s",
            f"No operation ended for {hidden.stalled:.1f} s in all: some {hidden.missing:,} that "
            "users would have begun meanwhile are in no percentile (`rate` begins them).",
            "hides",
        )


def _few_samples(result: RunResult) -> Iterator[Doubt]:
    """Return the thresholds whose percentile lies among the last few samples."""
    for text in result.settings.get("threshold", []):
        if (doubt := few_samples(result, parse(text))) is not None:
            yield doubt


def few_samples(result: RunResult, threshold: Threshold) -> Doubt | None:
    """
    Return that a percentile rests on too few samples, None where there are enough or none.

    Ten are to lie beyond it. Half as many show a breach, where ten samples are over the bound.
    """
    percentile = percentile_in(threshold.aggregate)
    samples = samples_of(result, threshold)
    if percentile is None or percentile == 100 or not samples:
        return None
    needed = math.ceil(round(_LEAST_BEYOND * 100 / (100 - percentile), 6))
    if samples >= needed:
        return None
    durations = durations_of(result, threshold)
    assert durations is not None
    if threshold.is_upper and 2 * samples >= needed and threshold.when.is_always:
        tenth = 100 * (1 - _LEAST_BEYOND / samples) if samples > _LEAST_BEYOND else 0.0
        if tenth and not threshold.holds(durations.percentiles_ns([tenth])[tenth] / 1e6):
            return None
    return Doubt(
        f"p({percentile:g}) of {samples:,} samples",
        f"{threshold.text} rests on {samples:,} samples: p({percentile:g}) needs {needed:,}.",
        "few",
    )


def _distorts(result: RunResult, lag_ms: float) -> bool:
    return lag_ms > _TIMER_MS and lag_ms > _DISTORTING * _p99_ms(result.latency())
