"""
Measure ways to insert one shape, in turns: A B C A B C, so that a busy minute hits all alike.

Times and CPU are taken on a direct connection, or through a delaying proxy when there is a
latency to simulate; round trips are always counted through a proxy, with statements and types
warm and the transaction open.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from ...database.postgresql import Namespace, closing, create_engine, create_sessions
from ...database.proxy import Proxy
from ...database.run_schema import run_schema
from ...database.urls import parse_url
from ...errors import ConfigurationError
from .. import enable_batch_inserting
from .shapes import SHAPES, Base, Shape
from .strategies import WAYS, InsertStrategy


@dataclass(frozen=True, slots=True)
class Measure:
    """One way's medians over all turns; seconds unless said otherwise."""

    shape: str
    way: str
    rows: int
    seconds: float  # the write alone: objects made and added before, no commit
    total_seconds: float  # making objects or rows, adding, writing, commit
    cpu_seconds: float  # of this process, while writing
    rows_per_second: float
    round_trips: int
    ratio_to_stock: float  # seconds by the seconds of stock; below 1 is faster
    total_ratio_to_stock: float


@dataclass(frozen=True, slots=True)
class _Turn:
    seconds: float
    total_seconds: float
    cpu_seconds: float


async def measure_inserts(
    url: URL | str,
    *,
    shape: str = "plain",
    rows: int = 100_000,
    latency: float = 0.0,
    turns: int = 3,
    ways: Sequence[str] | None = None,
) -> tuple[Measure, ...]:
    """Return one measure for each way that can insert the shape, stock first.

    `latency` in seconds is added to every round trip. The tables are in a schema of their
    own, made by `run_schema` and dropped afterwards. Raises ConfigurationError for an unknown
    shape or way, and DatabaseError.
    """
    chosen = _shape(shape)
    wanted = [way for way in _ways(ways) if way.serves(chosen)]
    target = parse_url(url) if isinstance(url, str) else url
    async with run_schema(target) as schema:
        namespace = Namespace(schema)
        engine = create_engine(target, pool_size=1, namespace=namespace)
        async with closing(engine) as direct:
            async with direct.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            bench = _Bench(target, namespace, direct, chosen, rows)
            timed = await bench.timed(wanted, latency=latency, turns=turns)
            trips = await bench.round_trips(wanted)
    return tuple(_measures(chosen, rows, timed, trips))


def _shape(name: str) -> Shape:
    if name not in SHAPES:
        raise ConfigurationError(f"no shape {name!r}: there are {', '.join(SHAPES)}")
    return SHAPES[name]


def _ways(names: Sequence[str] | None) -> list[InsertStrategy]:
    unknown = set(names or ()) - WAYS.keys()
    if unknown:
        raise ConfigurationError(f"no way {sorted(unknown)}: there are {', '.join(WAYS)}")
    return [way for name, way in WAYS.items() if names is None or name in {"stock", *names}]


@dataclass(frozen=True, slots=True)
class _Bench:
    """Where and what is written."""

    url: URL
    namespace: Namespace
    direct: AsyncEngine
    shape: Shape
    rows: int

    async def timed(
        self, ways: Sequence[InsertStrategy], *, latency: float, turns: int
    ) -> dict[str, list[_Turn]]:
        found: dict[str, list[_Turn]] = {way.name: [] for way in ways}
        async with Proxy(self.url, delay=latency / 2) as proxy:
            for turn in range(turns + 1):
                for way in ways:
                    async with self._sessions(proxy.url if latency else self.url, way) as sessions:
                        await _write(sessions, self.shape, way, min(self.rows, 100))
                        one = await _write(sessions, self.shape, way, self.rows)
                    if turn:  # the first turn warms caches of interpreter and server
                        found[way.name].append(one)
                    await self._empty()
        return found

    async def round_trips(self, ways: Sequence[InsertStrategy]) -> dict[str, int]:
        """Count with the transaction open, and statements and types warm from a first write."""
        found: dict[str, int] = {}
        async with Proxy(self.url) as proxy:
            for way in ways:
                async with self._sessions(proxy.url, way) as sessions, sessions() as session:
                    for count in (min(self.rows, 1000), self.rows):
                        material = _material(self.shape, way, count)
                        before = proxy.round_trips
                        way.prepare(session, material)
                        await way.write(session, self.shape, material)
                        found[way.name] = proxy.round_trips - before
                    await session.rollback()
                await self._empty()
        return found

    @asynccontextmanager
    async def _sessions(
        self, url: URL, way: InsertStrategy
    ) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
        async with closing(create_engine(url, pool_size=1, namespace=self.namespace)) as engine:
            sessions = create_sessions(engine)
            if way.batching:
                enable_batch_inserting(sessions)
            yield sessions

    async def _empty(self) -> None:
        names = ", ".join(table.name for table in Base.metadata.sorted_tables)
        async with self.direct.begin() as connection:
            await connection.execute(text(f"TRUNCATE {names}"))


def _material(shape: Shape, way: InsertStrategy, rows: int) -> Any:
    """Return the objects or the plain rows that a way takes."""
    if way.takes_objects:
        return shape.objects(rows)
    return shape.rows(rows) if shape.rows is not None else None


async def _write(
    sessions: async_sessionmaker[AsyncSession], shape: Shape, way: InsertStrategy, rows: int
) -> _Turn:
    gc.collect()
    begun = time.perf_counter()
    material = _material(shape, way, rows)
    made = time.perf_counter()
    async with sessions() as session:
        await session.execute(text("SELECT 1"))
        opened = time.perf_counter()
        way.prepare(session, material)
        cpu, start = time.process_time(), time.perf_counter()
        await way.write(session, shape, material)
        end, cpu_end = time.perf_counter(), time.process_time()
        await session.commit()
        done = time.perf_counter()
    return _Turn(end - start, (made - begun) + (done - opened), cpu_end - cpu)


def _measures(
    shape: Shape, rows: int, timed: dict[str, list[_Turn]], trips: dict[str, int]
) -> list[Measure]:
    medians = {
        name: _Turn(
            statistics.median(turn.seconds for turn in turns),
            statistics.median(turn.total_seconds for turn in turns),
            statistics.median(turn.cpu_seconds for turn in turns),
        )
        for name, turns in timed.items()
    }
    stock = medians["stock"]
    return [
        Measure(
            shape=shape.name,
            way=name,
            rows=rows,
            seconds=one.seconds,
            total_seconds=one.total_seconds,
            cpu_seconds=one.cpu_seconds,
            rows_per_second=rows / one.seconds,
            round_trips=trips[name],
            ratio_to_stock=one.seconds / stock.seconds,
            total_ratio_to_stock=one.total_seconds / stock.total_seconds,
        )
        for name, one in medians.items()
    ]
