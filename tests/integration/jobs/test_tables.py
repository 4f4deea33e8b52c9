"""The state tables of jobs, whoever makes them, when, and with which privileges."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest
from sqlalchemy import event, select, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from async_loader.errors import DatabaseError, JobError
from async_loader.jobs import BatchJob, list_runs, status
from async_loader.jobs.tables import _MAKING, LOCK_CLASS
from tests.counting import Counter, counting, fill, tally
from tests.integration.jobs.conftest import execute

AT_ONCE = 4


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_several_make_them_at_once_at_whichever_isolation(
    database_url: str, engine: AsyncEngine, driver: str, level: str
) -> None:
    """A listener's level holds: who has waited for the first one sees what was there before."""
    await fill(engine, 200)
    url = make_url(database_url).set(drivername=f"postgresql+{driver}")
    engines = [create_async_engine(url) for _ in range(AT_ONCE)]

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"SET TRANSACTION ISOLATION LEVEL {level}")

    for its in engines:
        event.listen(its.sync_engine, "begin", begin)
    async with engine.begin() as connection:
        lock = {"ours": LOCK_CLASS, "making": _MAKING}
        await connection.execute(text("SELECT pg_advisory_xact_lock(:ours, :making)"), lock)
        runs = [asyncio.create_task(counting().run(async_sessionmaker(its))) for its in engines]
        waiting = text(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        while await connection.scalar(waiting) != AT_ONCE:
            await asyncio.sleep(0.01)
    done = await asyncio.gather(*runs)
    assert {status.state for status in done} == {"done"}
    for its in engines:
        await its.dispose()
    assert sum((await tally(engine)).values()) == 200


@pytest.fixture
async def role(engine: AsyncEngine, admin: AsyncEngine) -> AsyncIterator[str]:
    """A role, whose name needs quotes, that may do in this database what its job's apply does."""
    await fill(engine, 20)
    database = engine.url.database
    name = f"app-{database}"
    await execute(
        engine,
        f'CREATE ROLE "{name}" LOGIN',
        f"REVOKE ALL ON DATABASE {database} FROM public",
        f'GRANT CONNECT, TEMPORARY ON DATABASE {database} TO "{name}"',
        f'GRANT SELECT, UPDATE ON counter TO "{name}"',
    )
    yield name
    await execute(engine, f'ALTER ROLE "{name}" LOGIN')
    await execute(engine, f'DROP OWNED BY "{name}" CASCADE', f'DROP ROLE "{name}"')


async def test_a_schema_that_an_administrator_made_and_granted_is_enough(
    engine: AsyncEngine, theirs: AsyncEngine, role: str
) -> None:
    await execute(
        engine, "CREATE SCHEMA async_loader_jobs",
        f'GRANT CREATE, USAGE ON SCHEMA async_loader_jobs TO "{role}"',
    )  # fmt: skip
    assert (await counting().run(async_sessionmaker(theirs))).state == "done"


async def test_each_advised_grant_is_executed_as_it_is_and_leads_to_the_end(
    engine: AsyncEngine, theirs: AsyncEngine, role: str
) -> None:
    """From Python too: what the role lacks is a `DatabaseError` with the statement to say."""
    sessions = async_sessionmaker(theirs)
    assert (await counting().run(async_sessionmaker(engine))).state == "done"
    advice: list[str] = []
    for _ in range(8):
        try:
            done = await counting().run(sessions)
        except DatabaseError as error:
            statement = str(error).rpartition("; ")[2].removesuffix(" is needed")
            advice.append(statement)
            await execute(engine, statement)
        else:
            break
    assert done.state == "done"
    assert all(statement.endswith(f'TO "{role}"') for statement in advice)
    assert len(advice) == 5, "the schema, and four tables"
    await execute(engine, f'REVOKE ALL ON async_loader_jobs.worker FROM "{role}"')
    for act in (list_runs(theirs), status(theirs, "counting")):
        with pytest.raises(DatabaseError, match=r"GRANT .* is needed"):
            await act


async def test_a_role_that_may_repair_no_row_is_told_of_the_grant(
    engine: AsyncEngine, theirs: AsyncEngine, role: str
) -> None:
    bad = True
    job = BatchJob("repairing", select=select(Counter), chunk=5, partitions=1, skip_limit=1)

    @job.apply
    async def apply(_session: AsyncSession, counters: Sequence[Counter]) -> None:
        for counter in counters:
            if counter.id == 7 and bad:
                raise ValueError
            counter.n += 1

    assert (await job.run(async_sessionmaker(engine))).rows_skipped == 1
    bad = False
    await execute(
        engine, f'GRANT USAGE ON SCHEMA async_loader_jobs TO "{role}"',
        f'GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA async_loader_jobs TO "{role}"',
    )  # fmt: skip
    with pytest.raises(JobError, match="permission denied for table error") as refused:
        await job.retry_errors(async_sessionmaker(theirs))
    advised = re.search(r"GRANT .*(?= is needed)", str(refused.value))
    assert advised is not None
    assert await tally(engine) == {0: 1, 1: 19}
    await execute(engine, advised[0])
    assert (await job.retry_errors(async_sessionmaker(theirs))).repaired == 1
    assert await tally(engine) == {1: 20}


async def test_a_role_without_any_privilege_is_told_of_the_first(
    theirs: AsyncEngine, role: str
) -> None:
    database = theirs.url.database
    told = f'GRANT CREATE ON DATABASE {database} TO "{role}" is needed$'
    with pytest.raises(DatabaseError, match=told):
        await counting().run(async_sessionmaker(theirs))


@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_role_that_may_not_log_in_meanwhile_is_waited_for(
    engine: AsyncEngine, theirs: AsyncEngine, role: str, comes_back: bool
) -> None:
    await execute(engine, f'GRANT CREATE ON DATABASE {theirs.url.database} TO "{role}"')
    job = BatchJob("waiting", select=select(Counter), chunk=5, partitions=1, patience=2)
    reached, shut_out = asyncio.Event(), asyncio.Event()

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        for counter in counters:
            counter.n += 1
        if counters[0].id == 11:
            reached.set()
            await shut_out.wait()

    running = asyncio.create_task(job.run(async_sessionmaker(theirs)))
    await reached.wait()
    ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename ="
    # As from another process: what this one commits meanwhile might be apply's.
    url = engine.url.set(drivername="postgresql")
    administrator = await asyncpg.connect(url.render_as_string(hide_password=False))
    await administrator.execute(f'ALTER ROLE "{role}" NOLOGIN')
    await administrator.execute(f"{ending} '{role}'")
    shut_out.set()
    if comes_back:
        await asyncio.sleep(0.5)
        await administrator.execute(f'ALTER ROLE "{role}" LOGIN')
        assert (await running).state == "done"
    else:
        with pytest.raises(DatabaseError, match=r"gave up after .* not permitted to log in"):
            await running
        await administrator.execute(f'ALTER ROLE "{role}" LOGIN')
        await job.run(async_sessionmaker(engine))
    await administrator.close()
    assert await tally(engine) == {1: 20}
