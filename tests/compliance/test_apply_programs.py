"""
Random programs of session and connection calls as a job's apply: once each, or failed and named.

    pytest tests/compliance/test_apply_programs.py            # a few examples, as in CI
    pytest -m soak tests/compliance/test_apply_programs.py    # a thousand, or $EXAMPLES

What is committed is counted by an audit table that a trigger writes.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from async_loader.errors import AsyncLoaderError
from async_loader.jobs import BatchJob, status

IN_CI, AT_FULL_COUNT = 12, int(os.environ.get("EXAMPLES", "1000"))
ROWS, CHUNK = 9, 3


class Base(DeclarativeBase):
    pass


class Source(Base):
    __tablename__ = "source"
    id: Mapped[int] = mapped_column(primary_key=True)


class Mark(Base):
    """What apply writes for a row: one."""

    __tablename__ = "mark"
    n: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[int]


class Only(Base):
    __tablename__ = "only_one"
    id: Mapped[int] = mapped_column(primary_key=True)


AUDIT = (
    "CREATE TABLE audit (source bigint)",
    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
    " $$BEGIN INSERT INTO audit VALUES (new.source); RETURN new; END$$",
    "CREATE TRIGGER note AFTER INSERT ON mark FOR EACH ROW EXECUTE FUNCTION note()",
)

# --- the steps of a program ---------------------------------------------------------------------

SAID = (
    "COMMIT", "ROLLBACK", "END", "ABORT", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN",
    "/* now */ COMMIT", "PREPARE TRANSACTION 'one'", "SAVEPOINT a", "ROLLBACK TO a", "RELEASE a",
    "SET CONSTRAINTS ALL DEFERRED", "SET CONSTRAINTS ALL IMMEDIATE", "BEGIN",
    "INSERT INTO only_one VALUES (1)", "SELECT 1 / 0",
)  # fmt: skip
CALLS = (
    "flush", "session.commit", "session.rollback", "session.close", "connection.commit",
    "connection.rollback", "transaction.commit", "transaction.rollback", "nested", "nested fails",
    "second session", "second session in control", "elsewhere", "orm error", "expunge_all",
)  # fmt: skip
RAISED: dict[str, type[BaseException]] = {
    "raise ValueError": ValueError, "raise ConnectionResetError": ConnectionResetError,
    "exit": SystemExit, "cancel": asyncio.CancelledError,
}  # fmt: skip
STEPS = st.one_of(
    st.sampled_from(CALLS),
    st.sampled_from(SAID).map(lambda statement: f"say {statement}"),
    st.sampled_from(SAID).map(lambda statement: f"drive {statement}"),
    st.sampled_from(sorted(RAISED)),
)
PROGRAMS = st.lists(st.tuples(STEPS, st.booleans()), min_size=1, max_size=5)
"""Steps, each with whether what it raises is caught."""


async def perform(step: str, session: AsyncSession, engine: AsyncEngine) -> None:
    """Do one step; marks that it writes for itself are of no row."""
    kind, _, statement = step.partition(" ")
    if step in RAISED:
        raise RAISED[step]("by the program")
    if kind == "say":
        await session.execute(text(statement))
    elif kind == "drive":
        connection = await session.connection()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute(statement)
    elif step == "nested":
        async with session.begin_nested():
            session.add(Mark(source=-1))
    elif step == "nested fails":
        async with session.begin_nested():
            await session.execute(insert(Only).values(id=1))
    elif step == "orm error":
        session.add(Only(id=1))
        await session.flush()
    elif step == "elsewhere":
        async with AsyncSession(engine) as other, other.begin():
            other.add(Mark(source=-1))
    else:
        await call(step, session)


async def call(step: str, session: AsyncSession) -> None:
    """Call a method of the session, or of what is below it."""
    if step.startswith("second session"):
        mode: Any = "control_fully" if step.endswith("control") else "conditional_savepoint"
        other = AsyncSession(await session.connection(), join_transaction_mode=mode)
        other.add(Mark(source=-1))
        await other.commit()
        return
    target, _, method = step.rpartition(".")
    on: Any = session
    if target in ("connection", "transaction"):
        on = await session.connection()
    if target == "transaction":
        on = on.get_transaction()
    result = getattr(on, method)()
    if method != "expunge_all":
        await result


_names = count(1)


def job_of(program: Sequence[tuple[str, bool]], engine: AsyncEngine, skip_limit: int) -> BatchJob:
    """Return a job that marks each row, and in its second chunk half-way does the program."""
    job = BatchJob(
        f"program-{next(_names)}", select=select(Source), chunk=CHUNK, partitions=1,
        skip_limit=skip_limit, patience=2.0,
    )  # fmt: skip
    remaining = list(program)

    @job.apply
    async def apply(session: AsyncSession, rows: Sequence[Source]) -> None:
        ids = [row.id for row in rows]
        await session.execute(insert(Mark), [{"source": i} for i in ids[: len(ids) // 2]])
        while remaining and ids[0] in range(CHUNK + 1, 2 * CHUNK + 1):
            step, caught = remaining.pop(0)
            try:
                await perform(step, session, engine)
            except Exception:
                if not caught:
                    raise
        session.add_all(Mark(source=i) for i in ids[len(ids) // 2 :])

    return job


# --- what has to hold ---------------------------------------------------------------------------


async def hold(url: str, program: Sequence[tuple[str, bool]], skip_limit: int) -> None:
    """Run a program's job until it is done, and reconcile after each end."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("TRUNCATE audit, mark"))
        job = job_of(program, engine, skip_limit)
        loose = skipped = False
        for _ in range(len(program) + 3):
            message = await end_of(job, engine)
            now = await status(engine, job.name)
            skipped = now.rows_skipped > 0
            marks = await audited(engine)
            loose = loose or "may be committed" in message or "done twice" in message
            note(f"{now.state}: {message} {dict(marks)}")
            reconcile(marks, now.rows_read, now.rows_skipped, loose=loose)
            if now.state == "done":
                break
            assert message, "a run that is not done says why"
            assert now.state == "failed"
            assert now.message
        assert now.state == "done"
        event("loose" if loose else "skipped" if skipped else "done")
    finally:
        await engine.dispose()


async def end_of(job: BatchJob, engine: AsyncEngine) -> str:
    try:
        await asyncio.wait_for(job.run(async_sessionmaker(engine)), 60)
    except AsyncLoaderError as error:
        return str(error)
    return ""


async def audited(engine: AsyncEngine) -> Counter[int]:
    """Return how often each row was marked; a program's own marks are none of a row."""
    async with engine.connect() as connection:
        found = await connection.scalars(text("SELECT source FROM audit WHERE source > 0"))
        return Counter(found.all())


def reconcile(marks: Counter[int], read: int, skipped: int, *, loose: bool) -> None:
    """Hold what is committed against what the run says; only what is named may differ."""
    behind = read + skipped
    once = set(range(1, behind + 1))
    named = set(range(CHUNK + 1, 2 * CHUNK + 1)) if loose else set()
    wrong = {row for row in once | set(marks) if marks[row] != (row in once)}
    assert len(wrong - named) == skipped if not loose else len(wrong - named) <= skipped


@pytest.fixture(params=["asyncpg", "psycopg"])
async def url(request: pytest.FixtureRequest, database_url: str) -> str:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Source), [{"id": i} for i in range(1, ROWS + 1)])
        await connection.execute(insert(Only).values(id=1))
        for statement in AUDIT:
            await connection.execute(text(statement))
    await engine.dispose()
    found = make_url(database_url).set(drivername=f"postgresql+{request.param}")
    return found.render_as_string(hide_password=False)


_LIMITS: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    "database": None,
}


@pytest.mark.timeout(300)
@settings(max_examples=IN_CI, derandomize=True, **_LIMITS)
@given(program=PROGRAMS, skip_limit=st.sampled_from([0, 9]))
def test_a_few_programs(url: str, program: list[tuple[str, bool]], skip_limit: int) -> None:
    asyncio.run(hold(url, program, skip_limit))


@pytest.mark.soak
@pytest.mark.timeout(7200)
@settings(max_examples=AT_FULL_COUNT, **_LIMITS)
@given(program=PROGRAMS, skip_limit=st.sampled_from([0, 9]))
def test_many_programs(url: str, program: list[tuple[str, bool]], skip_limit: int) -> None:
    asyncio.run(hold(url, program, skip_limit))
