"""The plans of the slowest statements: of what may be executed again, and of what may not."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from async_loader import RunResult, Workload, run
from async_loader.reports import html, markdown
from async_loader.reports.console import render
from async_loader.results.plans import StatementPlan
from async_loader.verdict.circumstances import differences

TABLES = """
CREATE TABLE artist (id int PRIMARY KEY, name text);
CREATE TABLE song (id int PRIMARY KEY, artist_id int NOT NULL REFERENCES artist, code text);
CREATE TABLE note (id int);
CREATE SEQUENCE counted;
CREATE FUNCTION count_up(x int) RETURNS bigint LANGUAGE plpgsql VOLATILE
    AS $$ BEGIN RETURN nextval('counted'); END $$;
CREATE FUNCTION refused(x int) RETURNS int LANGUAGE plpgsql STABLE
    AS $$ BEGIN RETURN x / (x - x); END $$;
CREATE FUNCTION lies(x int) RETURNS bigint LANGUAGE plpgsql STABLE
    AS $$ BEGIN RETURN nextval('counted'); END $$;
CREATE VIEW counting AS SELECT count_up(id) AS number FROM artist;
INSERT INTO artist SELECT n, 'artist ' || n FROM generate_series(1, 50) n;
INSERT INTO song SELECT n, n % 50 + 1, 'x' FROM generate_series(1, 5000) n;
ANALYZE artist, song"""


@pytest.fixture
async def shop(engine: AsyncEngine) -> AsyncEngine:
    async with engine.begin() as connection:
        for statement in TABLES.split(";\n"):
            await connection.execute(text(statement))
    return engine


async def plans_of(engine: AsyncEngine, *statements: str, **options: bool) -> list[StatementPlan]:
    """Return the plans of statements, in their order, of a run that sends each three times."""
    workload = Workload("shop")

    @workload.operation("all", rolls_back=True)
    async def send(session: AsyncSession) -> None:
        for statement in statements:
            await session.execute(text(statement), {"id": 7, "secret": "hush"})

    result = await run(
        workload,
        sessions=async_sessionmaker(engine),
        ops=3,
        concurrency=1,
        explain_slowest=10,
        **options,  # type: ignore[arg-type]
    )
    assert result.failed == 0, result.errors
    assert RunResult.from_dict(result.to_dict()).to_dict() == result.to_dict()
    found = {plan.statement.split()[1]: plan for plan in result.plans or ()}
    assert len(found) == len(statements)
    return [found[statement.split()[1]] for statement in statements]


async def test_a_read_is_executed_again_and_its_values_are_hidden(shop: AsyncEngine) -> None:
    """The foreign key that has no index is named."""
    sent = "SELECT count(*) FROM song WHERE artist_id = :id AND code <> :secret"
    (plan,) = await plans_of(shop, sent)
    assert (plan.operation, plan.calls, plan.executed, plan.note) == ("all", 3, True, None)
    assert str(plan.source).startswith("tests/integration/load/test_plans.py:")
    assert [node.what for node in plan.nodes] == ["Aggregate", "Seq Scan on song"]
    scan = plan.nodes[1]
    assert (scan.depth, scan.rows, scan.loops) == (1, 100, 1)
    assert scan.condition is not None
    assert "artist_id = ?" in scan.condition
    assert "hush" not in str(plan)
    assert plan.findings == (
        "song.artist_id is a foreign key without an index, and all of song is read to filter by it",
    )
    assert (scan.blocks or 0) > 0


async def test_values_are_shown_where_they_are_asked_for(shop: AsyncEngine) -> None:
    sent = "SELECT code FROM song WHERE id = :id AND code <> :secret"
    (plan,) = await plans_of(shop, sent, explain_parameters=True)
    assert plan.parameters is not None
    assert "hush" in plan.parameters
    assert "hush" in str(plan.nodes[0].condition)
    assert plan.nodes[0].what == "Index Scan using song_pkey on song"
    assert plan.findings == ()


@pytest.mark.parametrize("autocommit", [False, True])
async def test_what_may_change_something_is_not_executed_again(
    shop: AsyncEngine, autocommit: bool
) -> None:
    engine = shop.execution_options(isolation_level="AUTOCOMMIT") if autocommit else shop
    plans = await plans_of(
        engine,
        "INSERT /*insert*/ INTO note VALUES (:id)",
        "UPDATE /*update*/ song SET code = :secret WHERE id = :id",
        "WITH /*with*/ gone AS (DELETE FROM note RETURNING id) SELECT * FROM gone",
        "SELECT /*lock*/ * FROM song WHERE id = :id FOR UPDATE",
        "SELECT /*function*/ count_up(:id)",
        "SELECT /*view*/ * FROM counting",
        "SELECT /*error*/ refused(id) FROM note",
        "SELECT /*lies*/ lies(:id)",
        "SELECT /*random*/ random() WHERE :secret <> ''",
    )
    writes = "not executed: it writes"
    volatile = "not executed: count_up() is volatile"
    assert [plan.note for plan in plans] == [
        writes,
        writes,
        writes,
        "not executed: it locks rows",
        volatile,
        volatile,
        None,
        "it could not be executed again: cannot execute nextval() in a read-only transaction",
        "not executed: random() is volatile",
    ]
    assert [plan.executed for plan in plans] == [plan.note is None for plan in plans]
    assert all(plan.nodes for plan in plans)
    assert plans[1].nodes[0].what == "Update on song"
    async with shop.connect() as connection:
        counted, notes = (
            await connection.execute(
                text("SELECT (SELECT last_value FROM counted), (SELECT count(*) FROM note)")
            )
        ).one()
    # Three times by each of three statements of the run, 50 rows of one: once more would be more.
    assert counted == 3 * 52
    assert notes == 0


async def test_one_that_cannot_be_explained_says_why(shop: AsyncEngine) -> None:
    """What it needs is gone, and what it does is no plan."""
    workload = Workload("shop")

    @workload.operation("all", rolls_back=True)
    async def send(session: AsyncSession) -> None:
        await session.execute(text("CREATE TEMPORARY TABLE mine (id int)"))
        await session.execute(text("SELECT * FROM mine"))
        await session.execute(text("SHOW search_path"))

    sessions = async_sessionmaker(shop)
    result = await run(workload, sessions=sessions, ops=1, explain_slowest=10)
    notes = {plan.statement: plan.note for plan in result.plans or ()}
    assert notes["SELECT * FROM mine"] is not None
    assert 'relation "mine" does not exist' in notes["SELECT * FROM mine"]
    assert "syntax error" in str(notes["SHOW search_path"])
    assert "no plan: " in render(result)


async def test_rows_that_nobody_expected_are_told(shop: AsyncEngine) -> None:
    (plan,) = await plans_of(shop, "SELECT id FROM song WHERE id * 0 = 0")
    assert plan.findings == (
        "Seq Scan on song: 5,000 rows, and 25 were expected: ANALYZE the table, or its statistics "
        "do not tell",
    )


async def test_a_plan_that_changed_is_told_with_the_baseline(shop: AsyncEngine) -> None:
    workload = Workload("shop")

    @workload.operation("read", rolls_back=True)
    async def read(session: AsyncSession) -> None:
        await session.execute(text("SELECT code FROM song WHERE artist_id = :id"), {"id": 7})

    async def measured() -> RunResult:
        sessions = async_sessionmaker(shop)
        return await run(workload, sessions=sessions, ops=2, explain_slowest=1)

    before = await measured()
    for render_it in (render, markdown.render, html.render):
        assert "song.artist_id is a foreign key without an index" in " ".join(
            render_it(before).replace("\\_", "_").split()
        )
    async with shop.begin() as connection:
        await connection.execute(text("CREATE INDEX song_artist ON song (artist_id)"))
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
    after = await measured()
    (told,) = (one for one in differences({"main.json": before}, after) if "plan" in one)
    assert told.startswith("the plan of SELECT code FROM song WHERE artist_id = ")
    assert "Bitmap Index Scan using song_artist" in told
    assert told.endswith("now, Seq Scan on song in the baseline")
    assert not [one for one in differences({"main.json": after}, after) if "plan" in one]


async def test_another_database_has_none_and_says_so() -> None:
    workload = Workload("shop")

    @workload.operation("read")
    async def read(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))

    engine = create_async_engine("sqlite+aiosqlite://")
    result = await run(workload, sessions=async_sessionmaker(engine), ops=1, explain_slowest=1)
    assert result.plans is None
    assert result.unseen == ("No plans: they are PostgreSQL's, and this is sqlite.",)
    await engine.dispose()
