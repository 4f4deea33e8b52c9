"""Databases that refuse what a run needs: one clear line, the right exit code, nothing left."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.faults.command import Process
from tests.faults.ledger import backends
from tests.faults.server import Server, new_server
from tests.folders import small_disk as mounted_disk

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


async def execute(engine: AsyncEngine, *statements: str) -> None:
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
        await connection.commit()


async def our_schemas(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        count = await connection.scalar(
            text("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'async_loader%'")
        )
    return int(count or 0)


async def refused(tmp_path: Path, url: URL | str, *hints: str, code: int = 110) -> None:
    """Run the command and expect one clear line."""
    shown = make_url(url).render_as_string(hide_password=False)
    process = Process("--database-url", shown, "--ops", "100", "--progress", "none", cwd=tmp_path)
    output, errors = await asyncio.to_thread(process.end)
    assert process.code == code, errors
    assert output == ""
    (line,) = errors.splitlines()
    for hint in hints:
        assert hint in line
    assert "secret" not in line


async def test_a_database_that_does_not_exist(database_url: str, tmp_path: Path) -> None:
    url = make_url(database_url).set(database="missing")
    await refused(tmp_path, url, "database 'missing' does not exist", "create it")


@pytest.fixture
async def role(engine: AsyncEngine) -> AsyncIterator[str]:
    """A role that may connect and no more."""
    name = f"faults_{os.getpid()}"
    await execute(engine, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    yield name
    await execute(engine, f"DROP ROLE {name}")


async def test_a_role_without_rights(
    database_url: str, engine: AsyncEngine, role: str, tmp_path: Path
) -> None:
    url = make_url(database_url).set(username=role, password="secret")
    await refused(tmp_path, url, role, "GRANT CREATE ON DATABASE")
    assert await our_schemas(engine) == 0


async def test_a_read_only_server(
    database_url: str, engine: AsyncEngine, admin: AsyncEngine, tmp_path: Path
) -> None:
    name = make_url(database_url).database
    await execute(admin, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await refused(tmp_path, database_url, "read-only")
    assert await our_schemas(engine) == 0


async def test_a_database_dropped_in_mid_run(
    database_url: str, admin: AsyncEngine, tmp_path: Path
) -> None:
    name = make_url(database_url).database
    assert name is not None
    process = Process(
        *("--database-url", database_url, "--duration", "10m", "--concurrency", "4"),
        *("--op-timeout", "1s", "--give-up", "2s"),
        cwd=tmp_path,
    )
    process.wait_for("running")
    await asyncio.sleep(0.5)
    await execute(admin, f"DROP DATABASE {name} WITH (FORCE)", f"CREATE DATABASE {name}")
    await execute(admin, f"DROP DATABASE {name} WITH (FORCE)")
    output, errors = await asyncio.to_thread(process.end)
    await execute(admin, f"CREATE DATABASE {name}")  # for the fixture to drop
    assert process.code == 1, errors
    assert "aborted" in output
    assert "3D000 invalid_catalog_name" in output
    assert "async_loader: failed: gave up: no operation has succeeded" in errors
    assert "could not be dropped" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert await backends(admin, name) == 0


@pytest.fixture
def small_disk() -> Iterator[Path]:
    with mounted_disk() as folder:
        yield folder


@pytest.fixture
def own_server() -> Iterator[Server]:
    with new_server() as server:
        yield server


@pytest.mark.timeout(180)
async def test_a_full_disk_of_the_server(
    own_server: Server, small_disk: Path, tmp_path: Path
) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(own_server.url, isolation_level="AUTOCOMMIT")
    space = small_disk / "space"
    space.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(space, own_server.directory.joinpath("data").stat().st_uid, -1)
    await execute(
        engine,
        f"CREATE TABLESPACE small LOCATION '{space}'",
        # The catalogue stays on the large disk: only tables fill the small one.
        "ALTER ROLE postgres SET default_tablespace = 'small'",
    )
    process = Process(
        *("--database-url", own_server.url, "--ops", "1500", "--write-ratio", "1"),
        *("--out", "json=x"),
        cwd=tmp_path,
    )
    output, errors = await asyncio.to_thread(process.end, 110)  # thousands of failures
    assert process.code == 1, errors
    assert re.search(r"53100 disk_full[^(]*\(create", output)
    assert "% of the operations failed, more than 1.00%" in errors.splitlines()[-1]
    assert await our_schemas(engine) == 0
    await engine.dispose()


@pytest.mark.parametrize("target", ["/dev/full", "disk"])
async def test_no_room_for_the_report(
    target: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if target == "disk":
        disk: Path = request.getfixturevalue("small_disk")
        (disk / "filler").write_bytes(b"x" * (1 << 20))
        target = str(disk / "result")
    elif not Path(target).exists():
        pytest.skip("no /dev/full here")
    process = Process(
        *("--workload", "noop", "--ops", "1000", "--out", f"json={target}"), cwd=tmp_path
    )
    output, errors = await asyncio.to_thread(process.end)
    assert process.code == 1
    assert "done  1,000 operations" in output
    assert errors.splitlines()[-1] == (
        f"async_loader: --out json={target} could not be written: No space left on device"
    )
    if target != "/dev/full":
        assert not Path(target).exists()
        assert [p.name for p in Path(target).parent.iterdir()] == ["filler"]


async def test_no_room_for_the_summary(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as full:
        process = Process(
            *("--workload", "noop", "--ops", "1000", "--out", "json=x"), cwd=tmp_path, stdout=full
        )
        _, errors = await asyncio.to_thread(process.end)
    assert process.code == 1
    assert (tmp_path / "x").exists(), "the other output is written all the same"
    assert "the summary could not be printed" in errors
    assert "Traceback" not in errors
