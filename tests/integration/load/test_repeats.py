"""Statements that an operation repeats: found by name and line, and batches are not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import ForeignKey, create_engine, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncAttrs, AsyncEngine, AsyncSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    selectinload,
    sessionmaker,
)

from async_loader import OperationContext, RunResult, Workload, run
from async_loader.database.postgresql import create_sessions
from async_loader.failures.source_lines import short_path
from async_loader.inserts import enable_batch_inserting
from async_loader.load.metrics.repeats import LEAST
from async_loader.load.runner.sync_runner import run_sync
from async_loader.load.specs.run import RunSpec
from async_loader.results.findings import RepeatedStatement

SONGS = 12
HERE = short_path(__file__)


class Base(AsyncAttrs, DeclarativeBase):
    pass


class Song(Base):
    __tablename__ = "song"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    score: Mapped[str] = mapped_column(deferred=True, default="c e g")
    chords: Mapped[list[Chord]] = relationship()


class Chord(Base):
    __tablename__ = "chord"
    id: Mapped[int] = mapped_column(primary_key=True)
    song_id: Mapped[int | None] = mapped_column(ForeignKey(Song.id))


class Ticket(Base):
    __tablename__ = "ticket"
    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())


def line_after(marker: str) -> int:
    """Return the number of the line below a comment of this file."""
    lines = Path(__file__).read_text().splitlines()
    return lines.index(f"        # {marker}") + 2


workload = Workload("songs")


@workload.operation("lazy", kind="read")
async def lazy(session: AsyncSession) -> None:
    for song in await session.scalars(select(Song).limit(SONGS)):
        # lazy
        await song.awaitable_attrs.chords


@workload.operation("deferred", kind="read")
async def deferred(session: AsyncSession) -> None:
    songs = (await session.scalars(select(Song).limit(SONGS))).all()

    def sing(_session: Session) -> None:
        # deferred
        assert all(song.score for song in songs)

    await session.run_sync(sing)


@workload.operation("expired", kind="read")
async def expired(session: AsyncSession) -> None:
    songs = (await session.scalars(select(Song).limit(SONGS))).all()
    session.expire_all()
    for song in songs:
        # expired
        await song.awaitable_attrs.title


@workload.operation("loop", kind="read")
async def loop(session: AsyncSession, op: OperationContext) -> None:
    for number in range(SONGS - op.index % 2):
        # loop
        await session.execute(select(Song.title).where(Song.id == number))


@workload.operation("rows", kind="write")
async def rows(session: AsyncSession) -> None:
    session.add_all(Ticket() for _ in range(SONGS))
    if True:
        # rows
        await session.commit()


@workload.operation("eager", kind="read")
async def eager(session: AsyncSession) -> None:
    found = await session.scalars(select(Song).options(selectinload(Song.chords)))
    assert found.all()


@workload.operation("batches", kind="write", rolls_back=True)
async def batches(session: AsyncSession) -> None:
    session.add_all(Song(title=f"{n}") for n in range(5_500))
    await session.flush()  # six insertmanyvalues of up to 1,000 rows
    await session.execute(update(Song), [{"id": n, "title": "new"} for n in range(SONGS)])
    await session.rollback()


@workload.operation("few", kind="read")
async def few(session: AsyncSession) -> None:
    for _ in range(4):
        await session.execute(text("SELECT 1"))


def only(*names: str) -> Workload:
    chosen = Workload("songs")
    chosen.operations = {name: workload.operations[name] for name in names}
    return chosen


@pytest.fixture
async def songs(engine: AsyncEngine) -> AsyncEngine:
    async with create_sessions(engine).begin() as session:
        await (await session.connection()).run_sync(Base.metadata.create_all)
        session.add_all(Song(title=f"{n}", chords=[Chord()]) for n in range(SONGS))
    return engine


async def found(
    engine: AsyncEngine, *names: str, ops: int = 4, n_plus_one: int = LEAST
) -> RunResult:
    result = await run(
        only(*names),
        sessions=create_sessions(engine),
        ops=ops,
        concurrency=2,
        n_plus_one=n_plus_one,
    )
    assert not result.errors, result.errors
    return result


@pytest.mark.parametrize(
    ("name", "statement", "cause", "function"),
    [
        ("lazy", "FROM chord WHERE $1::INTEGER = chord.song_id",
         "lazy load of Song.chords", "lazy"),
        ("deferred", "FROM song WHERE song.id = $1::INTEGER",
         "deferred load of Song.score", "<genexpr>"),
        ("expired", "FROM song WHERE song.id = $1::INTEGER",
         "reload of expired Song", "expired"),
        ("rows", "INSERT INTO ticket (id) VALUES (DEFAULT) RETURNING ticket.id", "flush", "rows"),
    ],
)  # fmt: skip
async def test_what_the_orm_repeats_has_statement_cause_and_line(
    songs: AsyncEngine, name: str, statement: str, cause: str, function: str
) -> None:
    result = await found(songs, name)
    (repeat,) = result.repeated_statements
    assert repeat == RepeatedStatement(
        operation=name,
        statement=repeat.statement,
        source=f"{HERE}:{line_after(name)} in {function}",
        cause=cause,
        operations=4,
        executions=4 * SONGS,
        most=SONGS,
    )
    assert repeat.statement.endswith(statement)


async def test_a_query_in_a_loop_is_counted_exactly(songs: AsyncEngine) -> None:
    (repeat,) = (await found(songs, "loop", ops=10)).repeated_statements
    assert (repeat.operations, repeat.executions, repeat.most) == (10, 5 * 12 + 5 * 11, 12)
    assert repeat.source == f"{HERE}:{line_after('loop')} in loop"
    assert repeat.cause is None


async def test_batches_eager_loads_and_a_few_are_no_n_plus_one(songs: AsyncEngine) -> None:
    result = await found(songs, "eager", "batches", "few", ops=6)
    assert {name for name, o in result.by_operation.items() if o.count} == {
        "eager",
        "batches",
        "few",
    }
    assert result.repeated_statements == ()


async def test_a_selectinload_of_many_parents_is_a_batch(songs: AsyncEngine) -> None:
    async with create_sessions(songs).begin() as session:
        session.add_all(Song(title=f"{n}") for n in range(4_000))
    result = await found(songs, "eager", ops=1)
    split = result.by_operation["eager"].split
    assert split is not None
    assert split.most_statements > 8, "it came in chunks"
    assert result.repeated_statements == ()


async def test_the_batched_inserts_of_ours_are_none_either(songs: AsyncEngine) -> None:
    sessions = create_sessions(songs)
    enable_batch_inserting(sessions)
    result = await run(only("rows"), sessions=sessions, ops=3, concurrency=1)
    assert result.completed == 3
    assert result.repeated_statements == ()


async def test_the_least_number_can_be_set_and_it_can_be_turned_off(songs: AsyncEngine) -> None:
    def executions(repeats: Sequence[RepeatedStatement]) -> list[int]:
        return [repeat.executions for repeat in repeats]

    assert executions((await found(songs, "few", ops=2, n_plus_one=4)).repeated_statements) == [8]
    assert executions((await found(songs, "loop", ops=2, n_plus_one=0)).repeated_statements) == []
    assert executions((await found(songs, "loop", ops=1, n_plus_one=13)).repeated_statements) == []


async def test_trying_again_is_no_n_plus_one(songs: AsyncEngine) -> None:
    workload = Workload("retried")
    tries = 0

    @workload.operation("twice", kind="write")
    async def twice(session: AsyncSession) -> None:
        nonlocal tries
        tries += 1
        for _ in range(3):
            await session.execute(text("SELECT 1"))
        if tries % 4:
            await session.execute(
                text("DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$")
            )

    sessions = create_sessions(songs)
    result = await run(workload, sessions=sessions, ops=2, concurrency=1, max_tries=4)
    assert (result.completed, tries) == (2, 8)
    assert result.repeated_statements == ()


async def test_the_sync_ways_find_it_too(songs: AsyncEngine) -> None:
    pytest.importorskip("psycopg")
    sync_engine = create_engine(songs.url.set(drivername="postgresql+psycopg"))
    workload = Workload("songs")

    @workload.operation("lazy", kind="read")
    async def lazy(session: AsyncSession) -> None: ...

    @lazy.sync
    def lazy_sync(session: Session) -> None:
        for song in session.scalars(select(Song)):
            assert song.chords  # in a thread

    result = await asyncio.to_thread(
        run_sync, workload, RunSpec.of(ops=4), sessions=sessionmaker(sync_engine), threads=2
    )
    sync_engine.dispose()
    (repeat,) = result.repeated_statements
    number = Path(__file__).read_text().splitlines().index(
        "            assert song.chords  # in a thread"
    ) + 1  # fmt: skip
    assert repeat.source == f"{HERE}:{number} in lazy_sync"
    assert repeat.cause == "lazy load of Song.chords"
    assert (repeat.operations, repeat.executions, repeat.most) == (4, 4 * SONGS, SONGS)
