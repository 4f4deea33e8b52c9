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
MAPPED = """from sqlalchemy.orm import DeclarativeBase
class Base(DeclarativeBase): ...
class Keyless(Base): __tablename__ = "keyless"
"""
# However quick the others are, each connection of the pool is needed.
OWN = """
import asyncio, os
@workload.sessions
def sessions():
    engine = create_async_engine(os.environ["SHOP_URL"], pool_size=3, max_overflow=0)
    return async_sessionmaker(engine, expire_on_commit=False)
three = asyncio.Barrier(3)
@workload.operation("buy", kind="write")
async def buy(session: AsyncSession):
    await session.execute(text("INSERT INTO basket VALUES ('apple')"))
    await three.wait()
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


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_a_database_url_that_it_does_not_use_is_said_so(
    command: Command, database_url: str, tmp_path: Path, by: str
) -> None:
    (tmp_path / "load.py").write_text(HEAD + OWN.replace("INSERT INTO basket VALUES ('apple')",
                                                         "SELECT 1"))  # fmt: skip
    argv = ["--workload", "load.py", "--ops", "3", "--concurrency", "3", "--progress", "none"]
    elsewhere = "postgresql://u:hunter2@staging.invalid:1/nowhere"
    others = {"SHOP_URL": database_url}
    if by == "flag":
        argv += ["--database-url", elsewhere]
    else:
        others["ASYNC_LOADER_DATABASE_URL"] = elsewhere
    done = command(*argv, **others)
    assert done.returncode == 0, done.stderr
    said = "--database-url has no effect: workload 'shop' brings sessions of its own"
    assert said in done.stderr
    strict = command(*argv, "--strict", **others)
    assert strict.returncode == 104
    assert said in strict.stderr
    assert "hunter2" not in done.stderr + strict.stderr


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 107, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = (one for one in done.stderr.splitlines() if one != "torn down")
    return line


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("x = (", "load.py:1: "),
        ("import absent_package", "load.py:1: ModuleNotFoundError: No module named"),
        ("import absent_package", "(install it here, or start in the folder that holds it)"),
        ("import sys\nsys.exit('no')", "load.py:2: SystemExit: no (a workload is imported"),
        ("import json\njson.loads('{')", "load.py:2: JSONDecodeError"),
        (MAPPED, "load.py:3: ArgumentError"),
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


HOOKS = """
@workload.setup
async def prepare(sessions, seed):
    if seed == 1:
        lines = {}
        lines["apples"]

@workload.teardown
async def clear(shared):
    print("torn down")
    if seed_of_tear_down:
        raise RuntimeError("still there")
"""


def test_a_set_up_that_raises_is_exit_107(
    command: Command, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "load.py").write_text(HEAD + GOOD + "seed_of_tear_down = 0" + HOOKS)
    argv = ("--workload", "load.py:workload", "--seed", "1", "--database-url", database_url)
    done = command(*argv, "--progress", "none")
    assert (
        "load.py:15 in prepare: the set-up of workload 'shop' raised KeyError: 'apples'"
        in complaint(done)
    )
    assert "torn down" in done.stderr.splitlines(), "the tear-down always runs"
    assert done.stdout == ""


def test_a_tear_down_that_raises_does_not_take_the_report_away(
    command: Command, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "load.py").write_text(HEAD + GOOD + "seed_of_tear_down = 1" + HOOKS)
    argv = ("--workload", "load.py:workload", "--ops", "20", "--database-url", database_url)
    done = command(*argv, "--progress", "none", "--out", "json=result.json")
    assert (
        "load.py:21 in clear: the tear-down of workload 'shop' raised RuntimeError: still there"
        in complaint(done)
    )
    assert "done  20 operations" in done.stdout
    assert (tmp_path / "result.json").exists()


def test_sessions_that_cannot_be_made_are_exit_107(command: Command, tmp_path: Path) -> None:
    broken = OWN.replace('os.environ["SHOP_URL"]', 'os.environ["ABSENT"]')
    (tmp_path / "load.py").write_text(HEAD + broken)
    assert "load.py:10: the sessions of workload 'shop': KeyError: 'ABSENT'" in complaint(
        command("--workload", "load.py:workload", "--progress", "none")
    )
    (tmp_path / "load.py").write_text(HEAD + OWN.replace("return async_sessionmaker(", "return ("))
    (tmp_path / "load.py").write_text(
        (tmp_path / "load.py").read_text().replace("(engine, expire_on_commit=False)", "engine")
    )
    told = complaint(
        command(
            "--workload",
            "load.py:workload",
            "--progress",
            "none",
            SHOP_URL="postgresql+asyncpg:///x",
        )
    )
    assert "must be a factory, as async_sessionmaker(engine), not AsyncEngine" in told


def test_a_file_is_executed_once(command: Command, database_url: str, tmp_path: Path) -> None:
    """Whatever it is called: a module of Python's own keeps its name."""
    (tmp_path / "folder").mkdir()
    for name in ("load.py", "folder/json.py"):
        (tmp_path / name).write_text(HEAD + GOOD + "print('executed')\n")
        done = command(
            "--workload", f"{name}:workload", "--ops", "5", "--database-url", database_url
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("executed") == 1


def test_sync_modes_need_twins(command: Command, tmp_path: Path) -> None:
    (tmp_path / "load.py").write_text(HEAD + GOOD)
    done = command("--workload", "load.py:workload", "--mode", "sync")
    assert done.returncode == 104
    assert "operation 'look' of workload 'shop' has no sync twin" in done.stderr
