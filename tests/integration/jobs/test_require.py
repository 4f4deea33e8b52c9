"""Whether a job is done, asked by migrations, applications and scripts: refused when in doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Connection, create_engine, create_mock_engine, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from async_loader.errors import ConfigurationError, DatabaseError, JobError, JobNotDoneError
from async_loader.jobs import BatchJob, cancel, require_job, require_job_async
from async_loader.jobs.migrations.script import check_of
from async_loader.testing import Interrupted, interrupt_after
from tests.counting import Counter, counting, fill

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def sessions(engine: AsyncEngine) -> Sessions:
    return async_sessionmaker(engine)


@pytest.fixture(params=["asyncpg", "psycopg"])
def url(request: pytest.FixtureRequest, database_url: str) -> str:
    """The database by each driver; psycopg's is also the one of a migration without asyncio."""
    made = make_url(database_url).set(drivername=f"postgresql+{request.param}")
    return made.render_as_string(hide_password=False)


async def asked(url: str, job: str | BatchJob = "counting", **wanted: Any) -> str:
    """Return what is said, on a connection and in a script; nothing where the job is done."""
    said = ""
    engine = create_async_engine(url)
    try:
        await require_job_async(job, engine, **wanted)
    except JobNotDoneError as error:
        said = str(error)
    finally:
        await engine.dispose()
    if isinstance(job, str) and not wanted.get("recheck"):
        assert bool(await scripted(url, job, **wanted)) == bool(said)
    return said


async def scripted(url: str, job: str, **wanted: Any) -> str:
    """Return what the check in a script raises."""
    script = check_of(
        job, wanted.get("arguments"), wanted.get("schema"), wanted.get("allow_errors", 0)
    )
    plain = make_url(url).set(drivername="postgresql")
    connection = await asyncpg.connect(plain.render_as_string(hide_password=False))
    try:
        await connection.execute(script)
    except asyncpg.RaiseError as error:
        return str(error)
    finally:
        await connection.close()
    return ""


def poisoned(skip_limit: int = 0) -> BatchJob:
    job = BatchJob("counting", select=select(Counter), chunk=10, skip_limit=skip_limit)

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        for counter in counters:
            if counter.id == 5:
                raise ValueError("five")
            counter.n += 1

    return job


async def test_each_state_but_done_is_refused(
    url: str, engine: AsyncEngine, sessions: Sessions
) -> None:
    assert "no job has ever run" in await asked(url)
    await fill(engine, 30)
    with pytest.raises(Interrupted), interrupt_after(1):
        await counting(chunk=10, partitions=1).run(sessions)
    assert "was interrupted" in await asked(url)
    assert "it has never run" in await asked(url, "another")
    assert "it has never run with the arguments" in await asked(url, arguments={"year": "1"})
    await cancel(engine, "counting")
    assert "was cancelled" in await asked(url)
    with pytest.raises(JobError):
        await poisoned().run(sessions)
    assert "has failed" in await asked(url)
    await poisoned(skip_limit=1).run(sessions)
    said = await asked(url)
    assert "left 1 row in its error table" in said
    assert "job retry-errors" in said
    assert await asked(url, allow_errors=1) == ""
    await counting().retry_errors(sessions)
    assert await asked(url) == ""


async def test_a_later_run_or_one_of_other_arguments_counts_too(
    url: str, engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 30)
    await counting().run(sessions, arguments={"it's": "100% :sure \\ €"})
    assert await asked(url, arguments={"it's": "100% :sure \\ €"}) == ""
    assert await asked(url) == ""
    with pytest.raises(Interrupted), interrupt_after(0):
        await counting().run(sessions, arguments={"n": "2"})
    assert "run 2 " in await asked(url)
    assert await asked(url, arguments={"it's": "100% :sure \\ €"}) == ""


async def test_another_schema_is_another_job(url: str, engine: AsyncEngine) -> None:
    """Each tenant is asked for by its search path, or by the name of its schema."""
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE counter (id int PRIMARY KEY, n int)"))
        for schema in ("one", "two"):
            await connection.execute(text(f"CREATE SCHEMA {schema}"))
            await connection.execute(
                text(f"CREATE TABLE {schema}.counter (LIKE counter INCLUDING ALL)")
            )
            await connection.execute(text(f"INSERT INTO {schema}.counter VALUES (1, 0)"))
    its = create_async_engine(engine.url, connect_args={"server_settings": {"search_path": "one"}})
    await counting().run(async_sessionmaker(its))
    await its.dispose()
    mapped = engine.execution_options(schema_translate_map={None: "two"})
    with pytest.raises(Interrupted), interrupt_after(0):
        await counting(name="mapped").run(async_sessionmaker(mapped))
    assert "was interrupted" in await asked(url, "mapped", schema="two")
    assert "in public: it has run of 'one.counter in one'" in await asked(url)
    assert await asked(url, schema="one") == ""
    assert "in two" in await asked(url, schema="two")
    tenant = engine.execution_options(schema_translate_map={None: "two"})
    with pytest.raises(JobNotDoneError, match="in two"):
        await require_job_async("counting", tenant)
    await require_job_async(
        "counting", engine.execution_options(schema_translate_map={None: "one"})
    )


async def test_rows_inserted_since_are_found(
    url: str, engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 30)
    job = counting(select=select(Counter).where(Counter.n == 0))
    await job.run(sessions)
    assert await asked(url, job, recheck=True) == ""
    async with engine.begin() as connection:
        await connection.execute(insert(Counter), [{"id": 77, "n": 0}])
    assert "finds the row id=77" in await asked(url, job, recheck=True)
    assert await asked(url, job) == ""
    with pytest.raises(ConfigurationError, match="module:name"):
        await require_job_async("counting", engine, recheck=True)


async def test_a_connection_that_is_none_is_refused(database_url: str, engine: AsyncEngine) -> None:
    sync: Any = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    wrong: Any
    for wrong in (engine, sync, None):
        with pytest.raises(ConfigurationError, match="takes a connection"):
            require_job("counting", wrong)
    with pytest.raises(ConfigurationError, match="AsyncEngine"):
        await require_job_async("counting", sync)
    with pytest.raises(ConfigurationError, match="0 or more"):
        await require_job_async("counting", engine, allow_errors=-1)
    sync.dispose()


@pytest.mark.parametrize(
    ("job", "wanted", "said"),
    [
        ("", {}, "a job's name, or its BatchJob"),
        (None, {}, "a job's name, or its BatchJob"),
        (b"counting", {}, "a job's name, or its BatchJob"),
        ("nul\0", {}, "one line of printable"),
        ("\ud800", {}, "one line of printable"),
        ("counting\n", {}, "one line of printable"),
        ("x" * 201, {}, "at most 200 bytes"),
        ("counting", {"arguments": "year=1"}, "a mapping of names and values"),
        ("counting", {"arguments": {"year": "nul\0"}}, "one line of printable"),
        ("counting", {"schema": ""}, "name of the schema"),
        ("counting", {"schema": 5}, "name of the schema"),
        ("counting", {"allow_errors": "3"}, "0 or more"),
        ("counting", {"allow_errors": None}, "0 or more"),
    ],
)
async def test_what_no_job_can_be_is_refused_on_a_connection_and_in_a_script(
    engine: AsyncEngine, job: Any, wanted: dict[str, Any], said: str
) -> None:
    script: Any = create_mock_engine("postgresql+psycopg://", lambda *_: None)
    with pytest.raises(ConfigurationError, match=said):
        require_job(job, script, **wanted)
    with pytest.raises(ConfigurationError, match=said):
        await require_job_async(job, engine, **wanted)


async def test_a_transaction_that_may_not_read_is_told_the_grant(
    database_url: str, engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 3)
    await counting().run(sessions)

    def ask(connection: Connection) -> None:
        connection.execute(text("CREATE ROLE nobody_here"))
        connection.execute(text("SET LOCAL ROLE nobody_here"))
        require_job("counting", connection)

    async with engine.connect() as connection:
        with pytest.raises(DatabaseError, match="GRANT"):
            await connection.run_sync(ask)
