"""The fixture `load_test` in tests of a user's own, each suite run by pytest as theirs would be."""

from __future__ import annotations

import os
from pathlib import Path

# pytester forgets what a test is the first to import: C code and SQLAlchemy's registry, which do
# not bear to be imported twice, are there before.
import asyncpg  # noqa: F401
import pytest
import sqlalchemy.dialects.postgresql.asyncpg  # noqa: F401

from tests.acceptance.conftest import ROOT

pytest_plugins = ["pytester"]

WORKLOAD = """
    from sqlalchemy import func, select, text
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    from async_loader import Workload

    class Base(DeclarativeBase): ...

    class Item(Base):
        __tablename__ = "item"
        id: Mapped[int] = mapped_column(primary_key=True)

    workload = Workload("shop")

    @workload.setup
    async def create_tables(sessions):
        async with sessions.begin() as session:
            await (await session.connection()).run_sync(Base.metadata.create_all)

    @workload.operation("buy", kind="write")
    async def buy(session: AsyncSession) -> None:
        session.add(Item())
        await session.commit()

    @workload.operation("browse", kind="read")
    async def browse(session: AsyncSession) -> None:
        await session.scalar(select(func.count(Item.id)))
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A user's test suite with the fixture in its conftest.py and a workload in shop.py."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # others' take long to load
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(pytester.path))))
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function")
    pytester.makeconftest("from async_loader.testing import load_test")
    pytester.makepyfile(shop=WORKLOAD)
    return pytester


def run(suite: pytest.Pytester, tests: str, **urls: str) -> pytest.RunResult:
    suite.makepyfile(test_it="from shop import *\n" + _dedented(tests.format(**urls)))
    plugins = ("-p", "async_loader.testing.plugin", "-p", "pytest_asyncio.plugin")
    return suite.runpytest_subprocess(*plugins, "-p", "no:cacheprovider", timeout=100)


def _dedented(text: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in text.splitlines())


def test_a_workload_runs_on_a_schema_of_its_own(suite: pytest.Pytester, database_url: str) -> None:
    """Twice, in two event loops; and nothing is left of either."""
    tests = """
    import pytest

    @pytest.mark.parametrize("turn", [1, 2])
    async def test_shop(load_test, turn):
        result = await load_test(workload, ops=300, database_url="{url}")
        assert result.completed == 300
        assert result.passes("op_duration:p(95)<60s", "errors:rate==0%", "statements:avg<2")

    async def test_nothing_is_left():
        engine = create_async_engine("{url}")
        async with engine.connect() as connection:
            found = await connection.scalar(
                text("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'async_loader%'")
            )
        await engine.dispose()
        assert found == 0
    """
    run(suite, tests, url=database_url).assert_outcomes(passed=3)


def test_a_failed_assertion_shows_the_figures(suite: pytest.Pytester, database_url: str) -> None:
    tests = """
    async def test_shop(load_test):
        result = await load_test(workload, ops=50, database_url="{url}")
        assert result.passes("ops:count==50", "ops{{op:buy}}:count<1")
    """
    done = run(suite, tests, url=database_url)
    done.assert_outcomes(failed=1)
    done.stdout.re_match_lines(
        [
            r".*assert ops:count==50 holds: found 50, "
            r"ops\{op:buy\}:count<1 FAILS: found \d+",
            r".*<shop: done, 50 operations in \S+ s, .*failed: none>",
        ]
    )


def test_it_runs_through_the_applications_own_sessions(
    suite: pytest.Pytester, database_url: str
) -> None:
    """Those that the workload brings, and those that the test hands in, which stay open."""
    tests = """
    from sqlalchemy import event

    async def test_brought(load_test):
        engine = create_async_engine("{url}")
        used = []
        event.listen(engine.sync_engine, "checkout", lambda *_: used.append(1))
        workload.sessions(lambda: async_sessionmaker(engine))
        result = await load_test(workload, ops=20)
        workload.sessions_hook = None
        assert (result.completed, len(used) >= 20) == (20, True)
        assert engine.pool.checkedin() == 0, "disposed: its connections are of this event loop"

    async def test_handed_in(load_test):
        engine = create_async_engine("{url}")
        result = await load_test(workload, ops=20, sessions=async_sessionmaker(engine))
        assert result.completed == 20
        assert engine.pool.checkedin() > 0
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM item")) > 0
        await engine.dispose()
    """
    run(suite, tests, url=database_url).assert_outcomes(passed=2)


def test_without_a_database_an_embedded_one_is_shared_and_stopped(
    suite: pytest.Pytester, server_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = server_directory / "of-load-test"
    home.mkdir()
    home.chmod(0o777)
    tests = """
    import async_loader.testing.fixture as module
    from async_loader.database.embedded import embedded_server
    from pathlib import Path

    async def test_once(load_test, monkeypatch):
        monkeypatch.setattr(module, "embedded_server", lambda: embedded_server(Path("{home}")))
        assert (await load_test(workload, ops=20)).completed == 20

    async def test_again(load_test):
        assert (await load_test(workload, ops=20)).completed == 20
        assert list(Path("{home}").rglob("postmaster.pid"))
    """
    run(suite, tests, home=str(home)).assert_outcomes(passed=2)
    assert not list(home.rglob("postmaster.pid")), "it is stopped with the session"


def test_no_database_is_no_matter_to_operations_without_one(suite: pytest.Pytester) -> None:
    tests = """
    from async_loader import ConfigurationError
    import pytest

    plain = Workload("plain")

    @plain.operation("nothing", kind="read")
    async def nothing() -> None: ...

    async def test_plain(load_test):
        result = await load_test(plain, ops=20)
        assert result.passes("ops:count==20")
        with pytest.raises(ConfigurationError, match="▶"):
            result.passes("op_time:p(95)<1ms")
    """
    run(suite, tests).assert_outcomes(passed=1)


def test_thresholds_fail_the_test_by_themselves(suite: pytest.Pytester) -> None:
    """With the fixture of the plugin, and no line of a conftest.py."""
    suite.path.joinpath("conftest.py").unlink()
    tests = """
    from async_loader.testing import LoadTestFailed
    import pytest

    plain = Workload("plain")

    @plain.operation("nothing", kind="read")
    async def nothing() -> None: ...

    @plain.operation("wrong", kind="read")
    async def wrong() -> None:
        raise KeyError("wrong")

    async def test_holds(load_test):
        await load_test(plain, ops=40, thresholds=["ops:count==20"])

    async def test_fails(load_test):
        await load_test(plain, ops=40, thresholds=["errors:rate<1%", "ops{{op:wrong}}:count>=1"])

    async def test_nothing_was_done(load_test):
        with pytest.raises(LoadTestFailed, match="no operation was performed"):
            await load_test(plain, ops=0, thresholds=["errors:rate<1%"])
    """
    done = run(suite, tests)
    done.assert_outcomes(passed=2, failed=1)
    done.stdout.re_match_lines(
        [
            r"E .*LoadTestFailed: <plain: done, \d+ operations in \S+ s, .*failed: \d+ KeyError>",
            r"E +the run holds",
            r"E +errors:rate<1% FAILS: found \d+",
            r"E +ops\{op:wrong\}:count>=1 FAILS: found 0.*",
            r"E +\d+ KeyError: 'wrong'",
        ]
    )
    assert "fixture.py" not in done.stdout.str(), "its own frames are left out"
