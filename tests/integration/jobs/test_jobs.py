"""Jobs against a real PostgreSQL: exactly once, whatever happens to a chunk."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from typing import Any

import pytest
from sqlalchemy import Enum as SqlEnum
from sqlalchemy import Row, Text, TypeDecorator, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from async_loader.errors import ConfigurationError, JobError
from async_loader.jobs import BatchJob, Chunk, status
from async_loader.jobs.keyset import decode
from async_loader.testing import Interrupted, interrupt_after
from tests.counting import Counter, counting, fill, tally

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def sessions(engine: AsyncEngine) -> Sessions:
    return async_sessionmaker(engine)


@pytest.mark.parametrize("rows", [0, 1, 99, 100, 101, 2_345])
@pytest.mark.parametrize("workers", [1, 4])
async def test_every_row_once(
    engine: AsyncEngine, sessions: Sessions, rows: int, workers: int
) -> None:
    await fill(engine, rows)
    done = await counting().run(sessions, workers=workers)
    assert (done.state, done.total, done.rows_read) == ("done", rows, rows)
    assert done.rows_written == rows
    assert await tally(engine) == ({1: rows} if rows else {})


async def test_the_pool_gets_its_connections_back_without_a_lock(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """Else a worker that has long gone would pass for one that lives."""
    await fill(engine, 1)
    await counting().run(sessions)
    query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database ="
                 " (SELECT oid FROM pg_database WHERE datname = current_database())")  # fmt: skip
    async with engine.connect() as connection:
        assert await connection.scalar(query) == 0


async def test_partitions_have_room_for_new_versions(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 1)
    await counting().run(sessions)
    query = text(
        "SELECT reloptions FROM pg_class WHERE oid = 'async_loader_jobs.partition'::regclass"
    )
    async with engine.connect() as connection:
        assert await connection.scalar(query) == ["fillfactor=50"]


async def test_a_second_run_is_a_new_one(engine: AsyncEngine, sessions: Sessions) -> None:
    await fill(engine, 300)
    first = await counting().run(sessions)
    second = await counting().run(sessions)
    assert first.run != second.run
    assert await tally(engine) == {2: 300}


@pytest.mark.parametrize("place", ["before commit", "after commit"])
@pytest.mark.parametrize("chunks", [0, 1, 7])
async def test_interrupted_and_resumed(
    engine: AsyncEngine, sessions: Sessions, chunks: int, place: str
) -> None:
    await fill(engine, 1_000)
    with pytest.raises(Interrupted), interrupt_after(chunks, place):  # type: ignore[arg-type]  # a parameter
        await counting().run(sessions)
    assert (await status(engine, "counting")).state == "running"
    committed = 100 * (chunks + (place == "after commit"))
    assert (await tally(engine)).get(1, 0) == committed
    done = await counting().run(sessions)
    assert done.rows_read == 1_000
    assert await tally(engine) == {1: 1_000}


async def test_columns_and_a_function_of_the_arguments(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """A select may be of columns and depend on arguments; apply may ask for its chunk."""
    await fill(engine, 250)
    keys: list[str] = []
    job = BatchJob(
        "columns",
        select=lambda arguments: select(Counter.id, Counter.n).where(
            Counter.id <= int(arguments["upto"])
        ),
        key=[Counter.id],
        chunk=100,
    )

    @job.apply
    async def apply(session: AsyncSession, rows: Sequence[Row[int, int]], chunk: Chunk) -> None:
        keys.append(chunk.key)
        await session.execute(
            update(Counter).where(Counter.id.in_([row.id for row in rows])).values(n=1)
        )

    done = await job.run(sessions, arguments={"upto": "150"})
    assert await tally(engine) == {0: 100, 1: 150}
    assert len(set(keys)) == len(keys) == done.chunks
    assert keys[0].startswith(f"{done.run}/0/1")


async def test_the_key_of_a_chunk_names_the_same_rows_when_it_is_tried_again(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """Rows that appear in the meantime do not move its end."""
    await fill(engine, 1_000)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE counter SET id = -id"))
        await connection.execute(text("UPDATE counter SET id = id * -10"))
    tried: list[tuple[str, int]] = []

    def job() -> BatchJob:
        made = BatchJob("stable", select=select(Counter), chunk=100, partitions=1)

        @made.apply
        async def apply(session: AsyncSession, rows: Sequence[Counter], chunk: Chunk) -> None:
            tried.append((chunk.key, max(row.id for row in rows)))

        return made

    with pytest.raises(Interrupted), interrupt_after(3):
        await job().run(sessions)
    async with engine.begin() as connection:
        await connection.execute(insert(Counter), [{"id": i * 10 + 5} for i in range(300, 400)])
    await job().run(sessions)
    again = [key for key, _ in tried if key == tried[3][0]]
    assert len(again) == 2
    assert len({end for key, end in tried if key == tried[3][0]}) == 1


async def test_one_transaction_without_rows(engine: AsyncEngine, sessions: Sessions) -> None:
    await fill(engine, 5)
    job = BatchJob("once")

    @job.apply
    async def apply(session: AsyncSession, _rows: Sequence[None]) -> None:
        await session.execute(update(Counter).values(n=Counter.n + 1))

    with pytest.raises(Interrupted), interrupt_after(0):
        await job.run(sessions)
    assert await tally(engine) == {0: 5}
    done = await job.run(sessions)
    assert (done.state, done.chunks, done.total) == ("done", 1, None)
    assert await tally(engine) == {1: 5}


# --- poison --------------------------------------------------------------------------------

POISON: dict[str, list[int]] = {
    "none": [],
    "one": [23],
    "two adjacent": [60, 61],
    "first": [1],
    "last": [100],
    "several": [1, 2, 39, 40, 41, 99, 100],
    "all": list(range(1, 101)),
}


def poisoned(kind: str, bad: Sequence[int], **options: Any) -> BatchJob:
    """Return a job that fails at these rows: in Python, in the database, or at the commit."""
    job = BatchJob("poisoned", **{"select": select(Counter), "chunk": 100, **options})

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        for counter in counters:
            counter.n += 1
            if counter.id in bad and kind == "Python":
                raise ValueError(f"bad row {counter.id}")
            if counter.id in bad and kind in ("database", "commit"):
                counter.n = -1

    return job


async def constrain(engine: AsyncEngine, kind: str) -> None:
    """Refuse a negative number, at once or when it is committed."""
    async with engine.begin() as connection:
        if kind == "database":
            await connection.execute(text("ALTER TABLE counter ADD CHECK (n >= 0)"))
        if kind == "commit":
            await connection.execute(text("CREATE TABLE good (n int PRIMARY KEY)"))
            await connection.execute(text("INSERT INTO good VALUES (0), (1)"))
            await connection.execute(
                text(
                    "ALTER TABLE counter ADD FOREIGN KEY (n) REFERENCES good"
                    " DEFERRABLE INITIALLY DEFERRED"
                )
            )


async def errors(engine: AsyncEngine) -> list[tuple[int, str, str | None]]:
    """Return id, exception and SQLSTATE of the rows in the error table."""
    query = "SELECT key, exception, sqlstate FROM async_loader_jobs.error"
    async with engine.connect() as connection:
        rows = await connection.execute(text(query))
        return sorted((int(decode(row.key)[0]), row.exception, row.sqlstate) for row in rows)


@pytest.mark.parametrize("kind", ["Python", "database", "commit"])
@pytest.mark.parametrize("bad", POISON.values(), ids=POISON.keys())
async def test_poison_rows_are_found_exactly(
    engine: AsyncEngine, sessions: Sessions, kind: str, bad: list[int]
) -> None:
    await fill(engine, 100)
    await constrain(engine, kind)
    done = await poisoned(kind, bad, skip_limit=100, chunk=40).run(sessions, workers=2)
    found = await errors(engine)
    assert [key for key, _, _ in found] == bad
    told = {
        "Python": ("ValueError", None),
        "database": ("CheckViolationError", "23514"),
        "commit": ("ForeignKeyViolationError", "23503"),
    }
    assert {(exception, state) for _, exception, state in found} <= {told[kind]}
    assert (done.rows_skipped, done.rows_read) == (len(bad), 100 - len(bad))
    expected = {0: len(bad), 1: 100 - len(bad)}
    assert await tally(engine) == {n: count for n, count in expected.items() if count}


async def test_without_a_skip_limit_the_run_stops_and_names_the_row(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 250)
    with pytest.raises(JobError, match=r"poisoned stopped at the row id=57: ValueError: bad row"):
        await poisoned("Python", [57]).run(sessions)
    stopped = await status(engine, "poisoned")
    assert stopped.state == "failed"
    assert stopped.message is not None
    assert "id=57" in stopped.message
    assert await errors(engine) == []
    done = await poisoned("Python", []).run(sessions)  # repaired
    assert done.run == stopped.run
    assert await tally(engine) == {1: 250}


async def test_a_skip_limit_is_of_the_whole_run(engine: AsyncEngine, sessions: Sessions) -> None:
    await fill(engine, 1_000)
    bad = list(range(1, 1_000, 100))
    with pytest.raises(JobError):
        await poisoned("Python", bad, skip_limit=9).run(sessions, workers=4)
    assert len(await errors(engine)) == 9
    done = await poisoned("Python", bad, skip_limit=10).run(sessions, workers=4)
    assert done.rows_skipped == 10
    assert await tally(engine) == {0: 10, 1: 990}


async def test_skipping_can_be_interrupted(engine: AsyncEngine, sessions: Sessions) -> None:
    await fill(engine, 250)
    bad = [3, 4, 77, 250]
    for chunks in range(12):
        with suppress(Interrupted), interrupt_after(chunks % 3, "after commit"):
            await poisoned("Python", bad, skip_limit=9).run(sessions)
            break
    assert [key for key, _, _ in await errors(engine)] == bad
    assert await tally(engine) == {0: 4, 1: 246}


async def test_errors_can_be_retried(engine: AsyncEngine, sessions: Sessions) -> None:
    await fill(engine, 250)
    await poisoned("Python", [3, 4, 77], skip_limit=9).run(sessions)
    with pytest.raises(Interrupted), interrupt_after(1, "after commit"):
        await poisoned("Python", [77]).retry_errors(sessions)
    assert await tally(engine) == {0: 1, 1: 249}
    retried = await poisoned("Python", [77]).retry_errors(sessions)
    assert (retried.repaired, retried.failing) == (0, 1)
    retried = await poisoned("Python", []).retry_errors(sessions)
    assert (retried.repaired, retried.failing) == (1, 0)
    assert await tally(engine) == {1: 250}
    assert await errors(engine) == []


async def test_a_retried_row_is_not_done_twice_on_another_connection(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 10)
    await poisoned("Python", [3], skip_limit=9).run(sessions)
    job = BatchJob("poisoned", select=select(Counter), chunk=100)

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        async with sessions.begin() as another:
            await another.execute(text("UPDATE counter SET n = n + 1 WHERE id = 10"))
        if (await tally(engine)).get(2) == 1:  # the first time
            backend = await session.scalar(text("SELECT pg_backend_pid()"))
            async with engine.connect() as connection:
                await connection.execute(text(f"SELECT pg_terminate_backend({backend})"))
        counters[0].n += 1

    with pytest.raises(JobError, match="something was committed on another connection"):
        await job.retry_errors(sessions)
    assert await tally(engine) == {0: 1, 1: 8, 2: 1}


# --- rows that appear later ----------------------------------------------------------------


def clearing(**options: Any) -> BatchJob:
    """Return a job that takes its rows out of its select."""
    query = select(Counter).where(Counter.n == 0)
    return counting(select=query, until_empty=True, **options)


async def test_until_empty_finds_what_comes_out_of_order(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """Ids are handed out in one order and committed in another, while the job runs."""
    await fill(engine, 500)
    rng = random.Random(1)
    numbers = list(range(501, 1_501))
    rng.shuffle(numbers)

    async def write(mine: list[int]) -> None:
        for number in mine:
            async with engine.begin() as connection:
                await connection.execute(insert(Counter).values(id=number, n=0))
                await asyncio.sleep(rng.uniform(0, 0.01))

    writers = [asyncio.create_task(write(numbers[n::4])) for n in range(4)]
    runs = []
    while not all(writer.done() for writer in writers):
        runs.append(await clearing(chunk=50).run(sessions, workers=2))
    # What was committed when a pass began is what the last one cannot have missed.
    runs.append(await clearing(chunk=50).run(sessions, workers=2))
    assert await tally(engine) == {1: 1_500}
    assert runs[0].total is None
    assert sum(run.rows_read for run in runs) == 1_500


async def test_until_empty_goes_on_while_a_pass_finds_rows(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """Each applied row below 5,000 makes another behind the pass, and one before it."""
    await fill(engine, 100)
    job = BatchJob(
        "spawning", select=select(Counter).where(Counter.n == 0), until_empty=True, chunk=30
    )

    @job.apply
    async def spawn(session: AsyncSession, counters: Sequence[Counter]) -> None:
        for counter in counters:
            counter.n = 1
            if 0 < counter.id < 5_000:
                session.add(Counter(id=counter.id + 1_000, n=0))
                session.add(Counter(id=-counter.id, n=0))

    done = await job.run(sessions, workers=2)
    assert done.state == "done"
    assert await tally(engine) == {1: 1_100}


async def test_until_empty_leaves_out_the_rows_in_the_error_table(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 250)
    options = {"select": select(Counter).where(Counter.n == 0), "until_empty": True}
    done = await poisoned("Python", [7, 8, 200], skip_limit=3, **options).run(sessions)
    assert (done.state, done.rows_skipped, done.rows_read) == ("done", 3, 247)
    assert [key for key, _, _ in await errors(engine)] == [7, 8, 200]


async def test_until_empty_refuses_to_read_for_ever(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 250)
    job = counting(until_empty=True)
    with pytest.raises(ConfigurationError, match="after it id=1 is still there"):
        await job.run(sessions)
    assert await tally(engine) == {0: 250}
    assert (await status(engine, "counting")).state == "failed"


async def test_a_chunks_rows_go_without_the_garbage_collector(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 300)
    job = BatchJob("going", select=select(Counter), chunk=100, partitions=1)
    seen: list[weakref.ref[Counter]] = []
    left: list[int] = []

    @job.apply
    async def apply(_session: AsyncSession, counters: Sequence[Counter]) -> None:
        left.append(sum(counter() is not None for counter in seen))
        seen.extend(map(weakref.ref, counters))

    gc.disable()
    try:
        await job.run(sessions)
    finally:
        gc.enable()
    assert left == [0, 0, 0]


# --- what apply must not do ----------------------------------------------------------------


@pytest.mark.parametrize("way", ["commit", "rollback"])
async def test_apply_must_not_end_its_transaction(
    engine: AsyncEngine, sessions: Sessions, way: str
) -> None:
    await fill(engine, 10)
    job = BatchJob("ending", select=select(Counter))

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        counters[0].n = 1
        await session.flush()
        await getattr(session, way)()

    with pytest.raises(ConfigurationError, match="apply must not commit or roll back"):
        await job.run(sessions)
    assert await tally(engine) == {0: 10}


async def test_apply_may_use_savepoints(engine: AsyncEngine, sessions: Sessions) -> None:
    await fill(engine, 10)
    job = BatchJob("savepoints", select=select(Counter))

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        for counter in counters:
            async with session.begin_nested():
                counter.n = 1

    await job.run(sessions)
    assert await tally(engine) == {1: 10}


class Strict(TypeDecorator[str]):
    """A type that does not read all that its column holds."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: Any, _dialect: object) -> Any:
        if value == "broken":
            raise ValueError("no score")
        return value


class Kind(Enum):
    SONG = "song"


class ScoreBase(DeclarativeBase):
    pass


class Score(ScoreBase):
    __tablename__ = "score"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[Kind] = mapped_column(SqlEnum(Kind, native_enum=False))
    notes: Mapped[str] = mapped_column(Strict, default="")


@pytest.mark.parametrize("row", [1, 4])
@pytest.mark.parametrize(
    ("column", "value", "exception"),
    [("kind", "OPER", "LookupError"), ("notes", "broken", "ValueError")],
)
async def test_a_row_that_cannot_be_read_is_skipped_as_any_other_also_the_first(
    engine: AsyncEngine, *, row: int, column: str, value: str, exception: str
) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(ScoreBase.metadata.create_all)
        rows = [{"id": n, "kind": Kind.SONG} for n in range(1, 6)]
        await connection.execute(insert(Score), rows)
        await connection.execute(text(f"UPDATE score SET {column} = '{value}' WHERE id = {row}"))
    seen: list[int] = []
    for limit in (0, 1):
        job = BatchJob("reading", select=select(Score), chunk=2, partitions=1, skip_limit=limit)

        @job.apply
        async def apply(session: AsyncSession, scores: Sequence[Score]) -> None:
            seen.extend(score.id for score in scores)

        if not limit:
            told = f"reading stopped at the row id={row}: {exception}: "
            with pytest.raises(JobError, match=told):
                await job.run(async_sessionmaker(engine))
    done = await job.run(async_sessionmaker(engine))
    assert (done.state, done.rows_skipped) == ("done", 1)
    assert sorted(seen) == [n for n in range(1, 6) if n != row]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"arguments": {"a": "x\ny"}}, "an argument is one line of printable characters"),
        ({"arguments": {"a": "x\0y"}}, "an argument is one line of printable characters"),
        ({"arguments": {"\udcff": "x"}}, "an argument is one line of printable characters"),
        ({"arguments": {"a": "x" * 20_000}}, "an argument has at most 1,500 bytes"),
        ({"arguments": {f"a{n}": "x" * 90 for n in range(20)}},
         "a job's arguments have at most 1,500 bytes"),
        ({"idempotency_key": "x" * 20_000}, "an idempotency key has at most 500 bytes"),
        ({"idempotency_key": "x\udcff"}, "an idempotency key is one line of printable characters"),
    ],
)  # fmt: skip
async def test_words_that_a_run_cannot_be_found_by_are_refused(
    engine: AsyncEngine, sessions: Sessions, options: dict[str, Any], told: str
) -> None:
    await fill(engine, 1)
    with pytest.raises(ConfigurationError, match=f"^{told}$"):
        await counting().run(sessions, **options)


async def test_the_longest_words_are_taken(engine: AsyncEngine, sessions: Sessions) -> None:
    """None of them repeats itself: an index compresses what it holds."""
    await fill(engine, 1)
    rng = random.Random(1)

    def word(length: int) -> str:
        return "".join(chr(rng.randint(33, 126)) for _ in range(length)).replace('"', "x")

    key, value = word(500), word(1_490).replace("\\", "x")
    done = await counting(name=word(200)).run(sessions, arguments={"a": value}, idempotency_key=key)
    assert (done.state, done.arguments) == ("done", {"a": value})


async def test_what_makes_no_async_session_is_refused(engine: AsyncEngine) -> None:
    wrong: list[Any] = [engine, sessionmaker(engine.sync_engine), AsyncSession(engine), None]
    for sessions in wrong:
        with pytest.raises(ConfigurationError, match=r"^a job needs an async_sessionmaker with"):
            await counting().run(sessions)
