from __future__ import annotations

import random
from collections import Counter

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from async_loader import ConfigurationError, OperationContext, Workload
from async_loader.load.workload import Mix


def shop() -> Workload:
    workload = Workload("shop")

    @workload.operation("buy", weight=1, kind="write")
    async def buy(session: AsyncSession, op: OperationContext) -> None: ...

    @workload.operation("look", weight=2, kind="read")
    async def look(session: AsyncSession) -> None: ...

    @workload.operation("search", weight=1, kind="read")
    async def search() -> None: ...

    return workload


def stream(mix: Mix, indexes: range) -> list[str]:
    return [mix.choose(i).name for i in indexes]


def test_an_operation_depends_on_seed_and_index_alone() -> None:
    mix = shop().mix(seed=7)
    whole = stream(mix, range(1000))
    shards = [stream(shop().mix(seed=7), range(k, 1000, 4)) for k in range(4)]
    assert [shards[i % 4][i // 4] for i in range(1000)] == whole
    assert stream(shop().mix(seed=8), range(1000)) != whole


def test_weights_are_shares() -> None:
    counts = Counter(stream(shop().mix(seed=1), range(40_000)))
    assert counts["buy"] == pytest.approx(10_000, rel=0.05)
    assert counts["look"] == pytest.approx(20_000, rel=0.05)


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.5, 1.0])
def test_write_ratio_sets_the_share_of_a_kind(ratio: float) -> None:
    counts = Counter(stream(shop().mix(seed=1, write_ratio=ratio), range(40_000)))
    assert counts["buy"] == pytest.approx(40_000 * ratio, rel=0.05)
    if ratio < 1:
        # Within a kind the weights keep their proportions.
        assert counts["look"] == pytest.approx(2 * counts["search"], rel=0.08)


def test_write_ratio_needs_both_kinds() -> None:
    workload = Workload("reads")
    workload.operation("look", kind="read")(_nothing)
    with pytest.raises(ConfigurationError, match="needs a write operation"):
        workload.mix(write_ratio=0.5)
    assert workload.mix(write_ratio=0).choose(0).name == "look"


async def _nothing() -> None: ...


def test_the_generator_is_seeded_by_seed_and_index() -> None:
    mix = shop().mix(seed=3)
    first = mix.context(5, None).rng
    assert isinstance(first, random.Random)
    values = [first.random() for _ in range(5)]
    again = shop().mix(seed=3).context(5, None)
    assert again.rng is again.rng
    assert [again.rng.random() for _ in range(5)] == values
    assert mix.context(6, None).rng.random() != values[0]
    assert shop().mix(seed=4).context(5, None).rng.random() != values[0]


def test_the_generator_does_not_follow_the_choice() -> None:
    """A generator that repeats the bits that chose the operation would always be low for one."""
    mix = shop().mix(seed=1)
    draws = [mix.context(i, None).rng.random() for i in range(4000) if mix.choose(i).name == "buy"]
    assert sum(draws) / len(draws) == pytest.approx(0.5, abs=0.04)


def test_only_what_is_asked_for_is_wanted() -> None:
    operations = shop().operations
    assert operations["buy"].wants == {"session", "op"}
    assert operations["look"].wants == {"session"}
    assert operations["search"].wants == frozenset()


def test_mistakes_name_the_source_line() -> None:
    workload = Workload("wrong")

    async def asks_too_much(session: AsyncSession, request: object) -> None: ...

    def not_async(session: AsyncSession) -> None: ...

    register = workload.operation("x", kind="read")
    with pytest.raises(ConfigurationError, match=r"test_workload\.py:\d+: .*not for `request`"):
        register(asks_too_much)
    with pytest.raises(ConfigurationError, match=r"test_workload\.py:\d+: .*coroutine function"):
        register(not_async)  # type: ignore[arg-type]  # the mistake under test


def test_wrong_declarations_are_refused() -> None:
    workload = shop()
    with pytest.raises(ConfigurationError, match="two operations named 'buy'"):
        workload.operation("buy", kind="read")
    with pytest.raises(ConfigurationError, match="kind must be"):
        workload.operation("other", kind="update")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(ConfigurationError, match="weight must be above 0"):
        workload.operation("other", kind="read", weight=0)
    with pytest.raises(ConfigurationError, match="has no operation"):
        Workload("empty").mix()
