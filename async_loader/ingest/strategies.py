"""
The plain ways to load the same files, measured beside ours on tables of their own.

Each does what a script would: read, scale, add, commit. None of them can be killed and go on.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from ..concurrency.stop import Stop
from ..database.backends import backend_of
from ..database.postgresql import Namespace, closing
from ..jobs.connections import engine_of
from ..jobs.tables import make_tables as make_job_tables
from .listing import Pair, find
from .loading import ingest, usual_sizes
from .pipeline import Ahead
from .preparing import Found, Preparation, Prepared, Row, read_pair, row_of
from .reading import UnreadableError
from .tables import Track, make_tables

# Four workers, their heartbeat, the reader of its progress.
CONNECTIONS = 8


@dataclass(slots=True)
class Split:
    """Rows, and the seconds that went into computing, reading files, and the database."""

    rows: int = 0
    computing: float = 0.0
    reading: float = 0.0
    database: float = 0.0

    def add(self, other: Split) -> None:
        """Add what another thread or pair took."""
        self.rows += other.rows
        self.computing += other.computing
        self.reading += other.reading
        self.database += other.database


@dataclass(frozen=True, slots=True)
class Measure:
    """What a way took: medians over the rounds; the three parts may lie side by side."""

    way: str
    pairs: int
    seconds: float
    computing: float
    reading: float
    database: float
    ratio: float
    """How many times faster than sequential, in the same round."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is loaded, and how."""

    directory: str
    pairs: Sequence[Pair]
    concurrency: int
    chunk: int
    stop: Stop

    def left(self) -> Iterable[Pair]:
        """Yield the pairs, until somebody asks to stop."""
        for pair in self.pairs:
            if self.stop.requested.is_set():
                return
            yield pair


def sequential(work: Work, sessions: sessionmaker[Session]) -> Split:
    """Load one pair after the other, each with its commit."""
    total = Split()
    for pair in work.left():
        total.add(_load_one(work.directory, pair, sessions))
    return total


def threads(work: Work, sessions: sessionmaker[Session]) -> Split:
    """Do the same in a pool of threads, the executor way."""
    total = Split()
    with ThreadPoolExecutor(work.concurrency) as pool:
        for split in pool.map(lambda p: _load_one(work.directory, p, sessions), work.left()):
            total.add(split)
    return total


def _load_one(directory: str, pair: Pair, sessions: sessionmaker[Session]) -> Split:
    try:
        contents = read_pair(directory, pair.name, pair.picture)
        row, computing = row_of(contents)
    except UnreadableError:
        return Split()
    began = perf_counter()
    with sessions() as session:
        session.add(Track(**row))
        try:
            session.commit()
        except IntegrityError:  # the same content, under another name
            return Split(0, computing, contents.seconds, perf_counter() - began)
    return Split(1, computing, contents.seconds, perf_counter() - began)


async def add_one_by_one(work: Work, sessions: async_sessionmaker[AsyncSession]) -> Split:
    """Prepare as ours does, and add and commit each row alone."""
    total = Split()
    async for rows in _prepared(work, total):
        for row in rows:
            began = perf_counter()
            async with sessions() as session:
                session.add(Track(**row))
                try:
                    await session.commit()
                    total.rows += 1
                except IntegrityError:
                    await session.rollback()
            total.database += perf_counter() - began
    return total


async def bulk_save_objects(work: Work, sessions: async_sessionmaker[AsyncSession]) -> Split:
    """Prepare as ours does, and save chunks of objects in bulk, each with its commit."""
    total, seen = Split(), set[bytes]()
    objects: list[Track] = []

    async def save() -> None:
        began = perf_counter()
        async with sessions.begin() as session:
            await session.run_sync(lambda sync: sync.bulk_save_objects(objects))
        total.database += perf_counter() - began
        total.rows += len(objects)
        objects.clear()

    async for rows in _prepared(work, total):
        for row in rows:
            if row["content_hash"] not in seen:
                seen.add(row["content_hash"])
                objects.append(Track(**row))
        if len(objects) >= work.chunk:
            await save()
    await save()
    return total


async def _prepared(work: Work, total: Split) -> AsyncGenerator[list[Row], None]:
    """Yield rows as they get ready, and count the time that they took."""
    async with Preparation(work.directory, work.concurrency) as preparation:

        async def prepare(pair: Pair) -> Prepared:
            return await preparation.prepare(Found(0, pair.name, pair.picture, pair.size))

        async with Ahead(prepare, work.concurrency) as ahead:
            ahead.expect(work.left())
            async for batch in ahead.take(work.pairs):
                total.computing += sum(one.computing for one in batch)
                total.reading += sum(one.reading for one in batch)
                yield [one.row for one in batch if one.row is not None]


async def ours(work: Work, sessions: async_sessionmaker[AsyncSession]) -> Split:
    """Load the directory as `ingest` does."""
    done = await ingest(
        work.directory, sessions, concurrency=work.concurrency, chunk=work.chunk, stop=work.stop
    )
    counts = done.counts
    return Split(counts.added, counts.computing, counts.reading, done.database)


SyncWay = Callable[[Work, sessionmaker[Session]], Split]
AsyncWay = Callable[[Work, async_sessionmaker[AsyncSession]], Awaitable[Split]]
SYNC_WAYS: tuple[SyncWay, ...] = (sequential, threads)
ASYNC_WAYS: tuple[AsyncWay, ...] = (add_one_by_one, bulk_save_objects, ours)


async def measure_ways(
    directory: str, url: URL, *, concurrency: int, chunk: int | None, rounds: int, stop: Stop
) -> tuple[Measure, ...]:
    """
    Load a directory, given as its real path, in every way there is, in turns.

    Each on fresh tables, dropped afterwards: a schema of their own, or a file beside the
    SQLite file. Asked to stop, it returns what the whole rounds have found.
    """
    stop.heeded = True
    listed = await asyncio.to_thread(lambda: list(find(directory)))
    pairs = [one for one in listed if isinstance(one, Pair)]
    chunk = chunk or usual_sizes(url.get_backend_name()).chunk
    work = Work(directory, pairs, concurrency, chunk, stop)
    found: dict[str, list[tuple[float, Split]]] = {}
    for _ in range(rounds):
        this_round = {way.__name__: await _measure(way, work, url) for way in SYNC_WAYS}
        this_round |= {way.__name__: await _measure_async(way, work, url) for way in ASYNC_WAYS}
        if stop.requested.is_set():
            break
        for name, measured in this_round.items():
            found.setdefault(name, []).append(measured)
    base = [seconds for seconds, _ in found.get(sequential.__name__, [])]
    return tuple(_median(name, measured, base) for name, measured in found.items())


async def _measure(way: SyncWay, work: Work, url: URL) -> tuple[float, Split]:
    async with _fresh_tables(url) as (place, namespace):
        backend = backend_of(place)
        engine = backend.create_sync_engine(place, pool_size=work.concurrency, namespace=namespace)
        try:
            own = engine.execution_options(**_only_in(namespace))
            sessions, _ = backend.sync_session_factories(own, reads_autocommit=False)
            began = perf_counter()
            split = await asyncio.to_thread(way, work, sessions)
            return perf_counter() - began, split
        finally:
            engine.dispose()


async def _measure_async(way: AsyncWay, work: Work, url: URL) -> tuple[float, Split]:
    async with (
        _fresh_tables(url) as (place, namespace),
        _sessions(place, namespace) as sessions,
    ):
        began = perf_counter()
        split = await way(work, sessions)
        return perf_counter() - began, split


@asynccontextmanager
async def _fresh_tables(url: URL) -> AsyncIterator[tuple[URL, Namespace]]:
    """Yield where a way has tables of its own, all of them made already."""
    if url.get_backend_name() == "sqlite":
        beside = Path(str(url.database)).parent
        with tempfile.TemporaryDirectory(prefix="ingest-", dir=beside) as folder:
            place = url.set(database=f"{folder}/ways.sqlite")
            await _make_tables(place, Namespace())
            yield place, Namespace()
        return
    async with backend_of(url).run_namespace(url) as namespace:
        await _make_tables(url, namespace)
        yield url, namespace


async def _make_tables(url: URL, namespace: Namespace) -> None:
    async with _sessions(url, namespace) as sessions:
        await make_tables(sessions)
        await make_job_tables(await engine_of(sessions))


@asynccontextmanager
async def _sessions(
    url: URL, namespace: Namespace
) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    backend = backend_of(url)
    engine = backend.create_engine(url, pool_size=CONNECTIONS, namespace=namespace)
    async with closing(engine):
        own = engine.execution_options(**_only_in(namespace))
        yield backend.session_factories(own, reads_autocommit=False)[0]


def _only_in(namespace: Namespace) -> dict[str, Any]:
    """Return options by which tables are those of a schema, and never the user's own."""
    return {"schema_translate_map": {None: namespace.schema}} if namespace.schema else {}


def _median(name: str, measured: Sequence[tuple[float, Split]], base: Sequence[float]) -> Measure:
    def median(value: Callable[[Split], float]) -> float:
        return statistics.median(value(split) for _, split in measured)

    return Measure(
        way=name,
        pairs=measured[0][1].rows,
        seconds=statistics.median(seconds for seconds, _ in measured),
        computing=median(lambda split: split.computing),
        reading=median(lambda split: split.reading),
        database=median(lambda split: split.database),
        ratio=statistics.median(
            first / seconds for first, (seconds, _) in zip(base, measured, strict=True)
        ),
    )
