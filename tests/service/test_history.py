"""The history in both databases: its tables, what it forgets, and whose it is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing as closing_at_once
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader.database.backends import backend_of
from async_loader.database.postgresql import closing
from async_loader.database.urls import parse_url
from async_loader.errors import ConfigurationError
from async_loader.service import history as history_room
from async_loader.service import history_database, runs
from async_loader.service.history import Filter, History, TargetBusyError
from async_loader.service.history_database import history_url, open_history
from async_loader.service.migrations import VERSION_TABLE, migrate
from async_loader.service.tables import metadata

from .conftest import Service, Serving

RUN: dict[str, Any] = {
    "scenario": "s",
    "overrides": {},
    "settings": {},
    "started_by": "me",
    "scheduled": 0,
}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """Where a history is made."""
    if request.param == "sqlite":
        return parse_url(f"sqlite:///{tmp_path / 'history.sqlite'}")
    return parse_url(request.getfixturevalue("database_url"))


@pytest.fixture
async def history(url: URL) -> AsyncIterator[History]:
    """An empty history."""
    async with open_history(url) as opened:
        yield opened


async def in_database(url: URL, function: Callable[[Connection], Any]) -> Any:
    """Return what a function makes of a connection to the history's database."""
    engine = backend_of(url).create_engine(url, pool_size=1)
    async with closing(engine), engine.begin() as connection:
        return await connection.run_sync(function)


async def test_the_migrations_make_the_tables_and_nothing_else(url: URL) -> None:
    def differences(connection: Connection) -> list[Any]:
        migrate(connection)
        migrate(connection)  # again, as at every start
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        ours = [*metadata.tables, VERSION_TABLE]
        found = compare_metadata(context, metadata)
        return [d for d in found if d[0] != "remove_table" or d[1].name in ours]

    assert await in_database(url, differences) == []


async def test_tables_of_a_newer_version_are_left_alone(url: URL) -> None:
    async with open_history(url):
        pass
    newer = text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    await in_database(url, lambda connection: connection.execute(newer))
    with pytest.raises(ConfigurationError, match="another version of async_loader"):
        async with open_history(url):
            pass


async def test_one_service_to_a_history(url: URL) -> None:
    async with open_history(url):
        with pytest.raises(ConfigurationError, match="another service"):
            async with open_history(url):
                pass
    async with open_history(url):
        pass


async def test_a_target_has_one_run(history: History) -> None:
    tries = [history.add(RUN | {"target": "one"}) for _ in range(20)]
    found = await asyncio.gather(*tries, return_exceptions=True)
    started = [one for one in found if isinstance(one, int)]
    refused = [one.run for one in found if isinstance(one, TargetBusyError)]
    assert len(started) == 1
    assert refused == started * 19
    await history.end(started[0], "passed")
    assert await history.add(RUN | {"target": "one"}) > started[0]


async def test_what_is_too_old_or_too_much_is_forgotten(history: History) -> None:
    numbers = []
    for _ in range(6):
        numbers.append(await history.add(RUN | {"target": "one"}))
        await history.end(numbers[-1], "passed", document=b"x")
    await history.change(numbers[5], ended_at=1.0)
    await history.change(numbers[4], started_at=1.0)  # a long one: it has ended just now
    going_on = await history.add(RUN | {"target": "one"})
    await history.change(going_on, started_at=1.0)
    await history.prune(keep_runs=4, keep_for=1000.0)
    kept = [row["id"] for row in await history.page(Filter())]
    assert kept == [going_on, *numbers[4:2:-1]]  # the latest four, less the old one
    assert await history.document(numbers[0]) is None
    assert await history.document(numbers[4]) == b"x"


async def test_the_default_is_a_file_of_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    url = history_url(None)
    assert url.database is not None
    assert Path(url.database).is_relative_to(tmp_path)
    async with open_history(url):
        assert Path(url.database).exists()


async def test_a_mistake_in_the_url_does_not_show_it() -> None:
    with pytest.raises(ConfigurationError, match="--history-url") as caught:
        history_url("mysql://user:hunter2@host/db")
    assert "hunter2" not in str(caught.value)


async def test_a_service_outlives_its_historys_restart(
    serving: Serving, database_url: str, admin: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every connection of the history is cut while a run goes on: the run is kept all the same."""
    monkeypatch.setattr(history_database, "_LOOK_EVERY", 0.1)
    target = parse_url(database_url).database
    cut = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = :name AND pid <> pg_backend_pid()"
    )
    async with serving(history_url=database_url) as service:
        number = await service.start("endless", duration=2)
        await service.until(number, lambda found: found["snapshot"] is not None)
        async with admin.connect() as connection:
            assert (await connection.scalar(cut, {"name": target}) or 0) >= 2
        async with asyncio.timeout(30):
            while (await service.client.get(f"/api/runs/{number}")).status_code != 200:
                await asyncio.sleep(0.05)
        assert (await service.ended(number))["state"] == "passed"
        async with asyncio.timeout(30):
            while (await service.client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
        with pytest.raises(ConfigurationError, match="another service"):
            async with open_history(parse_url(database_url)):
                pass


async def test_a_result_waits_for_a_history_that_cannot_be_written(
    serving: Serving,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(runs, "_PATIENCE", 0.0)

    def rename(before: str, after: str) -> None:
        with closing_at_once(sqlite3.connect(tmp_path / "history.sqlite")) as other:
            other.execute(f"ALTER TABLE {before} RENAME TO {after}")

    async with serving() as service:
        number = await service.start("endless", duration=1)
        rename("async_loader_service_result", "elsewhere")
        async with asyncio.timeout(60):
            while "cannot be kept yet" not in caplog.text:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)  # it is refused again
        rename("elsewhere", "async_loader_service_result")
        run = await service.ended(number)
        assert (run["state"], run["has_result"]) == ("passed", True)
        assert (await service.ended(await service.start("nothing")))["state"] == "passed"


async def test_a_full_disk_is_not_ready(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_room, "_ROOM", 2**62)  # more than any disk has
    answer = await service.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["detail"] == "the history cannot be written: its disk is full"
