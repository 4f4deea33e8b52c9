"""The fixture and the marker `query_budget` in tests of a user's own, run by pytest as theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# pytester forgets what a test is the first to import: C code and SQLAlchemy's registry, which do
# not bear to be imported twice, are there before.
import asyncpg  # noqa: F401
import pytest
import sqlalchemy.dialects.postgresql.asyncpg  # noqa: F401

ROOT = Path(__file__).parents[3]
pytest_plugins = ["pytester"]

PLUGINS = (
    "-p",
    "async_loader.testing.plugin",
    "-p",
    "pytest_asyncio.plugin",
    "-p",
    "anyio.pytest_plugin",
)

# An application of theirs, on a file, sync and async; `pages(n)` is an N+1 of n children.
SHOP = """
from sqlalchemy import NullPool, ForeignKey, create_engine, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

URL = "sqlite:///shop.sqlite"

class Base(DeclarativeBase): ...

class Artist(Base):
    __tablename__ = "artist"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

class Song(Base):
    __tablename__ = "song"
    id: Mapped[int] = mapped_column(primary_key=True)
    artist_id: Mapped[int] = mapped_column(ForeignKey("artist.id"))
    artist: Mapped[Artist] = relationship()

engine = create_engine(URL)
async_engine = create_async_engine("sqlite+aiosqlite:///shop.sqlite", poolclass=NullPool)

def fill():
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Song(artist=Artist(name=f"artist {i}")) for i in range(9)])
        session.commit()

def one(session):
    return session.scalar(select(Song.id).where(Song.id == 1))

def pages(session, songs):
    return [song.artist.name for song in session.scalars(select(Song).limit(songs))]
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite with the application above; nothing of ours is imported by it."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # others' take long to load
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(pytester.path))))
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    pytester.makepyfile(shop=SHOP)
    subprocess.run(
        [sys.executable, "-c", "import shop; shop.fill()"], check=True, cwd=pytester.path
    )
    return pytester


def run(suite: pytest.Pytester, tests: str, *options: str) -> pytest.RunResult:
    text = "import asyncio\nimport threading\nimport pytest\nfrom shop import *\n" + "\n".join(
        line.removeprefix("    ") for line in tests.splitlines()
    )
    suite.makepyfile(test_it=text)
    return suite.runpytest_subprocess(
        *PLUGINS, "-p", "no:cacheprovider", "--strict-markers", *options, timeout=100
    )


def test_loading_it_costs_no_suite_anything() -> None:
    code = (
        "import pytest, sys\n"
        "class Look:\n"
        "    def pytest_sessionfinish(self):\n"
        "        print('loaded', 'async_loader.testing.plugin' in sys.modules, sorted(\n"
        "            {'sqlalchemy', 'asyncpg', 'hdrh', 'msgspec', 'async_loader.load'}\n"
        "            & set(sys.modules)))\n"
        "pytest.main(['--collect-only', '-q', '-p', 'async_loader.testing.plugin', '--rootdir',"
        " '/', '-c', '/dev/null', '/dev/null'], plugins=[Look()])"
    )
    env = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert "loaded True []" in done.stdout, done.stdout + done.stderr


def test_what_a_test_may_send(suite: pytest.Pytester) -> None:
    """Sync and async, by marker and by call; pytest-asyncio in its strict mode and anyio."""
    tests = """
    def hold(session):  # four statements
        for _ in range(4):
            one(session)

    @pytest.fixture
    def session():
        with Session(engine) as session:
            hold(session)  # the fixture's own
            yield session
            hold(session)

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.mark.query_budget(max_statements=4)
    def test_sync_within(session): hold(session)

    @pytest.mark.query_budget(max_statements=3)
    def test_sync_beyond(session): hold(session)

    def test_call_beyond(session, query_budget):
        hold(session)
        query_budget(max_statements=3)
        hold(session)

    def test_block(session, query_budget):
        with query_budget(max_statements=4) as budget:
            hold(session)
        hold(session)
        assert (budget.statements, budget.ms_database > 0) == (4, True)

    def test_block_beyond(session, query_budget):
        with query_budget(max_statements=3):
            hold(session)

    @pytest.mark.asyncio
    @pytest.mark.query_budget(max_statements=4)
    async def test_async_within():
        async with AsyncSession(async_engine) as session:
            await session.run_sync(hold)

    @pytest.mark.asyncio
    @pytest.mark.query_budget(max_statements=3)
    async def test_async_beyond():
        async with AsyncSession(async_engine) as session:
            await asyncio.gather(session.run_sync(hold))

    @pytest.mark.anyio
    @pytest.mark.query_budget(max_statements=4)
    async def test_anyio_within():
        async with AsyncSession(async_engine) as session:
            await session.run_sync(hold)

    @pytest.mark.anyio
    async def test_anyio_beyond(query_budget):
        query_budget(max_statements=3)
        async with AsyncSession(async_engine) as session:
            await session.run_sync(hold)

    @pytest.mark.query_budget(max_ms_database=0)
    def test_time_beyond(session): one(session)

    @pytest.mark.query_budget(max_statements=3)
    def test_its_own_failure(session):
        hold(session)
        raise KeyError("its own")
    """
    done = run(suite, tests)
    done.assert_outcomes(passed=4, failed=7)
    failed = {line.split("::")[1].split()[0] for line in done.outlines if line[:7] == "FAILED "}
    assert failed == {
        "test_sync_beyond",
        "test_call_beyond",
        "test_block_beyond",
        "test_async_beyond",
        "test_anyio_beyond",
        "test_time_beyond",
        "test_its_own_failure",
    }
    done.stdout.re_match_lines(
        [
            r".*the query budget is exceeded: 4 statements, max_statements=3",
            r" +4x  SELECT song.id FROM song WHERE song.id = \?",
            r" +at shop.py:\d+ in one, \d+\.\d ms",
        ]
    )
    done.stdout.re_match_lines([r"E.*KeyError: 'its own'"])
    assert "query_budget(max_statements=3):" in done.stdout.str(), "the line of the block"


def test_an_n_plus_one_is_named_with_its_line(suite: pytest.Pytester) -> None:
    tests = """
    pytestmark = pytest.mark.query_budget()

    def test_none():
        with Session(engine) as session:
            pages(session, 4)

    def test_one():
        with Session(engine) as session:
            pages(session, 6)

    @pytest.mark.query_budget(max_n_plus_one=1)
    async def test_allowed():
        async with AsyncSession(async_engine) as session:
            await session.run_sync(pages, 6)

    def test_batches_are_none(query_budget):
        query_budget(max_statements=6)
        with Session(engine.execution_options(insertmanyvalues_page_size=10)) as session:
            rows = [{"name": "new"} for _ in range(60)]
            assert len(session.scalars(insert(Artist).returning(Artist.id), rows).all()) == 60
    """
    done = run(suite, tests, "-o", "asyncio_mode=auto")
    done.assert_outcomes(passed=3, failed=1)
    done.stdout.re_match_lines(
        [
            r".*exceeded: 1 sent 5 times or more \(N\+1\), max_n_plus_one=0",
            r" +6x  SELECT .*FROM artist WHERE artist.id = \?  N\+1",
            r" +at shop.py:\d+ in <listcomp> \(lazy load of Song.artist\), \d+\.\d ms|"
            r" +at shop.py:\d+ in pages \(lazy load of Song.artist\), \d+\.\d ms",
        ]
    )


def test_only_its_own_statements_count(suite: pytest.Pytester) -> None:
    """Not those of fixtures beside it, but those of threads and clients that it uses; by xdist."""
    tests = """
    from concurrent.futures import ThreadPoolExecutor

    import httpx
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    app = FastAPI()

    @app.get("/async")
    async def asynchronous():
        async with AsyncSession(async_engine) as session:
            return await session.scalar(select(Song.id).limit(1))

    @app.get("/sync")
    def sync():
        with Session(engine) as session:
            return one(session)

    def busy(stop, begun):
        while not stop.is_set():
            with Session(engine) as session:
                one(session)
            begun.set()

    @pytest.fixture
    def beside():
        stop, begun = threading.Event(), threading.Event()
        thread = threading.Thread(target=busy, args=(stop, begun))
        thread.start()
        begun.wait()
        yield begun
        stop.set()
        thread.join()

    @pytest.fixture
    async def task_beside():
        async def go():
            while True:
                async with AsyncSession(async_engine) as session:
                    await session.scalar(select(Song.id).limit(1))
                done.set()
        done = asyncio.Event()
        task = asyncio.create_task(go())
        await done.wait()
        yield done
        task.cancel()

    @pytest.fixture(scope="session")
    def pool():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(int).result()
            yield pool

    @pytest.mark.query_budget(max_statements=0)
    def test_thread_beside(beside):
        beside.clear()
        beside.wait()

    @pytest.mark.query_budget(max_statements=0)
    async def test_task_beside(task_beside):
        task_beside.clear()
        await task_beside.wait()

    def work():
        with Session(engine) as session:
            one(session)

    def test_threads_of_its_own(query_budget, pool):
        with query_budget() as budget:
            pool.submit(work).result()
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        assert budget.statements == 2

    async def test_executor_of_its_own(query_budget):
        with query_budget() as budget:
            await asyncio.to_thread(work)
            await asyncio.get_running_loop().run_in_executor(None, work)
        assert budget.statements == 2

    def test_client(query_budget):
        with TestClient(app) as client, query_budget() as budget:
            assert client.get("/async").json() == client.get("/sync").json() == 1
        assert budget.statements == 2

    async def test_in_process(query_budget):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            with query_budget() as budget:
                assert (await client.get("/async")).json() == (await client.get("/sync")).json()
        assert budget.statements == 2

    @pytest.fixture
    def prepared():
        work()

    @pytest.mark.query_budget(max_statements=1, fixtures=True)
    def test_with_fixtures(prepared):
        work()
    """
    done = run(suite, tests, "-o", "asyncio_mode=auto", "-p", "xdist.plugin", "-n2")
    done.assert_outcomes(passed=6, failed=1)
    done.stdout.re_match_lines([r".*exceeded: 2 statements, max_statements=1"])


def test_other_kinds_of_tests(suite: pytest.Pytester) -> None:
    tests = """
    import unittest
    from hypothesis import given, settings, strategies

    class TestSync(unittest.TestCase):
        @pytest.mark.query_budget(max_statements=0)
        def test_it(self):
            with Session(engine) as session:
                one(session)

    class TestAsync(unittest.IsolatedAsyncioTestCase):
        @pytest.mark.query_budget(max_statements=0)
        async def test_it(self):
            async with AsyncSession(async_engine) as session:
                await session.run_sync(one)

    class TestOurs:
        @pytest.mark.query_budget(max_statements=0)
        @pytest.mark.parametrize("number", [1, 2])
        async def test_it(self, number):
            async with AsyncSession(async_engine) as session:
                await session.run_sync(one)

    @pytest.mark.query_budget(max_statements=0)
    @settings(max_examples=2, database=None)
    @given(strategies.integers())
    def test_examples(number):
        with Session(engine) as session:
            one(session)

    @pytest.mark.query_budget(max_statements=0)
    @settings(max_examples=2, database=None)
    @given(strategies.integers())
    async def test_async_examples(number):
        async with AsyncSession(async_engine) as session:
            await session.run_sync(one)

    @pytest.mark.xfail(strict=True)
    @pytest.mark.query_budget(max_statements=0)
    def test_expected():
        with Session(engine) as session:
            one(session)
    """
    run(suite, tests, "-o", "asyncio_mode=auto").assert_outcomes(failed=6, xfailed=1)


def test_bad_limits_are_one_line(suite: pytest.Pytester) -> None:
    tests = """
    @pytest.mark.query_budget(max_statement=3)
    def test_unknown(): ...

    @pytest.mark.query_budget(3)
    def test_nameless(): ...

    @pytest.mark.query_budget(max_statements="3")
    def test_text(): ...
    """
    done = run(suite, tests)
    done.assert_outcomes(errors=3)
    names = "max_statements=, max_n_plus_one=, max_ms_database="
    done.stdout.re_match_lines_random(
        [
            rf".*test_unknown: query_budget takes {names}, not max_statement=",
            rf".*test_nameless: query_budget takes {names}, not 3",
            r".*test_text: query_budget: max_statements is a whole number from 0 on, not '3'",
        ]
    )
    assert "Traceback" not in done.stdout.str()


def test_postgresql_by_asyncpg(suite: pytest.Pytester, database_url: str) -> None:
    """A session that was open before, an engine with options, and a statement that fails."""
    tests = f"""
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    @pytest.fixture
    async def session():
        engine = create_async_engine("{database_url}")
        async with AsyncSession(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
            await session.execute(text("SELECT 1"))
            yield session
        await engine.dispose()

    async def test_it(session, query_budget):
        with query_budget(max_statements=2) as budget:
            await session.execute(text("SELECT 2"))
            with pytest.raises(DBAPIError):
                await session.execute(text("SELECT 1 / 0"))
        assert budget.statements == 2
        with pytest.raises(AssertionError, match="SELECT [?]"), query_budget(max_statements=0):
            await session.execute(text("SELECT 'secret'"))
    """
    run(suite, tests, "-o", "asyncio_mode=auto").assert_outcomes(passed=1)
