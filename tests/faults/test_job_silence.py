"""Jobs whose server swallows what it is sent: they end within their patience and five seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import URL, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from async_loader.errors import DatabaseError
from async_loader.jobs import BatchJob
from async_loader.proxy import Link
from tests.acceptance.test_job_kills import start
from tests.counting import Counter, counting, fill, tally
from tests.faults.proxy import FaultProxy

ROWS = 300
PATIENCE = 1.0
ENDED = PATIENCE + 5.0
SENTENCE = r"gave up after 1 s: no answer from .*; the job goes on where it is when it is run again"

# In CI, where each takes its patience and an answer's time.
FEW = ("in apply", "at its COMMIT", "at once", "at a beat")
# At which words nothing arrives any more, once these were said.
PLACES = {
    "looking at the connection": ("", "pg_backend_pid"),
    "making the tables": ("", "CREATE TABLE"),
    "planning": ("", "INSERT INTO async_loader_jobs.run"),
    "joining": ("", "INSERT INTO async_loader_jobs.worker"),
    "claiming": ("", "SKIP LOCKED"),
    "entering a chunk": ("", "under_way=txid_current"),
    "reading its rows": ("under_way=txid_current", "FROM counter"),
    "in apply": ("", "UPDATE counter"),
    "at its COMMIT": ("UPDATE counter", "COMMIT"),
    "ending the run": ("", "UPDATE async_loader_jobs.run SET state"),
    "leaving": ("", "pg_advisory_unlock"),
}


class SwallowingProxy(FaultProxy):
    """Lets nothing arrive any more from a word on, in both directions or of that link alone."""

    def __init__(self, url: URL | str, after: str, at: str, *, one_link: bool = False) -> None:
        super().__init__(url)
        self.after, self.at = after.encode(), at.encode()
        self.one_link = one_link
        self.dead: set[Link] = set()
        if not at:
            self.black_hole()

    async def pass_on(self, link: Link, data: bytes, *, to_server: bool) -> bytes:
        if to_server and self.after and self.after in data:
            self.after = b""
        elif to_server and not self.after and self.at and self.at in data:
            self.at = b""
            if not self.one_link:
                self.black_hole()
            self.dead.add(link)
        if self.one_link and link in self.dead:
            await asyncio.Event().wait()
        return await super().pass_on(link, data, to_server=to_server)


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def swallowing(
    url: str, driver: str, after: str, at: str, *, one_link: bool = False
) -> AsyncIterator[tuple[SwallowingProxy, AsyncEngine]]:
    async with SwallowingProxy(url, after, at, one_link=one_link) as proxy:
        through = create_async_engine(make_url(proxy.url).set(drivername=f"postgresql+{driver}"))
        try:
            yield proxy, through
        finally:
            proxy.heal()
            await through.dispose()


def places(*names: str) -> list[Any]:
    return [pytest.param(n, marks=() if n in FEW else (pytest.mark.soak,)) for n in names]


@pytest.mark.parametrize("place", places(*PLACES))
async def test_a_job_gives_up_in_time_and_loses_nothing(
    engine: AsyncEngine, database_url: str, driver: str, place: str
) -> None:
    await fill(engine, ROWS)
    after, at = PLACES[place]
    job = counting(patience=PATIENCE, lease=0.6)
    async with swallowing(database_url, driver, after, at) as (proxy, through):
        with pytest.raises(DatabaseError, match=SENTENCE):
            async with asyncio.timeout(ENDED):
                await job.run(async_sessionmaker(through), workers=2)
        assert proxy.at == b"", "nobody said that"
        proxy.heal()
    if (await tally(engine)).get(1) != ROWS:
        assert (await job.run(async_sessionmaker(engine))).state == "done"
    assert await tally(engine) == {1: ROWS}


@pytest.mark.parametrize(
    "where", places("at once", "in setup", "apply waits for others", "at a beat")
)
async def test_what_is_not_the_jobs_own_ends_with_it(
    engine: AsyncEngine, database_url: str, driver: str, where: str
) -> None:
    await fill(engine, ROWS)
    at = {"at once": "", "at a beat": "UPDATE async_loader_jobs.worker"}.get(where, "never said")
    async with swallowing(database_url, driver, "", at) as (proxy, through):

        async def setup(sessions: async_sessionmaker[AsyncSession], _arguments: object) -> None:
            if where == "in setup":
                async with sessions() as session:
                    await session.execute(text("SELECT 1"))
                    proxy.black_hole()
                    await session.execute(text("SELECT 2"))

        job = BatchJob("waiting", select=select(Counter), patience=PATIENCE, lease=0.6, setup=setup)

        @job.apply
        async def apply(_session: AsyncSession, _rows: Sequence[Counter]) -> None:
            if where != "at a beat":
                proxy.black_hole()
            await asyncio.Event().wait()

        with pytest.raises(DatabaseError, match=SENTENCE):
            async with asyncio.timeout(ENDED):
                await job.run(async_sessionmaker(through))


async def test_a_statement_may_take_longer_than_patience(
    engine: AsyncEngine, database_url: str, driver: str
) -> None:
    """Who is asked meanwhile answers: nobody is gone."""
    await fill(engine, 10)
    job = BatchJob("slow", select=select(Counter), patience=0.5)

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        await session.execute(select(func.pg_sleep(2)))
        for counter in counters:
            counter.n += 1

    async with swallowing(database_url, driver, "", "never said") as (_proxy, through):
        assert (await job.run(async_sessionmaker(through))).state == "done"
    assert await tally(engine) == {1: 10}


async def test_a_heartbeat_whose_link_is_dead_takes_another(
    engine: AsyncEngine, database_url: str, driver: str
) -> None:
    await fill(engine, 10)
    job = BatchJob("slow", select=select(Counter), lease=0.5)
    beats = "UPDATE async_loader_jobs.worker"
    async with swallowing(database_url, driver, "", beats, one_link=True) as (proxy, through):

        @job.apply
        async def apply(_session: AsyncSession, _rows: Sequence[Counter]) -> None:
            while not proxy.dead:
                await asyncio.sleep(0.05)
            proxy.after, proxy.at = b"", beats.encode()
            while proxy.at:  # the next beat is another link's
                await asyncio.sleep(0.05)

        async with asyncio.timeout(30):
            assert (await job.run(async_sessionmaker(through))).state == "done"
        assert len(proxy.dead) == 2


async def test_the_command_ends_with_its_sentence(engine: AsyncEngine, database_url: str) -> None:
    await fill(engine, ROWS)
    async with SwallowingProxy(database_url, "UPDATE counter", "COMMIT") as proxy:
        url = proxy.url.render_as_string(hide_password=False)
        process = start(url, "--workers", "2", COUNTING_PATIENCE="1")
        while proxy.at:
            await asyncio.sleep(0.05)
        async with asyncio.timeout(ENDED):
            while process.poll() is None:
                await asyncio.sleep(0.05)
        output, errors = process.communicate()
    assert (process.returncode, output) == (110, "")
    assert errors.startswith("async_loader: gave up after 1 s: no answer from 127.0.0.1:")
    assert errors.count("\n") == 1
