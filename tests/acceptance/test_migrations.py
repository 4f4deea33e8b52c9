"""A real Alembic project: expand, backfill, contract, and what the last step refuses."""

from __future__ import annotations

import subprocess
import sys

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.acceptance.conftest import ROOT, Command, environment

ALEMBIC = """
import sys
from alembic.config import CommandLine, Config
from alembic import command
config = Config()
config.set_main_option("script_location", sys.argv[1])
command.upgrade(config, sys.argv[2], sql="--sql" in sys.argv)
"""
MIGRATIONS = ROOT / "tests" / "examples" / "prices" / "migrations"


def alembic(database_url: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Upgrade as `alembic upgrade` does."""
    return subprocess.run(
        [sys.executable, "-c", ALEMBIC, str(MIGRATIONS), *argv],
        capture_output=True, text=True, check=False,
        env=environment(PRICES_DATABASE_URL=database_url),
    )  # fmt: skip


async def columns(engine: AsyncEngine) -> dict[str, str]:
    """Return the table's columns, and whether they may be null."""
    query = text(
        "SELECT column_name, is_nullable FROM information_schema.columns WHERE table_name = 'price'"
    )
    async with engine.connect() as connection:
        return {row[0]: row[1] for row in await connection.execute(query)}


async def test_expand_backfill_contract(
    database_url: str, engine: AsyncEngine, command: Command
) -> None:
    its = database_url
    server = ("--database-url", database_url)
    expanded = alembic(its, "expand")
    assert expanded.returncode == 0, expanded.stderr
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO price (amount, id) VALUES ('1.25', 1)"))
    refused = command("job", "require", "backfill_prices", *server)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "it has never run" in refused.stderr
    early = alembic(its, "head")
    assert early.returncode != 0
    assert "JobNotDoneError: backfill_prices is not done here" in early.stderr
    assert await columns(engine) == {"id": "NO", "amount": "NO", "cents": "YES"}
    target = "tests.examples.prices.jobs:backfill"
    assert command("job", "run", target, *server).returncode == 0
    assert command("job", "require", "backfill_prices", *server).returncode == 0
    assert command("job", "require", target, "--recheck", *server).returncode == 0
    late = alembic(its, "head")
    assert late.returncode == 0, late.stderr
    assert await columns(engine) == {"id": "NO", "cents": "NO"}


async def test_a_script_refuses_as_the_migration_does(
    database_url: str, engine: AsyncEngine, command: Command
) -> None:
    url = make_url(database_url).set(drivername="postgresql+psycopg")
    script = alembic(url.render_as_string(hide_password=False), "head", "--sql")
    assert script.returncode == 0, script.stderr
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(plain)
    try:
        with pytest.raises(asyncpg.RaiseError, match="backfill_prices is not done: it has never"):
            await connection.execute(script.stdout)
        await connection.execute("ROLLBACK")
        before, _, after = script.stdout.partition("DO $async_loader$")
        await connection.execute(before + "COMMIT")
        assert command(
            "job", "run", "tests.examples.prices.jobs:backfill", "--database-url", database_url
        ).returncode == 0  # fmt: skip
        await connection.execute("BEGIN; DO $async_loader$" + after)
    finally:
        await connection.close()
    assert await columns(engine) == {"id": "NO", "cents": "NO"}
