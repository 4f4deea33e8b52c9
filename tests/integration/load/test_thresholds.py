"""Thresholds of tags, stages and the server's account, on runs of a real database."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from async_loader import ConfigurationError, Ramp, RunResult, Stage, Workload, run
from async_loader.verdict.criteria import hold
from async_loader.verdict.thresholds import parse

workload = Workload("shop")


@workload.operation("browse", kind="read", tags={"team": "shop"})
async def browse(session: AsyncSession) -> None:
    for number in range(6):
        await session.execute(text("SELECT generate_series(1, :most)"), {"most": number * 0 + 5})


@workload.operation("GET /a,b/{c}", kind="read", tags={"team": "api"})
async def ask() -> None: ...


async def test_they_are_found_in_a_run(engine: AsyncEngine) -> None:
    stages = (Stage(0.0, 2), Stage(0.5, 2), Stage(1.0, 2))
    result = await run(
        workload,
        sessions=async_sessionmaker(engine),
        duration=1.5,
        throttle=Ramp(stages),
        server_side=True,
        thresholds=["ops{stage:3,op:GET /a,b/{c}}:count>0"],
    )
    assert result.stages == (0.0, 0.5, 1.0)
    again = RunResult.from_dict(result.to_dict())
    assert again.by_operation["browse"].tags == {"team": "shop"}
    texts = [
        "ops{team:api}:count>0",
        "ops{stage:3,op:GET /a,b/{c}}:count>0",
        "op_duration{team:shop,stage:2}:min>0ms",
        "n_plus_one{team:shop}:count==1",
        "n_plus_one{op:browse}:max==6",
        "n_plus_one{team:api}:count==0",
        "ops{op:browse}:rate>0 after 500ms for 1s",
    ]
    assert [c.name for c in hold(again, map(parse, texts)) if c.outcome == "failed"] == []
    in_all, in_two = (
        next(iter(hold(again, [parse(f"ops{where}:count>0")]))).figure
        for where in ("", "{stage:2}")
    )
    assert in_all is not None
    assert in_two is not None
    assert 0 < in_two < in_all


async def test_what_there_is_not_is_refused_before_the_run(engine: AsyncEngine) -> None:
    with pytest.raises(ConfigurationError, match="no stage 1: the load has no stages"):
        await run(
            workload,
            sessions=async_sessionmaker(engine),
            ops=1,
            thresholds=["ops{stage:1}:count>0"],
        )
    with pytest.raises(ConfigurationError, match="a tag is a word"):
        workload.operation("other", tags={"stage": "1"})
