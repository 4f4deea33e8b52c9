"""When arrivals are due: against the integral that they are to invert, and its own statistics."""

from __future__ import annotations

import math
import random
import statistics
from itertools import islice, pairwise, takewhile

import pytest

from async_loader.load.pacing.schedules import Arrivals, Profile, Stage, arrival_times


def random_profile(rng: random.Random) -> Profile:
    stages = tuple(
        Stage(rng.choice([0.0, rng.uniform(0.1, 9)]), rng.choice([0.0, rng.uniform(1, 500)]))
        for _ in range(rng.randrange(1, 7))
    )
    return Profile(rng.choice([0.0, rng.uniform(1, 500)]), stages)


def area(profile: Profile, seconds: float) -> float:
    """Return the integral of the level, added up in thin strips between the stages' ends."""
    ends = [0.0]
    for stage in profile.stages:
        ends.append(ends[-1] + stage.seconds)
    cuts = sorted({*(e for e in ends if e < seconds), seconds})
    total = 0.0
    for left, right in pairwise(cuts):
        width = (right - left) / 64
        total += sum(profile.at(left + (k + 0.5) * width) * width for k in range(64))
    return total


@pytest.mark.parametrize("number", range(200))
def test_the_time_of_an_area_inverts_the_area_at_a_time(number: int) -> None:
    rng = random.Random(number)
    profile = random_profile(rng)
    whole = area(profile, profile.seconds)
    for _ in range(20):
        wanted = rng.uniform(0, whole)
        when = profile.when(wanted)
        assert 0 <= when <= profile.seconds * (1 + 1e-12)
        assert area(profile, when) == pytest.approx(wanted, rel=1e-6, abs=1e-6)
    beyond = profile.when(whole + 10)
    last = profile.at(profile.seconds)
    assert beyond == pytest.approx(profile.seconds + 10 / last if last else math.inf)


@pytest.mark.parametrize("number", range(50))
def test_the_level_stays_between_neighbouring_targets(number: int) -> None:
    rng = random.Random(number)
    profile = random_profile(rng)
    level, began = profile.start, 0.0
    for stage in profile.stages:
        low, high = sorted((level, stage.target))
        for part in (0.0, 0.3, 0.9):
            if stage.seconds:
                assert low <= profile.at(began + part * stage.seconds) <= high * (1 + 1e-12)
        level, began = stage.target, began + stage.seconds
    assert profile.at(began + 1000) == level
    assert profile.highest >= profile.at(rng.uniform(0, began + 1))


@pytest.mark.parametrize("arrivals", ["uniform", "poisson"])
@pytest.mark.parametrize("number", range(30))
def test_arrivals_come_in_order_and_shards_divide_them(number: int, arrivals: Arrivals) -> None:
    rng = random.Random(number)
    profile, seed = random_profile(rng), rng.randrange(2**63)
    shards = rng.randrange(1, 6)
    whole = list(islice(arrival_times(profile, arrivals, seed), 600))
    assert whole == sorted(whole)
    for shard in range(shards):
        part = list(islice(arrival_times(profile, arrivals, seed, shard, shards), 600 // shards))
        assert part == whole[shard::shards][: len(part)]


def test_uniform_arrivals_are_evenly_spaced_without_drift() -> None:
    dues = list(islice(arrival_times(Profile(700), "uniform", 0), 700_001))
    assert dues[0] == 0
    assert dues[700_000] == 1000 * 10**9
    assert {b - a for a, b in pairwise(dues[:7000])} <= {1_428_571, 1_428_572}


def test_a_ramp_starts_as_many_as_the_area_below_it() -> None:
    """30 s up to 100/s are 1,500, 60 s at it are 6,000, and the jump to 10/s takes no time."""
    profile = Profile(0, (Stage(30, 100), Stage(60, 100), Stage(0, 10), Stage(10, 10)))
    dues = list(takewhile(lambda due: due < 100e9, arrival_times(profile, "uniform", 0)))
    assert sum(due < 30e9 for due in dues) == 1500
    assert sum(30e9 <= due < 90e9 for due in dues) == 6000
    assert sum(due >= 90e9 for due in dues) == 100


def test_poisson_gaps_are_exponential_and_independent_of_the_rate() -> None:
    """Mean, deviation and the share above the mean, each within four standard errors."""
    n = 200_000
    dues = [d / 1e9 for d in islice(arrival_times(Profile(1000), "poisson", 3), n + 1)]
    gaps = [b - a for a, b in pairwise(dues)]
    assert statistics.fmean(gaps) == pytest.approx(1e-3, rel=4 / math.sqrt(n))
    assert statistics.pstdev(gaps) == pytest.approx(1e-3, rel=4 * math.sqrt(2 / n))
    above = sum(gap > 1e-3 for gap in gaps) / n
    assert above == pytest.approx(math.exp(-1), abs=4 * math.sqrt(0.2325 / n))
    half = [d / 1e9 for d in islice(arrival_times(Profile(500), "poisson", 3), 100)]
    assert half == pytest.approx([2 * due for due in dues[:100]])


def test_another_seed_is_another_schedule() -> None:
    def first(seed: int) -> list[int]:
        return list(islice(arrival_times(Profile(10), "poisson", seed), 50))

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_a_level_that_stays_zero_ends_the_arrivals() -> None:
    profile = Profile(0, (Stage(2, 10), Stage(2, 0)))
    assert len(list(arrival_times(profile, "uniform", 0))) == pytest.approx(20, abs=1)
