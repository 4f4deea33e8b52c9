"""Batch jobs, seen and steered over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from async_loader.concurrency.stop import Stop
from async_loader.jobs import BatchJob
from async_loader.runtime.user_modules import load_module

from .conftest import Service, Serving

JOB = """
from sqlalchemy import update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy import select
from async_loader.jobs import BatchJob

class Base(DeclarativeBase): ...

class Row(Base):
    __tablename__ = "row"
    id: Mapped[int] = mapped_column(primary_key=True)
    done: Mapped[bool]

job = BatchJob("mark", select=select(Row), chunk=10)
asked = None

@job.apply
async def apply(session, rows):
    if asked is not None:
        asked.request()
    for row in rows:
        row.done = True
"""
ROWS = 200


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A file with a job."""
    path = tmp_path / "marking.py"
    path.write_text(JOB)
    return path


@pytest.fixture
async def paused(engine: AsyncEngine, code: Path) -> None:
    """A run of the job that was stopped in its midst."""
    module = load_module(str(code))
    stop = Stop()
    vars(module)["asked"] = stop  # behind its first chunk
    assert isinstance(module.job, BatchJob)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE row (id int PRIMARY KEY, done bool NOT NULL)"))
        rows = text("INSERT INTO row SELECT n, false FROM generate_series(1, :rows) n")
        await connection.execute(rows, {"rows": ROWS})
    status = await module.job.run(async_sessionmaker(engine), stop=stop)
    assert status.state == "paused"


async def done_rows(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM row WHERE done")) or 0)


async def test_a_target_without_jobs_has_none(service: Service) -> None:
    assert (await service.client.get("/api/jobs/one")).json() == {"jobs": []}
    for path in ("/api/jobs/elsewhere", "/api/jobs/one/1"):
        assert (await service.client.get(path)).status_code == 404
    assert (await service.client.post("/api/jobs/one/1/pause")).status_code == 404


@pytest.mark.usefixtures("paused")
async def test_a_job_is_resumed_to_its_end(
    serving: Serving, code: Path, engine: AsyncEngine
) -> None:
    assert await done_rows(engine) < ROWS
    async with serving(job=f"mark={code}:job") as service:
        (job,) = (await service.client.get("/api/jobs/one")).json()["jobs"]
        assert (job["job"], job["state"], job["can_resume"]) == ("mark", "paused", True)
        resumed = await service.client.post(f"/api/jobs/one/{job['run']}/resume")
        assert resumed.status_code == 202
        async with asyncio.timeout(60):
            while job["state"] != "done":
                job = (await service.client.get(f"/api/jobs/one/{job['run']}")).json()
                await asyncio.sleep(0.05)
        assert job["rows_read"] == ROWS
        again = await service.client.post(f"/api/jobs/one/{job['run']}/resume")
        assert again.status_code == 409
    assert await done_rows(engine) == ROWS


@pytest.mark.usefixtures("paused")
async def test_a_job_whose_code_is_not_known_can_only_be_given_up(service: Service) -> None:
    refused = await service.client.post("/api/jobs/one/1/resume")
    assert refused.status_code == 409
    assert "no --job of this service" in refused.json()["detail"]
    cancelled = await service.client.post("/api/jobs/one/1/cancel")
    assert cancelled.json()["state"] == "cancelled"
    assert (await service.client.post("/api/jobs/one/1/pause")).status_code == 409
    entries = (await service.client.get("/api/audit")).json()["entries"]
    assert "job cancel" in {entry["action"] for entry in entries}
