"""One traceback of each kind of failure: the user's line in it, and nobody's data."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from sqlalchemy import Integer, bindparam, insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from async_loader import Workload, run
from async_loader.database.postgresql import create_sessions
from async_loader.failures.source_lines import short_path
from async_loader.failures.tracebacks import sample_of

HERE = short_path(__file__)
SECRET = "hunter2"


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    name: Mapped[str] = mapped_column(primary_key=True)


workload = Workload("accounts")


@workload.operation("duplicate", kind="write")
async def duplicate(session: AsyncSession) -> None:
    session.add(Account(name=f"{SECRET}\nof two lines {SECRET}"))
    await session.flush()  # duplicate


@workload.operation("unreadable", kind="read")
async def unreadable(session: AsyncSession) -> None:
    await session.execute(text(f"SELECT '{SECRET}'::int"))  # unreadable


@workload.operation("wrong_type", kind="read")
async def wrong_type(session: AsyncSession) -> None:
    parameter = bindparam("n", type_=Integer)
    await session.execute(text("SELECT :n + 1").bindparams(parameter), {"n": SECRET})  # wrong_type


@workload.operation("wrapped", kind="write")
async def wrapped(session: AsyncSession) -> None:
    try:
        await session.execute(insert(Account), [{"name": SECRET}])
    except DBAPIError as error:
        told = f"postgresql://me:{SECRET}@host/db, password={SECRET}"
        raise LookupError(told) from error  # wrapped


@workload.operation("grouped", kind="read")
async def grouped() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(out_of_stock())


async def out_of_stock() -> None:
    raise KeyError("no apples")  # grouped


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@workload.operation("unprintable", kind="read")
async def unprintable() -> None:
    raise UnprintableError  # unprintable


@workload.operation("slow", kind="read")
async def slow(session: AsyncSession) -> None:
    await session.execute(text("SELECT pg_sleep(30)"))  # slow


def line_of(marker: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    (number,) = (n for n, line in enumerate(lines, 1) if line.endswith(f"  # {marker}"))
    return number


@pytest.fixture
async def accounts(engine: AsyncEngine) -> AsyncEngine:
    async with create_sessions(engine).begin() as session:
        await (await session.connection()).run_sync(Base.metadata.create_all)
        session.add_all([Account(name=SECRET), Account(name=f"{SECRET}\nof two lines {SECRET}")])
    return engine


@pytest.mark.parametrize(
    ("name", "error", "function", "words"),
    [
        ("duplicate", "23505 unique_violation", "duplicate", "account_pkey"),
        ("unreadable", "22P02", "unreadable", "invalid input syntax for type integer"),
        ("wrong_type", "22000", "wrong_type", "invalid input for query argument $1"),
        ("wrapped", "23505 unique_violation", "wrapped", "postgresql://me:***@host/db"),
        ("grouped", "KeyError", "out_of_stock", "no apples"),
        ("unprintable", "UnprintableError", "unprintable", "UnprintableError"),
        ("slow", "timeout", "slow", "CancelledError"),
    ],
)
async def test_a_failure_has_line_and_traceback_and_no_data(
    accounts: AsyncEngine, name: str, error: str, function: str, words: str
) -> None:
    chosen = Workload("accounts")
    chosen.operations = {name: workload.operations[name]}
    result = await run(
        chosen, sessions=create_sessions(accounts), ops=2, concurrency=1, op_timeout=0.2
    )
    ((found, failure),) = result.errors.items()
    assert (found, failure.count, failure.by_operation) == (error, 2, {name: 2})
    assert failure.traceback is not None
    assert failure.traceback.startswith(("Traceback (most recent call last)", "  + Exception"))
    assert words in failure.traceback
    assert failure.source == f"{HERE}:{line_of(name)} in {function}"
    document = json.dumps(result.to_dict())
    assert SECRET not in document.replace("SELECT '{SECRET}'", "")


async def test_the_exception_itself_is_left_as_it_was(database_url: str) -> None:
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(text("SELECT 1 / :zero"), {"zero": 0})
    await engine.dispose()
    sample = sample_of(caught.value, "22012")
    assert "parameters hidden" in (sample.traceback or "")
    assert "[parameters: (0,)]" in str(caught.value)


def test_a_long_traceback_keeps_both_ends() -> None:
    sample = sample_of(ValueError("x" * 50_000 + "the end"), "ValueError")
    assert sample.traceback is not None
    assert len(sample.traceback) < 21_000
    assert sample.traceback.startswith("ValueError: xxx")
    assert sample.traceback.endswith("the end\n")
    assert len(sample.message) == 500
