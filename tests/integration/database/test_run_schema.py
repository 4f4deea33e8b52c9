"""A run's schema: marked, guarded, dropped at the end, and nothing else ever dropped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader.database.postgresql import Namespace, create_engine
from async_loader.database.run_schema import MARKER, PREFIX, run_schema
from async_loader.database.urls import parse_url
from async_loader.errors import DatabaseError

KILLED = """
import asyncio, os, signal, sys
from async_loader.database.urls import parse_url
from async_loader.database.run_schema import run_schema
async def main():
    async with run_schema(parse_url(sys.argv[1])) as schema:
        print(schema, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def schemas(engine: AsyncEngine) -> set[str]:
    async with engine.connect() as connection:
        names = await connection.scalars(
            text("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'async_loader%'")
        )
        return set(names)


async def execute(engine: AsyncEngine, statement: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement))


async def killed_run(database_url: str) -> str:
    """Return the schema that a run left behind when it was killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        KILLED,
        database_url,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    output, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL
    return output.decode().strip()


async def lock_is_free(engine: AsyncEngine, schema: str) -> None:
    """Wait until the killed run's backend has noticed."""
    query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = :key")
    async with engine.connect() as connection:
        while await connection.scalar(query, {"key": int(schema.removeprefix(PREFIX), 16)}):
            await asyncio.sleep(0.02)


async def test_it_is_there_during_the_run_and_gone_after(
    database_url: str, engine: AsyncEngine
) -> None:
    url = parse_url(database_url)
    async with run_schema(url) as schema:
        assert await schemas(engine) == {schema}
        inside = create_engine(url, pool_size=1, namespace=Namespace(schema))
        await execute(inside, "CREATE TABLE parent (id int)")
        await inside.dispose()
        async with engine.connect() as connection:
            table = await connection.scalar(text(f"SELECT '{schema}.parent'::regclass::text"))
            assert table == f"{schema}.parent"
    assert await schemas(engine) == set()


async def test_two_runs_do_not_see_each_other(database_url: str, engine: AsyncEngine) -> None:
    url = parse_url(database_url)
    async with run_schema(url) as first:
        async with run_schema(url) as second:
            assert first != second
            assert await schemas(engine) == {first, second}
        assert await schemas(engine) == {first}


async def test_a_killed_runs_schema_is_removed_by_the_next(
    database_url: str, engine: AsyncEngine
) -> None:
    left = await killed_run(database_url)
    assert await schemas(engine) == {left}
    await lock_is_free(engine, left)
    async with run_schema(parse_url(database_url)) as schema:
        assert await schemas(engine) == {schema}


async def test_kept_data_is_kept_by_later_runs(database_url: str, engine: AsyncEngine) -> None:
    url = parse_url(database_url)
    async with run_schema(url, keep=True) as kept:
        pass
    async with run_schema(url):
        pass
    assert await schemas(engine) == {kept}


@pytest.mark.parametrize(
    "statement",
    [
        # Named like ours, without the marker.
        f"CREATE SCHEMA {PREFIX}0000abcd",
        # With a table named like the marker that does not say what ours says.
        f"CREATE SCHEMA {PREFIX}0000abcd CREATE TABLE {MARKER} (run text, keep boolean)",
        # With a marker of the right name and other columns.
        f"CREATE SCHEMA {PREFIX}0000abcd CREATE TABLE {MARKER} (id int)",
        # A marker within a schema of another name.
        f"CREATE SCHEMA async_loader_data CREATE TABLE {MARKER} (run text, keep boolean)",
    ],
)
async def test_what_we_did_not_mark_is_never_dropped(
    database_url: str, engine: AsyncEngine, statement: str
) -> None:
    await execute(engine, statement)
    before = await schemas(engine)
    async with run_schema(parse_url(database_url)):
        pass
    assert await schemas(engine) == before


async def test_a_marker_copied_elsewhere_does_not_condemn(
    database_url: str, engine: AsyncEngine
) -> None:
    """A restored or renamed copy of a run's schema is somebody's data."""
    left = await killed_run(database_url)
    await lock_is_free(engine, left)
    await execute(engine, f"ALTER SCHEMA {left} RENAME TO {PREFIX}0000abcd")
    async with run_schema(parse_url(database_url)):
        pass
    assert await schemas(engine) == {f"{PREFIX}0000abcd"}


async def test_a_role_without_rights_is_told_what_to_do(
    database_url: str, engine: AsyncEngine
) -> None:
    role = f"nobody_{os.getpid()}"
    await execute(engine, f"CREATE ROLE {role} LOGIN")
    try:
        with pytest.raises(DatabaseError, match=f"{role} may not.*GRANT CREATE ON DATABASE"):
            async with run_schema(parse_url(database_url).set(username=role)):
                pass
        assert await schemas(engine) == set()
    finally:
        await execute(engine, f"DROP ROLE {role}")


async def test_a_cut_guard_connection_does_not_leave_the_schema(
    database_url: str, engine: AsyncEngine
) -> None:
    async with run_schema(parse_url(database_url)):
        await execute(
            engine,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
    assert await schemas(engine) == set()
