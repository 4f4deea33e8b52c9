"""The measuring itself, at a size that takes no time."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from async_loader.errors import ConfigurationError
from async_loader.inserts.bench import SHAPES, WAYS, measure_inserts


@pytest.mark.usefixtures("light_heap")
@pytest.mark.parametrize("shape", SHAPES)
async def test_every_shape(database_url: str, shape: str) -> None:
    measures = await measure_inserts(database_url, shape=shape, rows=40, turns=1)
    by_way = {measure.way: measure for measure in measures}
    assert next(iter(by_way)) == "stock"
    assert by_way["stock"].ratio_to_stock == 1
    assert all(measure.seconds > 0 and measure.cpu_seconds > 0 for measure in measures)
    assert by_way["ours"].round_trips <= max(by_way["stock"].round_trips, 4)
    if shape == "plain":
        assert by_way.keys() == WAYS.keys()
    if shape in {"uuid", "defaults", "expression"}:
        assert by_way["stock"].round_trips >= 40
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        left = await connection.scalar(
            text("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'async_loader%'")
        )
    await engine.dispose()
    assert left == 0


async def test_refuses_what_there_is_not(database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="no shape 'sphere'"):
        await measure_inserts(database_url, shape="sphere")
    with pytest.raises(ConfigurationError, match="no way"):
        await measure_inserts(database_url, ways=["by hand"])
