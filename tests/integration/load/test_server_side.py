"""The server's own account: equal to ours, only of the run, and never in its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from async_loader import Limit, OperationContext, RunResult, Workload, run
from async_loader.database.postgresql import create_sessions, session_factories
from async_loader.load.server.queries import HIDDEN, LATE, NO_EXTENSION
from async_loader.load.workloads import mixed
from async_loader.results.findings import ServerSide


async def greet(engine: AsyncEngine) -> AsyncEngine:
    """Let an engine's first connection ask what it does, which would count as the run's."""
    async with engine.connect():
        return engine


@pytest.fixture
async def watched(engine: AsyncEngine) -> AsyncEngine:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE EXTENSION pg_stat_statements"))
    return engine


def account(result: RunResult) -> ServerSide:
    assert not result.errors, result.errors
    assert result.server_side is not None
    return result.server_side


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("autocommit", [False, True])
async def test_it_equals_what_we_counted(watched: AsyncEngine, autocommit: bool) -> None:
    sessions, read_sessions = session_factories(watched, reads_autocommit=autocommit)
    result = await run(
        mixed.build(),
        sessions=sessions,
        read_sessions=read_sessions,
        ops=300,
        concurrency=4,
        warmup=Limit(ops=60),  # connections are open and statements prepared
        server_side=True,
    )
    side = account(result)
    creates, reads = (result.by_operation[name].count for name in ("create", "read"))
    database = side.database
    assert database is not None
    # A read is two statements, each its own transaction in AUTOCOMMIT, or one rolled back.
    assert database.commits == creates + (2 * reads if autocommit else 0)
    assert database.rollbacks == (0 if autocommit else reads)
    assert database.deadlocks == database.temp_files == 0
    assert database.cache_hits is not None
    assert database.cache_hits > 0.5

    assert side.statements is not None
    ours = sum(o.split.statements for o in result.by_operation.values() if o.split)
    framing = [s for s in side.statements if s.statement.startswith(("BEGIN", "COMMIT", "ROLL"))]
    assert side.calls is not None
    assert side.calls - sum(s.calls for s in framing) == ours
    inserts = [s for s in side.statements if s.statement.startswith("INSERT")]
    assert sorted((s.calls, s.rows) for s in inserts) == [
        (creates, 3 * creates),
        (creates, 5 * creates),
    ]
    assert all(s.total_ms > 0 for s in inserts)
    assert side.total_ms == pytest.approx(sum(s.total_ms for s in side.statements))
    assert side.rows == sum(s.rows for s in side.statements)
    assert side.notes == ()


async def test_what_connections_wait_for_is_sampled(engine: AsyncEngine) -> None:
    workload = Workload("waiting")

    @workload.operation("queue", kind="write")
    async def queue(session: AsyncSession) -> None:
        await session.execute(text("SELECT pg_advisory_xact_lock(7)"))
        await session.execute(text("SELECT pg_sleep(0.4)"))

    side = account(
        await run(
            workload,
            sessions=create_sessions(await greet(engine)),
            ops=4,
            concurrency=2,
            server_side=True,
        )
    )
    assert side.samples >= 4
    assert side.waits["Timeout:PgSleep"] >= 2
    assert side.waits["Lock:advisory"] >= 2
    assert side.notes == (NO_EXTENSION,)
    assert (side.statements, side.calls, side.total_ms) == (None, None, None)
    assert side.database is not None
    assert side.database.rollbacks == 4


async def test_temp_files_are_the_runs(engine: AsyncEngine) -> None:
    workload = Workload("sorting")

    @workload.operation("sort", kind="read")
    async def sort(session: AsyncSession) -> None:
        await session.execute(text("SET LOCAL work_mem = '64kB'"))
        await session.execute(
            text("SELECT n FROM generate_series(1, 50000) n ORDER BY md5(n::text) OFFSET 49999")
        )

    side = account(
        await run(
            workload, sessions=create_sessions(engine), ops=3, concurrency=1, server_side=True
        )
    )
    assert side.database is not None
    assert side.database.temp_files >= 3
    assert side.database.temp_bytes > 3 * 2**20


async def test_deadlocks_are_the_runs(engine: AsyncEngine) -> None:
    workload = Workload("crossing")
    both = asyncio.Barrier(2)

    @workload.operation("cross", kind="write")
    async def cross(session: AsyncSession, op: OperationContext) -> None:
        first = op.index % 2
        await session.execute(text(f"SELECT pg_advisory_xact_lock({first})"))
        await both.wait()
        await session.execute(text(f"SELECT pg_advisory_xact_lock({1 - first})"))

    sessions = create_sessions(await greet(engine))
    result = await run(workload, sessions=sessions, ops=2, concurrency=2, server_side=True)
    assert list(result.errors) == ["40P01 deadlock_detected"]
    assert result.server_side is not None
    assert result.server_side.database is not None
    assert result.server_side.database.deadlocks == 1
    assert result.server_side.database.rollbacks == 2


@pytest.fixture
async def plain_role(database_url: str, admin: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """An engine of a role without any right to look at others."""
    async with admin.connect() as connection:
        await connection.execute(text("CREATE ROLE plain LOGIN"))
    engine = create_async_engine(make_url(database_url).set(username="plain"))
    yield await greet(engine)
    await engine.dispose()
    async with admin.connect() as connection:
        await connection.execute(text("DROP ROLE plain"))


def ping() -> Workload:
    workload = Workload("ping")

    @workload.operation("ping", kind="read")
    async def ping(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1, pg_sleep(0.01)"))

    return workload


async def test_missing_rights_are_said_and_no_more(
    watched: AsyncEngine, plain_role: AsyncEngine
) -> None:
    async with watched.connect() as other:
        await other.execute(text("SELECT 'busy in a transaction'"))
        side = account(
            await run(ping(), sessions=create_sessions(plain_role), ops=5, server_side=True)
        )
    assert side.notes == (HIDDEN,)
    assert side.database is not None
    assert side.database.rollbacks == 5
    assert [s.calls for s in side.statements or () if "SELECT" in s.statement] == [5]


async def test_a_right_taken_away_is_said(watched: AsyncEngine, plain_role: AsyncEngine) -> None:
    async with watched.begin() as connection:
        await connection.execute(
            text("REVOKE EXECUTE ON FUNCTION pg_stat_statements(boolean) FROM PUBLIC")
        )
    side = account(await run(ping(), sessions=create_sessions(plain_role), ops=5, server_side=True))
    assert side.statements is None
    assert "no statements: permission denied for function pg_stat_statements" in side.notes


async def test_another_driver_is_asked_too(database_url: str) -> None:
    pytest.importorskip("psycopg")
    url = make_url(database_url).set(drivername="postgresql+psycopg_async")
    engine = create_async_engine(url)
    side = account(
        await run(ping(), sessions=create_sessions(engine), ops=5, concurrency=2, server_side=True)
    )
    await engine.dispose()
    assert side.database is not None
    assert LATE in side.notes


async def test_nothing_of_it_stays(engine: AsyncEngine) -> None:
    others = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )
    tasks = asyncio.all_tasks()
    sessions = create_sessions(engine)
    await run(ping(), sessions=sessions, ops=5, concurrency=2, server_side=True)
    assert asyncio.all_tasks() == tasks
    cancelled = asyncio.create_task(
        run(ping(), sessions=sessions, duration=60, concurrency=2, server_side=True)
    )
    async with asyncio.timeout(20), create_async_engine(engine.url).connect() as probe:
        autocommit = await probe.execution_options(isolation_level="AUTOCOMMIT")
        while (await autocommit.scalar(others) or 0) < 3:
            await asyncio.sleep(0.01)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        while asyncio.all_tasks() != tasks:  # asyncpg still asks the server to stop
            await asyncio.sleep(0.01)
        await engine.dispose()
        while await autocommit.scalar(others):
            await asyncio.sleep(0.01)
    await probe.engine.dispose()


async def test_it_is_off_unless_wanted(engine: AsyncEngine) -> None:
    result = await run(ping(), sessions=create_sessions(engine), ops=2)
    assert result.server_side is None
