"""Jobs whose server swallows what it is sent: they end within their patience and five seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import URL, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from async_loader.concurrency.stop import Stop
from async_loader.database.proxy import Link
from async_loader.errors import DatabaseError
from async_loader.jobs import BatchJob, cancel, list_runs, pause, status
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

    def __init__(
        self, url: URL | str, after: str, at: str, *, one_link: bool = False, heard: bool = False
    ) -> None:
        super().__init__(url)
        self.after, self.at = after.encode(), at.encode()
        self.one_link = one_link
        self.heard = heard  # the server hears that word, and it is its answer that is swallowed
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
            if self.heard:
                return data
        if self.one_link and link in self.dead:
            await asyncio.Event().wait()
        return await super().pass_on(link, data, to_server=to_server)


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def swallowing(
    url: str, driver: str, after: str, at: str, **which: bool
) -> AsyncIterator[tuple[SwallowingProxy, AsyncEngine]]:
    async with SwallowingProxy(url, after, at, **which) as proxy:
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


@pytest.mark.parametrize("place", ["leaving", "the last status"])
async def test_a_run_that_is_done_is_done_whoever_is_silent_since(
    engine: AsyncEngine, database_url: str, driver: str, place: str
) -> None:
    await fill(engine, ROWS)
    at = {"leaving": "pg_advisory_unlock", "the last status": "DELETE FROM async_loader_jobs"}
    done = "UPDATE async_loader_jobs.run SET state"
    async with swallowing(database_url, driver, done, at[place]) as (proxy, through):
        async with asyncio.timeout(ENDED):
            ended = await counting(patience=PATIENCE).run(async_sessionmaker(through), workers=2)
        assert proxy.at == b"", "nobody said that"
    assert (ended.state, ended.rows_read, ended.partitions_done) == ("done", ROWS, ended.partitions)
    assert await tally(engine) == {1: ROWS}


@pytest.mark.parametrize("act", [list_runs, status, pause, cancel])
async def test_who_looks_or_steers_gives_up_in_time(
    engine: AsyncEngine, database_url: str, driver: str, act: Any
) -> None:
    await fill(engine, 10)
    stop = Stop()
    stop.request("its test")
    await counting().run(async_sessionmaker(engine), stop=stop)
    name = () if act is list_runs else ("counting",)
    async with swallowing(database_url, driver, "", "pg_backend_pid") as (_proxy, through):
        with pytest.raises(DatabaseError, match="gave up after 1 s: no answer from") as raised:
            async with asyncio.timeout(ENDED):
                await act(through, *name, patience=PATIENCE)
    told = {pause: "whether the run is paused is not known", cancel: "cancelled is not known"}
    assert told.get(act, "") in str(raised.value)


async def test_a_pause_waits_for_the_chunk_under_way(engine: AsyncEngine, driver: str) -> None:
    await fill(engine, 10)
    begun, let_go = asyncio.Event(), asyncio.Event()
    job = BatchJob("long", select=select(Counter))

    @job.apply
    async def apply(_session: AsyncSession, counters: Sequence[Counter]) -> None:
        begun.set()
        await let_go.wait()
        for counter in counters:
            counter.n += 1

    url = engine.url.set(drivername=f"postgresql+{driver}")
    steering = create_async_engine(url)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(job.run(async_sessionmaker(engine)))
        await begun.wait()
        pausing = tasks.create_task(pause(steering, "long", patience=0.5))
        assert not (await asyncio.wait({pausing}, timeout=4))[0]
        let_go.set()
    assert pausing.result().state == "paused"
    await steering.dispose()


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


@pytest.mark.parametrize("heard", [False, True], ids=["swallowed", "answer swallowed"])
@pytest.mark.parametrize(
    "place",
    [
        pytest.param(name, marks=() if name == "at its COMMIT" else (pytest.mark.soak,))
        for name in PLACES
        if name not in ("looking at the connection", "leaving")
    ],
)
async def test_one_connection_that_is_cut_off_is_made_anew(
    engine: AsyncEngine, database_url: str, driver: str, place: str, heard: bool
) -> None:
    """All others are answered: the job goes on."""
    await fill(engine, ROWS)
    after, at = PLACES[place]
    job = counting(patience=PATIENCE)
    which = {"one_link": True, "heard": heard}
    workers = 1 if place == "at its COMMIT" else 2  # a chunk's, and not the other's claim
    async with swallowing(database_url, driver, after, at, **which) as (proxy, through):
        async with asyncio.timeout(ENDED):
            done = await job.run(async_sessionmaker(through), workers=workers)
        assert proxy.dead, "nobody said that"
    assert (done.state, done.rows_read) == ("done", ROWS)
    assert await tally(engine) == {1: ROWS}


async def test_who_waits_for_something_else_is_not_cut_off(
    engine: AsyncEngine, database_url: str, driver: str
) -> None:
    """A connection is idle behind a statement, behind an error, and behind a COMMIT."""
    await fill(engine, 10)
    job = BatchJob("calm", select=select(Counter), patience=0.5)
    tries = 0

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        nonlocal tries
        tries += 1
        async with through.connect() as other:
            with pytest.raises(DBAPIError):
                async with session.begin_nested():
                    await session.execute(text("SELECT 1 / 0"))
            await other.execute(text("SELECT 1"))
            await other.commit()
            for counter in counters:
                counter.n += 1
            await session.flush()
            await asyncio.sleep(4)  # what a service takes that is asked
            await other.execute(text("SELECT 1"))

    async with swallowing(database_url, driver, "", "never said") as (_proxy, through):
        assert (await job.run(async_sessionmaker(through))).state == "done"
    assert tries == 1
    assert await tally(engine) == {1: 10}


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
