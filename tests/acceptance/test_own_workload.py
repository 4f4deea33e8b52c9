"""A user's own workload: found, run, and its mistakes explained."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from .conftest import Command

HEAD = """
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from async_loader import Workload
workload = Workload("shop")
"""
GOOD = """
@workload.operation("look", kind="read")
async def look(session: AsyncSession):
    await session.execute(text("SELECT 1"))
"""
SYNC = GOOD.replace("async def", "def").replace("await", "")
OWN = """
import os
@workload.sessions
def sessions():
    engine = create_async_engine(os.environ["SHOP_URL"], pool_size=3, max_overflow=0)
    return async_sessionmaker(engine, expire_on_commit=False)
@workload.operation("buy", kind="write")
async def buy(session: AsyncSession):
    await session.execute(text("INSERT INTO basket VALUES ('apple')"))
    await session.commit()
"""


def test_a_file_or_a_module_is_run(command: Command, database_url: str, tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "load.py").write_text(HEAD + GOOD)
    for target in ("shop/load.py:workload", "shop.load:workload"):
        done = command("--workload", target, "--ops", "20", "--database-url", database_url)
        assert done.returncode == 0, done.stderr
        assert "\n look " in done.stdout


async def test_it_may_bring_its_own_sessions(
    command: Command, database_url: str, engine: AsyncEngine, tmp_path: Path
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE basket (item text)"))
    (tmp_path / "load.py").write_text(HEAD + OWN)
    done = command("--workload", "load.py:workload", "--ops", "30", SHOP_URL=database_url)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 in use at peak" in done.stdout
    assert "embedded" not in done.stdout + done.stderr
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM basket")) == 30
        schemas = text("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'async_loader%'")
        assert await connection.scalar(schemas) == 0


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 107, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("x = (", "load.py:1: "),
        ("import absent_package", "load.py:1: ModuleNotFoundError: No module named"),
        (HEAD + "1 / 0", "load.py:6: ZeroDivisionError"),
        ("", "load.py has no workload 'workload': it defines none"),
        (HEAD.replace("workload =", "workloads ="), "did you mean workloads?"),
        (HEAD, "has no operation"),
        (HEAD + SYNC, "load.py:7: operation 'look' must be a coroutine function"),
        (HEAD + GOOD.replace("session:", "request:"), "load.py:7: operation 'look' may ask for"),
    ],
)  # fmt: skip
def test_a_mistake_names_file_and_line(
    command: Command, tmp_path: Path, source: str, hint: str
) -> None:
    (tmp_path / "load.py").write_text(source)
    assert hint in complaint(command("--workload", "load.py:workload"))


def test_what_is_not_there_is_said_so(command: Command) -> None:
    assert "there is no file absent.py" in complaint(command("--workload", "absent.py:workload"))
    assert "No module named 'absent'" in complaint(command("--workload", "absent:workload"))
    wrong = command("--workload", "mixd")
    assert wrong.returncode == 104
    assert "did you mean mixed?" in wrong.stderr


def test_a_set_up_that_raises_is_exit_107(
    command: Command, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "load.py").write_text(
        HEAD + GOOD + "@workload.setup\nasync def prepare():\n    raise RuntimeError('no data')\n"
    )
    done = command("--workload", "load.py:workload", "--database-url", database_url)
    assert done.returncode == 107
    assert "set-up of workload 'shop' raised RuntimeError: no data" in done.stderr


def test_sync_modes_need_twins(command: Command, tmp_path: Path) -> None:
    (tmp_path / "load.py").write_text(HEAD + GOOD)
    done = command("--workload", "load.py:workload", "--mode", "sync")
    assert done.returncode == 104
    assert "operation 'look' of workload 'shop' has no sync twin" in done.stderr
