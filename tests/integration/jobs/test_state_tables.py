"""The state's tables made by who owns the database, in a schema that is named, for lesser roles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, create_mock_engine, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
)

from async_loader.errors import ConfigurationError, JobError
from async_loader.jobs import (
    BatchJob,
    cancel,
    create_state_tables,
    list_runs,
    pause,
    require_job_async,
    status,
)
from async_loader.jobs.migrations.state_tables import ddl
from async_loader.testing import Interrupted, interrupt_after
from tests.counting import Counter, counting, fill, tally
from tests.integration.jobs.conftest import execute
from tests.integration.jobs.test_layout import make_first

MINE: dict[str, Any] = {"state_schema": "mine"}


async def tables_in(engine: AsyncEngine, schema: str) -> list[str]:
    query = text("SELECT tablename FROM pg_tables WHERE schemaname = :schema ORDER BY 1")
    async with engine.connect() as connection:
        return list(await connection.scalars(query, {"schema": schema}))


@pytest.fixture
async def role(engine: AsyncEngine) -> AsyncIterator[str]:
    """A role that may make nothing, and do with the counters what the job does."""
    await fill(engine, 40)
    database = engine.url.database
    name = f"it's a {database}"
    await execute(
        engine,
        f'CREATE ROLE "{name}" LOGIN',
        f"REVOKE ALL ON DATABASE {database} FROM public",
        "REVOKE ALL ON SCHEMA public FROM public",
        f'GRANT CONNECT, TEMPORARY ON DATABASE {database} TO "{name}"',
        f'GRANT USAGE ON SCHEMA public TO "{name}"',
        f'GRANT SELECT, UPDATE ON counter TO "{name}"',
    )
    yield name
    await execute(engine, f'DROP OWNED BY "{name}" CASCADE', f'DROP ROLE "{name}"')


async def test_what_is_printed_is_all_that_a_lesser_role_needs(
    engine: AsyncEngine, theirs: AsyncEngine, role: str
) -> None:
    """Runs that end, fail, are steered and gone on with; nothing else is granted than that."""
    await execute(engine, *ddl("mine", role=role).split(";\n\n"))
    sessions, bad = async_sessionmaker(theirs), True
    job = BatchJob("theirs", select=select(Counter), chunk=10, partitions=2, skip_limit=1)

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        for counter in counters:
            if counter.id == 7 and bad:
                raise ValueError
            counter.n += 1

    with pytest.raises(Interrupted), interrupt_after(1):
        await job.run(sessions, **MINE)
    assert (await pause(theirs, "theirs", **MINE)).state == "paused"
    assert (await job.run(sessions, workers=2, **MINE)).rows_skipped == 1
    bad = False
    assert (await job.retry_errors(sessions, **MINE)).repaired == 1
    await require_job_async("theirs", theirs, **MINE)
    assert (await status(theirs, "theirs", **MINE)).state == "done"
    clearing = counting(select=select(Counter).where(Counter.n == 1), until_empty=True, chunk=10)
    assert (await clearing.run(sessions, **MINE)).state == "done"
    with pytest.raises(Interrupted), interrupt_after(0):
        await counting().run(sessions, **MINE)
    assert (await cancel(theirs, "counting", **MINE)).state == "cancelled"
    assert [run.state for run in await list_runs(theirs, **MINE)] == ["cancelled", "done", "done"]
    assert await tally(engine) == {2: 40}
    assert await tables_in(engine, "async_loader_jobs") == []


async def test_a_migration_makes_them_once_and_in_its_transaction(engine: AsyncEngine) -> None:
    made = ["error", "layout", "never", "partition", "run", "worker"]

    def migrate(connection: Connection) -> None:
        create_state_tables(connection, **MINE)

    await fill(engine, 40)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    assert await tables_in(engine, "mine") == []
    for _ in range(2):
        async with engine.begin() as connection:
            await connection.run_sync(migrate)
        assert await tables_in(engine, "mine") == made
    assert (await counting().run(async_sessionmaker(engine), **MINE)).state == "done"
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    assert [run.state for run in await list_runs(engine, **MINE)] == ["done"]


async def test_a_migration_brings_them_up_to_date_or_refuses(engine: AsyncEngine) -> None:
    await fill(engine, 40)
    await make_first(engine, "failed")
    with pytest.raises(JobError, match=r"version 1 .* \(run 1\): finish it there"):
        async with engine.begin() as connection:
            await connection.run_sync(create_state_tables)
    await execute(engine, "UPDATE async_loader_jobs.run SET state = 'done'")
    async with engine.begin() as connection:
        await connection.run_sync(create_state_tables)
    assert [run.total for run in await list_runs(engine)] == [10]
    assert (await counting().run(async_sessionmaker(engine))).run == 2


async def test_a_script_makes_the_same(engine: AsyncEngine) -> None:
    """A script of Alembic's may hold a part of a transaction: it has none of its own."""
    statements: list[str] = []

    def keep(statement: Any, *_: Any, **__: Any) -> None:
        compiled = statement.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
        statements.append(str(compiled).strip())

    create_state_tables(create_mock_engine("postgresql+psycopg://", keep), **MINE)
    assert ddl("mine").split(";\n\n")[1:-1] == statements
    await execute(engine, *statements)
    await fill(engine, 40)
    assert (await counting().run(async_sessionmaker(engine), **MINE)).state == "done"


async def test_jobs_of_two_schemas_know_nothing_of_each_other(engine: AsyncEngine) -> None:
    """Their workers have the same numbers: one of the one is dead while the other's is at work."""
    await fill(engine, 40)
    sessions = async_sessionmaker(engine)
    job = BatchJob("counting", select=select(Counter), chunk=10, partitions=2, lease=3600)
    inner: list[str] = []

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        if not inner:
            inner.append("begun")
            inner[0] = (await counting(chunk=7, lease=3600).run(other)).state
        for counter in counters:
            counter.n += 1

    other = async_sessionmaker(engine.execution_options(schema_translate_map={None: "two"}))
    await execute(
        engine, "CREATE SCHEMA two", "CREATE TABLE two.counter AS SELECT * FROM counter",
        "ALTER TABLE two.counter ADD PRIMARY KEY (id)",
    )  # fmt: skip
    with pytest.raises(Interrupted), interrupt_after(1):
        await counting(chunk=7, lease=3600).run(other)
    done = await job.run(sessions, **MINE)
    assert (done.run, done.state, inner, done.retried) == (1, "done", ["done"], 0)
    assert [run.run for run in await list_runs(engine)] == [1]
    assert await tally(engine) == {1: 40}


@pytest.mark.parametrize(
    "name", ["", "Mine", "a b", "pg_mine", "user", "x" * 64, "ä", 'a"b', "nul\0", None, 5]
)
async def test_a_name_that_is_none_is_refused_before_anything(
    engine: AsyncEngine, name: Any
) -> None:
    refused = r"cannot be the state's schema"
    with pytest.raises(ConfigurationError, match=refused):
        await counting().run(async_sessionmaker(engine), state_schema=name)
    with pytest.raises(ConfigurationError, match=refused):
        await list_runs(engine, state_schema=name)
    with pytest.raises(ConfigurationError, match=refused):
        ddl(name)


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE TABLE run (id int, state text)",
        "CREATE VIEW run AS SELECT 1 AS one",
        "CREATE TABLE worker (id int)",
        "CREATE VIEW error AS SELECT 1 AS one",
    ],
)
async def test_a_schema_with_somebody_elses_table_is_refused_and_left_as_it_is(
    engine: AsyncEngine, theirs: str
) -> None:
    await fill(engine, 40)
    await execute(engine, theirs)
    before = await tables_in(engine, "public")
    with pytest.raises(ConfigurationError, match=r"public\.\w+ is somebody else's: give the jobs'"):
        await counting().run(async_sessionmaker(engine), state_schema="public")
    if " run " in theirs:
        with pytest.raises(ConfigurationError, match="somebody else's"):
            await require_job_async("counting", engine, state_schema="public")
    assert await tables_in(engine, "public") == before
    assert await tally(engine) == {0: 40}


async def test_what_is_no_connection_or_cannot_be_written_is_refused(engine: AsyncEngine) -> None:
    wrong: Any = engine
    with pytest.raises(ConfigurationError, match="takes a connection"):
        create_state_tables(wrong)
    sqlite: Any = create_mock_engine("sqlite://", print)
    with pytest.raises(ConfigurationError, match="only PostgreSQL's"):
        create_state_tables(sqlite)
    for role in ("", "a\nb", "nul\0"):
        with pytest.raises(ConfigurationError, match="one line of printable"):
            ddl(role=role)
