"""Slow work before a chunk's transaction: what is prepared is applied to that version alone."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, select, text, update
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, load_only, mapped_column

from async_loader.errors import ConfigurationError, JobError
from async_loader.jobs import BatchJob, Chunk, PrepareContext, status
from async_loader.jobs import preparing as preparing_module
from async_loader.jobs.connections import engine_of
from async_loader.testing import Interrupted, interrupt_after
from tests.counting import Counter, fill, tally

Sessions = async_sessionmaker[AsyncSession]
ROWS = 40


@pytest.fixture
def sessions(engine: AsyncEngine) -> Sessions:
    return async_sessionmaker(engine)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between attempts."""
    monkeypatch.setattr(preparing_module, "_FIRST_PAUSE", 0.0)


class Prepared(BatchJob):
    """Adds to each counter what was prepared of it: one, if it is what it was."""

    def __init__(self, **options: Any) -> None:
        given = {"name": "prepared", "select": select(Counter), "chunk": 10, "partitions": 1}
        super().__init__(**{**given, **options})
        self.calls: list[tuple[int, PrepareContext]] = []
        self.meanwhile: Any = None  # awaited in each call
        self.prepare(self._prepare)
        self.apply(self._apply_all)

    async def _prepare(self, counter: Counter, context: PrepareContext) -> tuple[int, int]:
        self.calls.append((counter.id, context))
        if self.meanwhile is not None:
            await self.meanwhile(counter, context)
        return counter.id, counter.n + 1

    async def _apply_all(
        self, session: AsyncSession, counters: Sequence[Counter], prepared: Sequence[Any]
    ) -> None:
        for counter, (its, n) in zip(counters, prepared, strict=True):
            assert counter.id == its
            assert counter.n + 1 == n, "it is what was prepared"
            counter.n = n

    @property
    def times(self) -> Tally[int]:
        """How often each row was prepared."""
        return Tally(row for row, _ in self.calls)


async def change(engine: AsyncEngine, row: int, n: int) -> None:
    async with engine.begin() as connection:
        await connection.execute(update(Counter).where(Counter.id == row).values(n=n))


async def test_nothing_is_open_while_rows_are_prepared_so_many_at_once(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, ROWS)
    job, most, now = Prepared(prepare_concurrency=4), 0, 0
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)"
    )
    seen: list[int] = []

    async def meanwhile(counter: Counter, _context: PrepareContext) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        async with engine.connect() as connection:
            if now == 1:
                seen.append(await connection.scalar(query) or 0)
        now -= 1

    job.meanwhile = meanwhile
    done = await job.run(sessions)
    assert (done.state, done.rows_read, done.rows_prepared, done.retried) == ("done", 40, 40, 0)
    assert await tally(engine) == {1: ROWS}
    assert most == 4
    # A lease is renewed, or a connection opened, at any moment: what is held is there at all.
    assert 0 in seen
    assert (await status(engine, "prepared")).rows_prepared == ROWS
    assert len({context.key for _, context in job.calls}) == ROWS
    assert {context.attempt for _, context in job.calls} == {1}


@pytest.mark.parametrize("compare", ["version", "columns", "xmin"])
async def test_a_row_that_changes_meanwhile_is_prepared_again_and_no_other(
    engine: AsyncEngine, sessions: Sessions, compare: Any
) -> None:
    await fill(engine, ROWS)
    job = Prepared(prepare_compare=compare)

    async def meanwhile(counter: Counter, _context: PrepareContext) -> None:
        if counter.id == 15 and counter.n < 6:
            await change(engine, 15, counter.n + 3)

    job.meanwhile = meanwhile
    done = await job.run(sessions)
    assert (done.state, done.rows_prepared, done.retried) == ("done", ROWS + 2, 2)
    assert job.times == {**dict.fromkeys(range(1, ROWS + 1), 1), 15: 3}
    assert await tally(engine) == {1: ROWS - 1, 7: 1}
    assert len({context.key for row, context in job.calls if row == 15}) == 3


async def test_a_change_that_the_chunk_waits_for_is_seen(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """The row is locked before it is compared: who holds it commits first."""
    await fill(engine, 10)
    job, prepared = Prepared(), asyncio.Event()

    async def meanwhile(counter: Counter, _context: PrepareContext) -> None:
        if counter.id == 10:
            prepared.set()

    job.meanwhile = meanwhile
    async with engine.connect() as connection:
        await connection.execute(update(Counter).where(Counter.id == 3).values(n=7))
        running = asyncio.create_task(job.run(sessions))
        await prepared.wait()
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        async with engine.connect() as other:
            while not await other.scalar(waiting):
                await asyncio.sleep(0.01)
        await connection.commit()
    assert (await running).retried == 1
    assert await tally(engine) == {1: 9, 8: 1}
    assert job.times[3] == 2


async def test_a_row_that_changes_each_time_stops_the_run_or_is_skipped(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 10)
    job = Prepared()

    async def meanwhile(counter: Counter, _context: PrepareContext) -> None:
        if counter.id == 4:
            await change(engine, 4, counter.n + 1)

    job.meanwhile = meanwhile
    said = r"stopped at the row id=4: RowChangedError: changed while it was prepared 10 times"
    with pytest.raises(JobError, match=said):
        await job.run(sessions)
    assert await tally(engine) == {1: 3, 0: 6, 10: 1}


async def test_a_change_may_be_skipped_and_is_repaired_by_retry_errors(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 10)
    job = Prepared(prepare_changed="skip", skip_limit=1)

    async def meanwhile(counter: Counter, _context: PrepareContext) -> None:
        if counter.id == 4 and counter.n == 0:
            await change(engine, 4, 5)

    job.meanwhile = meanwhile
    done = await job.run(sessions)
    assert (done.state, done.rows_skipped, done.rows_read) == ("done", 1, 9)
    assert job.times == dict.fromkeys(range(1, 11), 1)
    assert await tally(engine) == {1: 9, 5: 1}
    assert (await job.retry_errors(sessions)).repaired == 1
    assert await tally(engine) == {1: 9, 6: 1}


async def test_errors_are_tried_again_by_their_class_under_one_key(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, ROWS)
    job = Prepared(
        prepare_retries={ConnectionError: 2, OSError: 5}, skip_limit=3, prepare_concurrency=1
    )

    async def meanwhile(counter: Counter, context: PrepareContext) -> None:
        if counter.id == 3 and context.attempt <= 2:
            raise ConnectionResetError("passes")
        if counter.id == 14:
            raise ConnectionResetError("stays")
        if counter.id == 25:
            raise ValueError("no class that is named")
        if counter.id == 31 and context.attempt <= 5:
            raise FileNotFoundError("passes")

    job.meanwhile = meanwhile
    done = await job.run(sessions)
    assert (done.state, done.rows_skipped, done.rows_prepared) == ("done", 2, ROWS - 2)
    assert {row: job.times[row] for row in (1, 3, 14, 25, 31)} == {1: 1, 3: 3, 14: 3, 25: 1, 31: 6}
    assert all(job.times[row] == 1 for row in range(32, ROWS + 1))
    attempts = [context.attempt for row, context in job.calls if row == 31]
    assert attempts == [1, 2, 3, 4, 5, 6]
    assert len({context.key for row, context in job.calls if row == 31}) == 1
    assert await tally(engine) == {1: ROWS - 2, 0: 2}
    job.meanwhile = None
    assert (await job.retry_errors(sessions)).repaired == 2
    assert await tally(engine) == {1: ROWS}


async def test_the_first_row_that_fails_stops_the_run_and_what_was_before_it_is_done(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, ROWS)
    job = Prepared(prepare_concurrency=2)

    async def meanwhile(counter: Counter, _context: PrepareContext) -> None:
        if counter.id == 15:
            raise ValueError("five")
        await asyncio.sleep(0)

    job.meanwhile = meanwhile
    with pytest.raises(JobError, match=r"stopped at the row id=15: ValueError: five; repair it"):
        await job.run(sessions)
    assert await tally(engine) == {1: 14, 0: ROWS - 14}
    assert max(job.times) <= 16, "and none behind it is begun"
    job.meanwhile = None
    assert (await job.run(sessions)).state == "done"
    assert await tally(engine) == {1: ROWS}


@pytest.mark.parametrize("place", ["before commit", "after commit"])
async def test_a_kill_at_each_boundary_applies_once_and_prepares_under_the_same_key(
    engine: AsyncEngine, sessions: Sessions, place: Any
) -> None:
    await fill(engine, ROWS)
    job = Prepared()
    for _ in range(4):
        with pytest.raises(Interrupted), interrupt_after(0, place):
            await job.run(sessions)
        again = Prepared()
        again.calls = job.calls
        job = again
    while (await job.run(sessions)).state != "done":
        pass
    assert await tally(engine) == {1: ROWS}
    keys = {(row, context.key) for row, context in job.calls}
    assert len(keys) == ROWS
    assert len(job.calls) > ROWS if place == "before commit" else len(job.calls) == ROWS


async def test_what_is_prepared_outlasts_a_chunk_that_is_tried_again(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """Behind the server's trouble, and where it is cut for a row that apply fails at."""
    await fill(engine, ROWS)
    troubles = 2
    job = BatchJob("prepared", select=select(Counter), chunk=10, partitions=1, skip_limit=1)
    calls: list[int] = []
    chunks: set[str] = set()

    @job.prepare
    async def prepare(counter: Counter) -> int:
        calls.append(counter.id)
        return counter.id

    @job.apply
    async def apply(
        session: AsyncSession, counters: Sequence[Counter], prepared: Sequence[int], chunk: Chunk
    ) -> None:
        nonlocal troubles
        chunks.add(chunk.key)
        for counter, its in zip(counters, prepared, strict=True):
            assert counter.id == its
            if its == 27:
                raise ValueError
            counter.n += 1
        if troubles:
            troubles -= 1
            raising = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"
            await session.execute(text(raising))

    done = await job.run(sessions)
    assert (done.state, done.rows_skipped, done.retried) == ("done", 1, 2)
    assert sorted(calls) == list(range(1, ROWS + 1))
    assert await tally(engine) == {1: ROWS - 1, 0: 1}
    assert len(chunks) > 4


async def test_rows_that_go_or_come_meanwhile(engine: AsyncEngine, sessions: Sessions) -> None:
    await fill(engine, 10)
    job, once = Prepared(), [True]

    async def meanwhile(counter: Counter, _context: PrepareContext) -> None:
        if counter.id == 9 and once:
            once.clear()
            async with engine.begin() as connection:
                await connection.execute(text("DELETE FROM counter WHERE id = 2"))
                await connection.execute(text("UPDATE counter SET id = -5 WHERE id = 3"))
                await connection.execute(text("INSERT INTO counter VALUES (0, 0)"))

    job.meanwhile = meanwhile
    done = await job.run(sessions)
    assert (done.state, done.rows_read, done.rows_prepared, done.retried) == ("done", 10, 12, 1)
    assert await tally(engine) == {1: 10}


async def test_again_until_there_are_none_leaves_out_what_has_failed(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, ROWS)
    job = Prepared(select=select(Counter).where(Counter.n == 0), until_empty=True, skip_limit=1)

    async def meanwhile(counter: Counter, _context: PrepareContext) -> None:
        if counter.id == 5:
            raise ValueError

    job.meanwhile = meanwhile
    done = await job.run(sessions)
    assert (done.state, done.rows_skipped) == ("done", 1)
    assert job.times[5] == 1
    job.meanwhile = None
    assert (await job.retry_errors(sessions)).repaired == 1
    assert await tally(engine) == {1: ROWS}


async def test_columns_are_rows_of_their_own(engine: AsyncEngine, sessions: Sessions) -> None:
    await fill(engine, ROWS)
    job = BatchJob("columns", select=select(Counter.n), key=(Counter.id,), chunk=10)
    changed = False

    @job.prepare
    async def prepare(row: Any) -> int:
        nonlocal changed
        if not changed:
            changed = True
            await change(engine, 1, 5)
        return int(row.n)

    @job.apply
    async def apply(session: AsyncSession, rows: Sequence[Any], prepared: Sequence[int]) -> None:
        assert [row.n for row in rows] == prepared

    assert (await job.run(sessions)).rows_prepared == ROWS + 1


async def test_a_mapped_version_is_what_counts(engine: AsyncEngine, sessions: Sessions) -> None:
    class Base(DeclarativeBase):
        pass

    class Page(Base):
        __tablename__ = "page"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]
        version: Mapped[int] = mapped_column()
        __mapper_args__ = {"version_id_col": version}  # noqa: RUF012  SQLAlchemy's

    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("INSERT INTO page VALUES (1, 'a', 1), (2, 'b', 1)"))
    job = BatchJob("pages", select=select(Page))
    calls: list[int] = []

    @job.prepare
    async def prepare(page: Page) -> str:
        calls.append(page.id)
        if len(calls) == 1:
            async with engine.begin() as connection:
                await connection.execute(text("UPDATE page SET body = 'x' WHERE id = 1"))
                await connection.execute(text("UPDATE page SET version = 2 WHERE id = 2"))
        return page.body.upper()

    @job.apply
    async def apply(session: AsyncSession, pages: Sequence[Page], prepared: Sequence[str]) -> None:
        for page, body in zip(pages, prepared, strict=True):
            page.body = body

    await job.run(sessions)
    assert sorted(calls) == [1, 2, 2]


async def test_xmin_is_refused_where_it_would_miss_a_table(sessions: Sessions) -> None:
    class Base(DeclarativeBase):
        pass

    class Whole(Base):
        __tablename__ = "whole"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Part(Whole):
        __tablename__ = "part"
        id: Mapped[int] = mapped_column(ForeignKey(Whole.id), primary_key=True)
        body: Mapped[str]

    engine = await engine_of(sessions)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    with pytest.raises(ConfigurationError, match="for a select of one table"):
        await Prepared(select=select(Part), prepare_compare="xmin").run(sessions)


async def test_what_is_not_loaded_is_the_rows_failure_and_says_so(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await fill(engine, 5)
    job = Prepared(select=select(Counter).options(load_only(Counter.id)))
    with pytest.raises(JobError, match="stopped at the row id=1: DetachedInstanceError"):
        await job.run(sessions)


async def test_on_sqlite(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'file.sqlite'}")
    await fill(engine, ROWS)
    job = Prepared()
    done = await job.run(async_sessionmaker(engine))
    assert (done.state, done.rows_prepared) == ("done", ROWS)
    assert await tally(engine) == {1: ROWS}
    with pytest.raises(ConfigurationError, match="on PostgreSQL: say 'columns'"):
        await Prepared(prepare_compare="xmin").run(async_sessionmaker(engine))
    await engine.dispose()


@pytest.mark.parametrize("ending", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_what_ends_a_process_in_prepare_is_told_and_ends_the_run(
    engine: AsyncEngine, sessions: Sessions, ending: BaseException
) -> None:
    await fill(engine, ROWS)
    job = Prepared()

    async def meanwhile(counter: Counter, _context: PrepareContext) -> None:
        raise ending

    job.meanwhile = meanwhile
    with pytest.raises(JobError, match=f"prepare raised {type(ending).__name__}"):
        await job.run(sessions)
    assert (await status(engine, "prepared")).state == "failed"
    assert await tally(engine) == {0: ROWS}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prepare_concurrency": 0}, "prepare_concurrency is 1 to 10,000"),
        ({"prepare_concurrency": "8"}, "prepare_concurrency is 1 to 10,000"),
        ({"prepare_rate": "fast"}, "prepare_rate 'fast': a rate looks like 500/s"),
        ({"prepare_rate": "0/s"}, "prepare_rate '0/s'"),
        ({"prepare_rate": 10}, "prepare_rate 10"),
        ({"prepare_retries": {"ValueError": 1}}, "for classes of exceptions"),
        ({"prepare_retries": {BaseException: 1}}, "for classes of exceptions"),
        ({"prepare_retries": {ValueError: -1}}, "of ValueError is a number of times"),
        ({"prepare_retries": 3}, "for classes of exceptions"),
        ({"prepare_changed": "ignore"}, "'again' or 'skip'"),
        ({"prepare_compare": "hash"}, "'version', 'columns' or 'xmin'"),
        ({"select": None}, "prepare needs a select"),
    ],
)
def test_an_option_that_is_none_is_refused_where_it_is_given(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Prepared(**options)


async def test_functions_that_do_not_go_together_are_refused(sessions: Sessions) -> None:
    async def with_two(session: AsyncSession, rows: Sequence[Any]) -> None: ...

    async def with_four(session: AsyncSession, rows: Any, prepared: Any, chunk: Any) -> None: ...

    async def row(row: Any) -> None: ...

    job = BatchJob("two", select=select(Counter))
    job.prepare(row)
    job.apply(with_two)
    with pytest.raises(ConfigurationError, match="what was prepared as its third parameter"):
        await job.run(sessions)
    with pytest.raises(ConfigurationError, match="has a prepare already"):
        job.prepare(row)
    job = BatchJob("four", select=select(Counter))
    job.apply(with_four)
    with pytest.raises(ConfigurationError, match=r"there is no @job\.prepare"):
        await job.run(sessions)
    job = BatchJob("options", select=select(Counter), prepare_rate="1/s")
    job.apply(with_two)
    with pytest.raises(ConfigurationError, match=r"no @job\.prepare does"):
        await job.run(sessions)
    with pytest.raises(ConfigurationError, match=r"async def prepare\(row\)"):
        job.prepare(with_four)
