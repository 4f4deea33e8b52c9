"""What is read is what SQLAlchemy reads: the same objects, as loaded, by the same options."""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytest
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from async_loader import disable_fast_paths, enable_fast_paths
from tests.integration.reads.conftest import DRIVERS, engine_of, statements_of
from tests.integration.reads.programs import Program
from tests.integration.reads.reading import READS, Reading
from tests.integration.reads.shown import shown

pytestmark = pytest.mark.usefixtures("filled")


async def _read(engine: AsyncEngine, reading: Reading) -> Any:
    async with AsyncSession(engine, sync_session_class=OwnSession) as session:
        return shown(await reading(session))


class OwnSession(Session):
    """For which alone they are on."""


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", READS)
async def test_reads_alike(read_url: str, driver: str, name: str) -> None:
    engine = engine_of(read_url, driver)
    stock = await _read(engine, READS[name].read)
    enable_fast_paths(OwnSession)
    statements = statements_of(engine)
    for _ in range(3):  # built, kept, kept
        assert await _read(engine, READS[name].read) == stock
    await engine.dispose()
    assert any("= ANY" in statement for statement in statements) == READS[name].any_


# Where a stream fails, SQLAlchemy 2.0 leaves psycopg's cursor open.
left_open = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@left_open
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("start", range(64, 80, 8))
async def test_programs_see_alike(read_url: str, driver: str, start: int) -> None:
    await _programs(read_url, driver, range(start, start + 8))


@left_open
@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("driver", DRIVERS)
async def test_many_programs_see_alike(read_url: str, driver: str) -> None:
    await _programs(read_url, driver, range(1_000, 1_000 + int(os.environ.get("EXAMPLES", "2000"))))


async def _programs(url: str, driver: str, numbers: range) -> None:
    engine = engine_of(url, driver)
    statements = statements_of(engine)
    for number in numbers:
        program = Program(number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)
            disable_fast_paths()
            stock = await program.perform(engine, OwnSession)
            enable_fast_paths(OwnSession)
            assert await program.perform(engine, OwnSession) == stock, f"program {number}"
    await engine.dispose()
    assert any("= ANY" in statement for statement in statements)
