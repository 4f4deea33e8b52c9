"""
A directory into rows: a batch job over the list of its files.

A chunk is one transaction: its files are read and computed beside the inserts of those before,
their rows go in through `insert_rows` (COPY; on SQLite SQLAlchemy's bulk insert), and the list
says what has become of each. So a kill at any point leaves whole chunks, and what has no row is
what is read next time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from ..concurrency.clock import SYSTEM_CLOCK
from ..concurrency.stop import Stop
from ..concurrency.tasks import cancel
from ..errors import ConfigurationError
from ..inserts import insert_rows
from ..jobs import BatchJob, Chunk, JobStatus
from ..jobs.connections import engine_of
from ..jobs.keyset import decode
from ..jobs.reader import Reader
from ..jobs.run import PROGRESS_EVERY
from ..jobs.tables import tables_of
from ..jobs.watchdog import Watchdog
from .listing import Listing, Missing, Problem
from .pipeline import Ahead
from .preparing import Found, Outcome, Preparation, Prepared, Row, unless_changed
from .tables import File, Track, make_tables
from .tally import Counts, Ingested, Progress, Tally

JOB = "ingest"
CONCURRENCY = 16
# Rows that the database itself refuses. More than that is no matter of rows.
_REFUSED_AT_MOST = 100
# Seconds. A chunk is as long as its files are; a killed worker is never waited for.
_LEASE = 300.0
_PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many transactions side by side, and how many pairs in each, where none are given."""

    writers: int
    chunk: int


# A pair is prepared on a CPU in about the time that it takes to be inserted, on client and
# server together: a writer for every two CPUs keeps up, and a second one on two is in the way.
_WRITERS = max(1, min(4, (os.cpu_count() or 1) // 2))
# A file has one writer, and its log, which every transaction is copied from, stays small.
_SIZES = {
    "postgresql": Sizes(writers=_WRITERS, chunk=48 // _WRITERS),
    "sqlite": Sizes(writers=1, chunk=20),
}


def usual_sizes(dialect: str) -> Sizes:
    """Return what suits a database, by the name of its dialect."""
    return _SIZES.get(dialect, _SIZES["sqlite"])  # of others a job says that it has no use


OnProgress = Callable[[Progress], None]


async def ingest(
    directory: Path | str,
    sessions: async_sessionmaker[Any],
    *,
    concurrency: int = CONCURRENCY,
    chunk: int | None = None,
    stop: Stop | None = None,
    on_progress: OnProgress | None = None,
) -> Ingested:
    """
    Make a `Track` of each audio file with a picture in a directory, and return what was done.

    The tables are made when they are missing. Killed or stopped anywhere and run again, it
    reads what is missing. `concurrency` pairs are in memory at most, `chunk` are a transaction
    (default: 48 on PostgreSQL, fewer each with several writers, 20 on SQLite).
    Files that cannot be read are in the result and stop nothing. On PostgreSQL it takes up to
    six connections of the pool, on SQLite three.

    Raises `ConfigurationError` for a directory that cannot be read, `JobError` when the database
    refuses more than 100 rows, `DatabaseError` when it stays away.
    """
    began = perf_counter()
    root = real_directory(directory)
    engine = await engine_of(sessions)
    await make_tables(sessions)
    usual = usual_sizes(engine.dialect.name)
    workers = min(usual.writers, concurrency)
    share = concurrency // workers
    reader = Reader(engine, SYSTEM_CLOCK, Watchdog(engine, _PATIENCE))
    listing = Listing(sessions, engine, reader, root)
    found, problems = await listing.update()
    async with (
        Preparation(root, concurrency) as preparation,
        Ahead(preparation.prepare, share) as ahead,
    ):
        first = await reader.all(listing.next_missing(0, share))
        ahead.expect(Found(*row) for row in first)  # while all else is set up
        await listing.forget()
        missing = await listing.how_much()
        tally = Tally(missing)
        loading = _Loading(listing, preparation, ahead, tally, workers, share)
        run = partial(
            _job(loading, chunk or usual.chunk).run,
            sessions,
            workers=workers,
            arguments=await _arguments(engine, reader, root),
            stop=stop,
        )
        async with _showing(tally, on_progress):
            status = await _run_to_the_end(run, listing, missing)
    refused = await _refused(engine, reader, listing, status.run)
    return Ingested(
        state=status.state,
        found=found,
        before=found - missing.pairs,
        counts=tally.counts,
        failed=(*problems, *await listing.failures(), *refused),
        seconds=perf_counter() - began,
        database=max(0.0, status.busy_seconds - tally.counts.waiting),
    )


@asynccontextmanager
async def _showing(tally: Tally, on_progress: OnProgress | None) -> AsyncIterator[None]:
    """Show the progress now, each second of a block, and at its end."""
    if on_progress is None:
        yield
        return

    async def each_second() -> None:
        while True:
            on_progress(tally.progress)
            await asyncio.sleep(PROGRESS_EVERY)

    showing = asyncio.create_task(each_second())
    try:
        yield
    finally:
        await cancel(showing)
    on_progress(tally.progress)


def real_directory(directory: Path | str) -> str:
    """Return a directory's real path; raises `ConfigurationError` for one that cannot be read."""
    try:
        real = os.path.realpath(directory, strict=True)
        os.scandir(real).close()
    except OSError as error:
        raise ConfigurationError(f"{directory}: {error.strerror}") from None
    return real


async def _run_to_the_end(
    run: Callable[[], Awaitable[JobStatus]], listing: Listing, missing: Missing
) -> JobStatus:
    """
    Run the job until nothing is missing any more, or nothing goes in any more.

    A run that is resumed knows only of the files that were found when it began.
    """
    left = missing.pairs
    while True:
        status, before = await run(), left
        left = (await listing.how_much()).pairs
        if status.state != "done" or left in (0, before):
            return status


def _job(loading: _Loading, chunk: int) -> BatchJob:
    """Return the job: what is missing, in as many ranges as there are workers."""
    job = BatchJob(
        JOB,
        select=select(File).where(loading.listing.missing),
        chunk=chunk,
        partitions=loading.workers,
        skip_limit=_REFUSED_AT_MOST,
        lease=_LEASE,
    )
    job.apply(loading.load)
    return job


@dataclass(frozen=True, slots=True)
class _Loading:
    """What the chunks have in common."""

    listing: Listing
    preparation: Preparation
    ahead: Ahead[Found, Prepared]
    tally: Tally
    workers: int
    share: int  # of the pairs in memory, for each worker

    async def load(self, session: AsyncSession, files: Sequence[File], chunk: Chunk) -> None:
        """Insert a chunk's tracks, and note what has become of each file."""
        if session.get_bind().dialect.name == "postgresql":
            # Lost with its server, a chunk is lost with its position, and is read again. The
            # end of the run is written to disk, and with it all that was before.
            await session.execute(text("SET LOCAL synchronous_commit TO off"))
        counts = self.tally.begin(chunk.run, chunk.partition, chunk.number)
        became: dict[int, Outcome] = {}
        found = [Found(file.id, file.name, file.picture, file.size) for file in files]
        async with self._expected(session, found) as ahead, aclosing(ahead.take(found)) as batches:
            while read := await _next(batches, counts):
                batch = await asyncio.to_thread(unless_changed, self.listing.directory, read)
                added = await add_new(session, [one.row for one in batch if one.row is not None])
                counts.note(batch, added)
                became |= {one.number: one.outcome for one in batch}
        for file in files:
            file.content_hash, file.error = became[file.id].content_hash, became[file.id].error

    @asynccontextmanager
    async def _expected(
        self, session: AsyncSession, found: Sequence[Found]
    ) -> AsyncIterator[Ahead[Found, Prepared]]:
        """Yield what prepares a chunk; of a lone worker also what is behind it."""
        if self.workers > 1:  # others are at work while this chunk is committed
            async with Ahead(self.preparation.prepare, self.share) as ahead:
                ahead.expect(found)
                yield ahead
            return
        after = self.listing.next_missing(found[-1].number, self.share)
        behind = [Found(*row) for row in await session.execute(after)]
        self.ahead.expect([*found, *behind])
        yield self.ahead


async def _next(batches: AsyncIterator[list[Prepared]], counts: Counts) -> list[Prepared]:
    with counts.while_waiting():
        return await anext(batches, [])


async def add_new(session: AsyncSession, rows: Sequence[Row]) -> int:
    """
    Insert the rows whose content is not there yet, and return how many.

    Which ones these are is asked when the database has refused them: copies are rare, and
    another process may be as fast as we are.
    """
    new = {row["content_hash"]: row for row in rows}
    while new:
        try:
            async with session.begin_nested():
                await _insert(session, list(new.values()))
            break
        except IntegrityError:
            there = select(Track.content_hash).where(Track.content_hash.in_(list(new)))
            known = set(await session.scalars(there))
            if not known:
                raise  # a rule that is not ours
            new = {key: row for key, row in new.items() if key not in known}
    return len(new)


async def _insert(session: AsyncSession, rows: list[Row]) -> None:
    if session.get_bind().dialect.name == "postgresql":
        await insert_rows(session, Track, rows)
    else:
        await session.execute(insert(Track), rows)


async def _arguments(engine: AsyncEngine, reader: Reader, root: str) -> dict[str, str]:
    """Return what tells this run from others: a schema's files are not another's."""
    if engine.dialect.name != "postgresql":
        return {"directory": root}
    ((schema,),) = await reader.all(select(func.current_schema()))
    return {"directory": root, "schema": schema}


async def _refused(
    engine: AsyncEngine, reader: Reader, listing: Listing, run: int
) -> list[Problem]:
    """Return the files whose rows the database has refused."""
    error = tables_of(engine.dialect.name).error
    query = select(error.c.key, error.c.exception, error.c.message).where(error.c.run == run)
    rows = await reader.all(query)
    numbers = {row.key: int(decode(row.key)[0]) for row in rows}
    names = await listing.names(list(numbers.values())) if numbers else {}
    return [
        Problem(names.get(numbers[row.key], "?"), f"{row.exception}: {row.message}") for row in rows
    ]
