"""The large units of work: everything that is counted is in the database."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader import run
from async_loader.database.postgresql import create_sessions
from async_loader.load.workloads import sequences


async def test_every_operation_does_what_it_says(engine: AsyncEngine) -> None:
    workload = sequences.build()
    result = await run(workload, sessions=create_sessions(engine), ops=120, concurrency=4, seed=3)
    assert result.errors == {}
    counts = {name: operation.count for name, operation in result.by_operation.items()}
    assert all(counts.values()), counts
    async with engine.connect() as connection:
        rows = {
            table: await connection.scalar(text(f"SELECT count(*) FROM {table}"))
            for table in ("sequence", "annotation", "result")
        }
        failed = await connection.scalar(
            text("SELECT count(*) FROM result WHERE \"check\" = 'alphabet' AND NOT passed")
        )
    assert rows["sequence"] == 1_000 * (counts["import"] + 1)
    assert rows["annotation"] is not None
    assert rows["result"] is not None
    added = rows["annotation"] - 6_000 * (counts["import"] + 1)
    assert 0 < added <= 20 * counts["annotate"]
    assert 0 < rows["result"] <= 2_000 * counts["validate"]
    assert rows["result"] % 2 == 0
    assert failed == 0
