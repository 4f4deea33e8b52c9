"""One PostgreSQL for the whole session, a database of its own for each test that wants one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from async_loader.database.embedded import EmbeddedServer, embedded_server
from tests.folders import in_memory, short_folder
from tests.forked import Forks

_numbers = count(1)

_AUTOVACUUM = text("SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^autovacuum'")


# It ends with whoever started it, however that ends.
_BUSY_LOOP = """
import os
parent = os.getppid()
while os.getppid() == parent:
    sum(range(1_000_000))
"""


def pytest_configure(config: pytest.Config) -> None:
    """Let the commands under test hear signals, also in a shell's background and under nohup."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # those that we start would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # which is ours alone
    if not hasattr(config, "workerinput"):  # the tests' own processes are beside the same loops
        for _ in range(config.getoption("busy_loops")):
            config.add_cleanup(partial(_end, subprocess.Popen([sys.executable, "-c", _BUSY_LOOP])))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the benchmarks need, and a busy machine."""
    parser.addoption("--peer", help="a script to measure against: PEER MODE OPS URL, prints JSON")
    parser.addoption(
        "--busy-loops", type=int, default=0, help="how many processes keep a core busy meanwhile"
    )


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run what is selected by a marker, benchmarks above all, alone and with its output."""
    shown = config.getoption("capture") == "no" or config.getoption("usepdb")
    return 0 if shown or _is_marked(config) else 2 * (os.cpu_count() or 1)


def _is_marked(config: pytest.Config) -> bool:
    """Tell whether a marker selects what runs."""
    return "not benchmark" not in config.getoption("markexpr")


@pytest.fixture(scope="session")
def server_directory(pytestconfig: pytest.Config) -> Iterator[Path]:
    """A folder for embedded servers; on a disk for what is measured."""
    with short_folder(None if _is_marked(pytestconfig) else in_memory()) as folder:
        yield folder


@pytest.fixture(scope="session")
def server(server_directory: Path) -> Iterator[EmbeddedServer]:
    """A running PostgreSQL that nobody else uses."""
    with embedded_server(server_directory / "server") as running:
        yield running


@pytest.fixture(scope="session")
def forking() -> Iterator[Forks]:
    """A process that has imported the command already."""
    with closing(Forks()) as forks:
        yield forks


@pytest.fixture
async def admin(server: EmbeddedServer) -> AsyncIterator[AsyncEngine]:
    """The server's maintenance database, in AUTOCOMMIT."""
    engine = create_async_engine(server.url, isolation_level="AUTOCOMMIT")
    yield engine
    await engine.dispose()


@pytest.fixture
async def alone(admin: AsyncEngine) -> AsyncIterator[None]:
    """No autovacuum: its workers' transactions are the database's too."""
    async with admin.connect() as connection:
        await connection.execute(text("ALTER SYSTEM SET autovacuum = off"))
        await connection.execute(text("SELECT pg_reload_conf()"))
        async with asyncio.timeout(30):
            while await connection.scalar(_AUTOVACUUM):  # the launcher too
                await asyncio.sleep(0.05)
        yield
        await connection.execute(text("ALTER SYSTEM RESET autovacuum"))
        await connection.execute(text("SELECT pg_reload_conf()"))


@pytest.fixture
async def database_url(server: EmbeddedServer, admin: AsyncEngine) -> AsyncIterator[str]:
    """The URL of a new, empty database, dropped after the test with whoever is connected."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    async with admin.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    yield make_url(server.url).set(database=name).render_as_string(hide_password=False)
    async with admin.connect() as connection:
        await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A plain engine on the test's database."""
    engine = create_async_engine(database_url)
    yield engine
    await engine.dispose()
