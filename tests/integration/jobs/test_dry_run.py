"""A job tried: all of it happens, each chunk in a transaction that is rolled back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Integer, Text, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from async_loader.concurrency.stop import Stop
from async_loader.errors import ConfigurationError, JobError
from async_loader.jobs import BatchJob, Selection, list_runs
from tests.counting import Counter, counting, fill, tally

Sessions = async_sessionmaker[AsyncSession]
ROWS = 60


@pytest.fixture(params=["asyncpg", "psycopg"])
async def sessions(request: pytest.FixtureRequest, engine: AsyncEngine) -> Any:
    url = make_url(engine.url).set(drivername=f"postgresql+{request.param}")
    its = create_async_engine(url)
    yield async_sessionmaker(its)
    await its.dispose()


async def state(engine: AsyncEngine) -> list[int]:
    """Return how many rows the state's tables have."""
    names = ("run", "partition", "worker", "error")
    async with engine.connect() as connection:
        query = "SELECT count(*) FROM async_loader_jobs.{}"
        return [await connection.scalar(text(query.format(name))) or 0 for name in names]


async def test_all_happens_and_nothing_stays(engine: AsyncEngine, sessions: Sessions) -> None:
    await fill(engine, ROWS)
    tried = await counting(chunk=25).dry_run(sessions)
    assert (tried.selected, tried.rows_read, tried.rows_written, tried.chunks) == (60, 60, 60, 3)
    assert (tried.failed, tried.stopped_at, tried.interrupted) == ([], None, False)
    assert await tally(engine) == {0: ROWS}
    assert await state(engine) == [0, 0, 0, 0]
    assert (await counting(chunk=25).run(sessions)).run == 1
    assert await tally(engine) == {1: ROWS}
    assert (await counting(chunk=25).dry_run(sessions)).rows_written == ROWS
    assert [run.run for run in await list_runs(engine)] == [1]


@pytest.mark.parametrize(
    ("selection", "rows"),
    [
        (Selection(only=[5, "7", [60], 999]), [5, 7, 60]),
        (Selection(where="id % 20 = 0 -- a comment"), [20, 40, 60]),
        (Selection(where="n::text = '0' AND id < 3"), [1, 2]),
        (Selection(limit=3), [1, 2, 3]),
        (Selection(where="id > 50", limit=2), [51, 52]),
        (Selection(where="id > 100"), []),
        (Selection(where="id > 58", limit=500), [59, 60]),
    ],
)
async def test_on_the_rows_that_are_selected(
    engine: AsyncEngine, selection: Selection, rows: list[int]
) -> None:
    await fill(engine, ROWS)
    job = BatchJob("seeing", select=select(Counter), chunk=2)
    seen: list[int] = []

    @job.apply
    async def apply(_session: AsyncSession, counters: Sequence[Counter]) -> None:
        seen.extend(counter.id for counter in counters)

    tried = await job.dry_run(async_sessionmaker(engine), selection=selection)
    assert seen == rows
    assert (tried.selected, tried.rows_read) == (len(rows), len(rows))


async def test_a_sample_is_a_share_and_the_same_each_time(engine: AsyncEngine) -> None:
    await fill(engine, 2_000)
    sessions = async_sessionmaker(engine)
    job = counting(chunk=500)
    some = await job.dry_run(sessions, selection=Selection(sample=0.1))
    assert 120 < some.rows_read < 280
    again = await job.dry_run(sessions, selection=Selection(sample=0.1))
    assert again.rows_read == some.rows_read
    assert (await job.dry_run(sessions, selection=Selection(sample=1))).rows_read == 2_000


async def test_rows_that_fail_are_named_up_to_the_one_that_a_run_would_stop_at(
    engine: AsyncEngine,
) -> None:
    await fill(engine, ROWS)
    sessions = async_sessionmaker(engine)

    def failing(skip_limit: int) -> BatchJob:
        job = BatchJob("failing", select=select(Counter), chunk=20, skip_limit=skip_limit)

        @job.apply
        async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
            for counter in counters:
                counter.n += 1
                if counter.id in (7, 45):
                    raise ValueError(f"row {counter.id}")

        return job

    tried = await failing(1).dry_run(sessions)
    assert tried.failed == [("id=7", "ValueError: row 7")]
    assert tried.stopped_at == "the row id=45: ValueError: row 45"
    assert tried.rows_read == 43
    assert (await failing(2).dry_run(sessions)).stopped_at is None
    assert await tally(engine) == {0: ROWS}
    assert await state(engine) == [0, 0, 0, 0]


class Base(DeclarativeBase):
    pass


class Named(Base):
    __tablename__ = "named"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    part: Mapped[str] = mapped_column(Text, primary_key=True)
    n: Mapped[int] = mapped_column(default=0)


async def test_what_waits_for_a_commit_is_found_and_keys_have_several_columns(
    engine: AsyncEngine,
) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Named), [{"id": i, "part": "a,b"} for i in range(1, 9)])
        await connection.execute(text("CREATE TABLE allowed (n int PRIMARY KEY)"))
        await connection.execute(text("INSERT INTO allowed VALUES (0), (1)"))
        await connection.execute(
            text("ALTER TABLE named ADD FOREIGN KEY (n) REFERENCES allowed DEFERRABLE"
                 " INITIALLY DEFERRED")
        )  # fmt: skip
    job = BatchJob("named", select=select(Named), skip_limit=1)

    @job.apply
    async def apply(session: AsyncSession, rows: Sequence[Named]) -> None:
        for row in rows:
            row.n += 5 if row.id == 3 else 1

    sessions = async_sessionmaker(engine)
    tried = await job.dry_run(sessions)
    assert [row for row, _ in tried.failed] == ["id=3, part=a,b"]
    assert "foreign key" in tried.failed[0][1]
    tried = await job.dry_run(sessions, selection=Selection(only=[(4, "a,b"), [5, "c"]]))
    assert (tried.rows_read, tried.rows_written) == (1, 1)
    with pytest.raises(ConfigurationError, match=r"a key is \(id, part\), and 4 has 1 values"):
        await job.dry_run(sessions, selection=Selection(only=[4]))


@pytest.mark.parametrize("how", ["session", "sql", "driver"])
async def test_an_apply_that_commits_is_refused_as_in_a_run(engine: AsyncEngine, how: str) -> None:
    await fill(engine, ROWS)
    job = BatchJob("committing", select=select(Counter), chunk=20)

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        counters[0].n += 1
        await session.flush()
        if how == "session":
            await session.commit()
        elif how == "sql":
            await session.execute(text("COMMIT"))
        else:
            raw: Any = await (await session.connection()).get_raw_connection()
            await raw.driver_connection.execute("COMMIT")

    with pytest.raises(ConfigurationError, match="must not commit"):
        await job.dry_run(async_sessionmaker(engine))
    assert await tally(engine) == {0: ROWS}


async def test_what_is_committed_elsewhere_ends_it_at_once(engine: AsyncEngine) -> None:
    await fill(engine, ROWS)
    sessions, job = async_sessionmaker(engine), BatchJob("two", select=select(Counter), chunk=20)

    @job.apply
    async def apply(_session: AsyncSession, counters: Sequence[Counter]) -> None:
        async with sessions.begin() as other:
            await other.execute(text("UPDATE counter SET n = 5 WHERE id = 60"))

    with pytest.raises(JobError, match="a dry run cannot roll back"):
        await job.dry_run(sessions)
    assert await tally(engine) == {0: ROWS - 1, 5: 1}


async def test_prepare_is_called_where_it_is_asked_for(engine: AsyncEngine) -> None:
    await fill(engine, ROWS)
    calls: list[str] = []

    async def setup(_sessions: Any, _arguments: Any) -> None:
        calls.append("setup")

    job = BatchJob("slow", select=select(Counter), chunk=50, setup=setup)

    @job.prepare
    async def prepare(counter: Counter) -> int:
        calls.append("prepare")
        return counter.n + 1

    @job.apply
    async def apply(
        _session: AsyncSession, counters: Sequence[Counter], prepared: Sequence[int]
    ) -> None:
        calls.append("apply")
        for counter, n in zip(counters, prepared, strict=True):
            counter.n = n

    sessions = async_sessionmaker(engine)
    tried = await job.dry_run(sessions)
    assert (calls, tried.rows_read, tried.without) == ([], 60, ("setup", "prepare", "apply"))
    tried = await job.dry_run(sessions, prepare=True)
    assert (tried.rows_prepared, tried.rows_written, tried.without) == (60, 60, ("setup",))
    assert sorted(set(calls)) == ["apply", "prepare"]
    assert await tally(engine) == {0: ROWS}


async def test_a_job_of_one_transaction_one_that_empties_and_one_on_sqlite(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    await fill(engine, ROWS)
    sessions = async_sessionmaker(engine)
    emptying = counting(select=select(Counter).where(Counter.n == 0), until_empty=True)
    assert (await emptying.dry_run(sessions)).rows_written == ROWS
    single = BatchJob("single")

    @single.apply
    async def apply(session: AsyncSession, _rows: Sequence[Any]) -> None:
        await session.execute(text("UPDATE counter SET n = 9"))

    assert (await single.dry_run(sessions)).chunks == 1
    with pytest.raises(ConfigurationError, match="reads no rows to select from"):
        await single.dry_run(sessions, selection=Selection(limit=3))
    assert await tally(engine) == {0: ROWS}
    file = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'file.sqlite'}")
    await fill(file, ROWS)
    tried = await counting().dry_run(
        async_sessionmaker(file), selection=Selection(only=["5", 6], where="id < 6")
    )
    assert (tried.rows_written, await tally(file)) == (1, {0: ROWS})
    with pytest.raises(ConfigurationError, match="PostgreSQL's rows"):
        await counting().dry_run(async_sessionmaker(file), selection=Selection(sample=0.5))
    await file.dispose()


async def test_a_request_to_stop_is_heeded(engine: AsyncEngine) -> None:
    await fill(engine, ROWS)
    stop, job = Stop(), BatchJob("stopping", select=select(Counter), chunk=10)

    @job.apply
    async def apply(_session: AsyncSession, counters: Sequence[Counter]) -> None:
        if counters[0].id == 21:
            stop.request("a test")

    tried = await job.dry_run(async_sessionmaker(engine), stop=stop)
    assert (tried.interrupted, tried.rows_read) == (True, 30)


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        ({"only": ["x"]}, "with the rows that are selected"),
        ({"only": [None]}, "with the rows that are selected"),
        ({"where": "no_column = 1"}, "rows that are selected: a job's select does not run"),
        ({"where": "true) OR (true"}, "" ),
        ({"where": "id IN (SELECT id FROM counter LIMIT 3)"}, "LIMIT in a text"),
        ({"where": "random() < 0.5"}, "volatile"),
        ({"limit": 0}, "limit is a number of rows"),
        ({"sample": 0}, "sample is a share"),
        ({"sample": 1.5}, "sample is a share"),
    ],
)  # fmt: skip
async def test_a_selection_that_is_none_is_refused_in_a_line(
    engine: AsyncEngine, selection: dict[str, Any], said: str
) -> None:
    await fill(engine, ROWS)
    sessions = async_sessionmaker(engine)
    if not said:
        tried = await counting().dry_run(sessions, selection=Selection(**selection))
        assert tried.rows_read == ROWS
        return
    with pytest.raises(ConfigurationError, match=said):
        await counting().dry_run(sessions, selection=Selection(**selection))
    assert await tally(engine) == {0: ROWS}
