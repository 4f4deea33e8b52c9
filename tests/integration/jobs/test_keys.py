"""Keys as the database has them: what is no key is refused before a row is read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Date,
    Integer,
    MetaData,
    Numeric,
    Table,
    and_,
    event,
    func,
    insert,
    literal_column,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    contains_eager,
    immediateload,
    joinedload,
    mapped_column,
    registry,
    relationship,
    selectinload,
    subqueryload,
)
from sqlalchemy.orm import Session as _Session
from sqlalchemy.schema import ForeignKey

from async_loader.errors import ConfigurationError, JobError
from async_loader.jobs import BatchJob, list_runs, status

Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    pass


class Album(Base):
    __tablename__ = "album"

    id: Mapped[int] = mapped_column(primary_key=True)


class Song(Base):
    __tablename__ = "song"

    id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(unique=True)
    title: Mapped[str]
    n: Mapped[int] = mapped_column(default=0)
    album_id: Mapped[int] = mapped_column(ForeignKey("album.id"))
    album: Mapped[Album] = relationship()
    tags: Mapped[list[Tag]] = relationship()


class Tag(Base):
    __tablename__ = "tag"

    id: Mapped[int] = mapped_column(primary_key=True)
    song_id: Mapped[int] = mapped_column(ForeignKey("song.id"))


@pytest.fixture(params=["asyncpg", "psycopg"])
async def sessions(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Sessions]:
    """Sessions by each driver, on a database with 30 songs, of which ten have two tags."""
    url = make_url(database_url).set(drivername=f"postgresql+{request.param}")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Album), [{"id": n} for n in range(3)])
        songs = [
            {"id": n, "place": 100 - n, "title": f"t{n}", "album_id": n % 3} for n in range(30)
        ]
        await connection.execute(insert(Song), songs)
        await connection.execute(insert(Tag), [{"song_id": n % 10} for n in range(20)])
    yield async_sessionmaker(engine, expire_on_commit=False)
    await engine.dispose()


def engine_of(sessions: Sessions) -> AsyncEngine:
    bind = sessions.kw["bind"]
    assert isinstance(bind, AsyncEngine)
    return bind


async def execute(sessions: Sessions, *statements: str) -> None:
    async with sessions.begin() as session:
        for statement in statements:
            await session.execute(text(statement))


def seeing(query: Any, **options: Any) -> tuple[BatchJob, list[Any]]:
    """Return a job that keeps what it sees."""
    job = BatchJob(**{"name": "seeing", "select": query, "chunk": 4, **options})
    seen: list[Any] = []

    @job.apply
    async def see(_session: AsyncSession, rows: Sequence[Any]) -> None:
        seen.extend(rows)

    return job, seen


async def refused(sessions: Sessions, query: Any, hint: str, **options: Any) -> None:
    job, seen = seeing(query, **options)
    with pytest.raises(ConfigurationError, match=hint):
        await job.run(sessions)
    assert seen == []
    assert await list_runs(engine_of(sessions)) == []


OR = "place = 71 OR place BETWEEN 80 AND 90"


@pytest.mark.parametrize(
    "condition",
    [
        text(OR),
        text("place = 71 -- and some\nOR place BETWEEN 80 AND 90 -- others"),
        literal_column(OR, Boolean),
        and_(Song.id >= 0, text(OR)),
        (Song.place == 71).op("OR", precedence=-100)(Song.place.between(80, 90)),
    ],
)
async def test_a_condition_that_sqlalchemy_puts_no_parentheses_around(
    sessions: Sessions, condition: Any
) -> None:
    """The key's conditions are added to it: behind the last OR they would bound that part alone."""
    job, seen = seeing(select(Song).where(condition), partitions=3)
    done = await job.run(sessions)
    assert sorted(song.place for song in seen) == [71, *range(80, 91)]
    assert (done.total, done.rows_read) == (12, 12)


@pytest.mark.parametrize(
    "query",
    [
        select(Song).outerjoin(Song.album).with_for_update(),
        select(Song).options(joinedload(Song.album, innerjoin=False)).with_for_update(),
    ],
)
async def test_a_lock_that_cannot_be_had(sessions: Sessions, query: Any) -> None:
    """No row is to blame that an outer join's side cannot be locked."""
    await refused(sessions, query, "does not run: FOR UPDATE cannot be applied", skip_limit=99)


# --- what a select loads with its rows -------------------------------------------------------


@pytest.mark.parametrize("load", [immediateload, joinedload, selectinload, subqueryload])
@pytest.mark.parametrize("until_empty", [False, True])
async def test_collections_come_with_their_own_chunk(
    sessions: Sessions, load: Any, until_empty: bool
) -> None:
    found: dict[int, list[int]] = {}
    query = select(Song).where(Song.n == 0).options(load(Song.tags))
    job = BatchJob("collecting", select=query, chunk=4, until_empty=until_empty)

    @job.apply
    async def apply(_session: AsyncSession, songs: Sequence[Song]) -> None:
        for song in songs:
            found[song.id] = [tag.song_id for tag in song.tags]
            song.n = 1

    assert (await job.run(sessions)).state == "done"
    assert found == {n: [n, n] if n < 10 else [] for n in range(30)}


# --- joins ---------------------------------------------------------------------------------

PER_SONG = select(Tag.song_id, func.count().label("tags")).group_by(Tag.song_id).subquery()
OTHER = aliased(Song)


@pytest.mark.parametrize(
    ("query", "key", "rows"),
    [
        (select(Song).join(Song.album), (), 30),
        (select(Song).outerjoin(Song.album), (), 30),
        (select(Song).join(Song.tags), (Song.id, Tag.id), 20),
        (select(Song, Tag).join(Song.tags), (Tag.id,), 20),
        (select(Song).join(PER_SONG, PER_SONG.c.song_id == Song.id), (), 10),
        (select(Song).where(Song.tags.any()), (), 10),
        (select(Song).join(OTHER, OTHER.place == Song.place), (), 30),
        (select(Song).join(Tag, (Tag.song_id == Song.id) & (Tag.id == 1)), (), 1),
        (select(Song).options(joinedload(Song.tags)), (), 30),
        (select(OTHER), (), 30),
    ],
)
async def test_joins_that_repeat_no_key(
    sessions: Sessions, query: Any, key: Any, rows: int
) -> None:
    job, seen = seeing(query, key=key)
    done = await job.run(sessions, workers=2)
    assert (done.state, done.total, done.rows_read, len(seen)) == ("done", rows, rows, rows)


@pytest.mark.parametrize(
    ("query", "key", "hint"),
    [
        (select(Song).join(Song.tags), (), r"add its key, key=\(Song.id, Tag.id\)"),
        (select(Song).where(Tag.song_id == Song.id), (), "add its key"),
        (select(Song).outerjoin(Song.tags), (), "say it with EXISTS"),
        (select(Song).outerjoin(Song.tags), (Song.id, Tag.id), "null behind an outer join"),
        (select(Song).join(Song.tags).options(contains_eager(Song.tags)), (Song.id, Tag.id),
         "load the collection by selectinload"),
        (select(Song).join(func.generate_series(1, 2).table_valued("v"), true()), (),
         "nothing is known to be unique"),
        (select(Song), (Song.n,), r"\(n\) is not unique in song"),
        (select(aliased(Song, select(Song).subquery())), (), "no column of a table"),
    ],
)  # fmt: skip
async def test_joins_that_may_repeat_a_key_are_refused(
    sessions: Sessions, query: Any, key: Any, hint: str
) -> None:
    await refused(sessions, query, hint, key=key)


async def test_a_poison_row_of_a_join_takes_no_other_row_with_it(sessions: Sessions) -> None:
    job = BatchJob(
        "poison", select=select(Song).join(Song.tags), key=(Song.id, Tag.id), chunk=10, skip_limit=9
    )

    @job.apply
    async def apply(session: AsyncSession, songs: Sequence[Song]) -> None:
        for song in songs:
            if song.id == 3:
                raise ValueError("bad")
            await session.execute(update(Song).where(Song.id == song.id).values(n=Song.n + 1))

    done = await job.run(sessions)
    assert (done.rows_read, done.rows_skipped) == (18, 2)
    async with sessions() as session:
        counted = {row.id: row.n for row in await session.execute(select(Song.id, Song.n))}
    assert counted == {n: 2 * (n < 10 and n != 3) for n in range(30)}


# --- uniqueness, by the database -----------------------------------------------------------

LOST = {
    "partial": ("CREATE UNIQUE INDEX i ON song (place) WHERE place > 0", "i is partial"),
    "expressions": ("CREATE UNIQUE INDEX i ON song ((place + 1))", "i is one of expressions"),
    "deferrable": ("ALTER TABLE song ADD CONSTRAINT i UNIQUE (place) DEFERRABLE", "deferrable"),
    "nothing": ("SELECT 1", "no unique index"),
    "not valid": (
        "CREATE UNIQUE INDEX i ON song (place); UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = 'i'::regclass", "i is not valid",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("statements", "hint"), LOST.values(), ids=LOST.keys())
async def test_a_model_is_not_believed(sessions: Sessions, statements: str, hint: str) -> None:
    await execute(
        sessions, "ALTER TABLE song DROP CONSTRAINT song_place_key", *statements.split(";")
    )
    await refused(sessions, select(Song), hint, key=(Song.place,))


async def test_nulls_are_asked_of_the_database(sessions: Sessions) -> None:
    await execute(sessions, "ALTER TABLE song ALTER COLUMN place DROP NOT NULL")
    await refused(sessions, select(Song), "column place may be null", key=(Song.place,))


async def test_a_not_null_that_was_not_validated_is_none(sessions: Sessions) -> None:
    await execute(
        sessions,
        "ALTER TABLE song ALTER COLUMN place DROP NOT NULL",
        "UPDATE song SET place = NULL WHERE id = 7",
        "ALTER TABLE song ADD CONSTRAINT there NOT NULL place NOT VALID",
    )
    await refused(sessions, select(Song), "column place may be null", key=(Song.place,))


async def test_a_table_with_children_is_not_unique(sessions: Sessions) -> None:
    await execute(
        sessions,
        "CREATE TABLE song_child () INHERITS (song)",
        "INSERT INTO song_child (id, place, title, n, album_id) VALUES (1, 1, 'x', 0, 0)",
    )
    await refused(sessions, select(Song), "tables that inherit from it")


async def test_a_view_has_no_key(sessions: Sessions) -> None:
    await execute(
        sessions, "ALTER TABLE song RENAME TO kept", "CREATE VIEW song AS SELECT * FROM kept"
    )
    await refused(sessions, select(Song), "song is a view")


async def test_a_class_is_told_apart_by_what_is_unique(sessions: Sessions) -> None:
    """A mapper's primary key that is none makes one object of two rows."""
    table = Table("loose", MetaData(), *map(_copied, Song.__table__.columns))
    loose = type("Loose", (), {})
    registry().map_imperatively(
        loose, table, primary_key=[table.c.n], properties={"key": table.c.id}
    )
    await execute(sessions, "CREATE TABLE loose (LIKE song INCLUDING ALL)")
    await refused(sessions, select(loose), "Loose is not told apart", key=(table.c.id,))


def _copied(column: Any) -> Any:
    return column._copy() if not column.foreign_keys else type(column)(column.name, column.type)


async def test_a_collation_that_takes_more_to_be_equal(sessions: Sessions) -> None:
    """Unique under another collation is not unique under the one that orders."""
    try:
        await execute(
            sessions,
            "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2',"
            " deterministic = false)",
        )
    except DBAPIError:
        pytest.skip("this server has no ICU, and no other collation takes more to be equal")
    await execute(
        sessions,
        "ALTER TABLE song ALTER COLUMN title TYPE text COLLATE loose",
        'CREATE UNIQUE INDEX i ON song (title COLLATE "C")',
        "UPDATE song SET title = 'T1' WHERE id = 0",
    )
    await refused(sessions, select(Song), "another collation than its column", key=(Song.title,))


async def test_operators_that_are_in_no_search_path(sessions: Sessions) -> None:
    """Else `>` would be that of text, and the order that of citext."""
    await execute(
        sessions,
        "CREATE SCHEMA elsewhere",
        "CREATE EXTENSION citext SCHEMA elsewhere",
        "ALTER TABLE song ALTER COLUMN title TYPE elsewhere.citext",
        "UPDATE song SET title = CASE WHEN id % 2 = 0 THEN 'T' ELSE 't' END || id",
        "CREATE UNIQUE INDEX i ON song (title)",
    )
    job, seen = seeing(select(Song), key=(Song.title,))
    done = await job.run(sessions)
    assert (done.state, sorted(song.id for song in seen)) == ("done", list(range(30)))


# --- selects -------------------------------------------------------------------------------

OF_ALL = select(Song.id).order_by(Song.place).limit(5)
NUMBERED = select(Song.id, func.row_number().over(order_by=Song.place).label("r")).subquery()


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        (select(Song).where(func.random() < 0.5), r"calls random\(\), which is volatile"),
        (select(Song).where(text("random() < 0.5")), r"random\(\)"),
        (select(Song).where(Song.id.in_(select(Tag.song_id).where(func.random() < 1))), "random"),
        (select(Song.id, func.unnest(text("ARRAY[1, 2]"))), "yields a row several times"),
        (select(Song).where(text("nope = 1")), 'does not run: column "nope" does not exist'),
    ],
)
async def test_selects_that_the_database_knows_better(
    sessions: Sessions, query: Any, hint: str
) -> None:
    await refused(sessions, query, hint, key=(Song.id,))


async def test_a_function_of_the_application_that_may_change(sessions: Sessions) -> None:
    await execute(
        sessions,
        "CREATE FUNCTION good(int) RETURNS bool LANGUAGE sql AS 'SELECT $1 > 3'",
        "CREATE SCHEMA s CREATE TABLE x ()",
    )
    query = select(Song).where(func.public.good(Song.id))
    await refused(
        sessions, query, r"good\(\), which is volatile.*declare a function of yours STABLE"
    )
    await execute(sessions, "ALTER FUNCTION good STABLE")
    job, seen = seeing(query)
    assert (await job.run(sessions)).total == len(seen) == 26


TWICE = select(Tag.song_id, func.generate_series(1, 2).label("n")).group_by(Tag.song_id).subquery()


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        (select(Song).where(text('"random"() < 0.5')), r"calls random\(\), which is volatile"),
        (select(Song).where(text("random /* sic */ () < 0.5")), r"calls random\(\)"),
        (select(Song).where(text("place ~~~~~ 1")), r"calls by_chance\(\), which is volatile"),
        (select(Song).where(text("id IN (SELECT id FROM some_songs)")), r"calls random\(\)"),
        (select(Song).where(text("id IN (SELECT id FROM first_songs)")), "LIMIT in the view limit"),
        (select(Song).where(text("id IN (SELECT id FROM free_songs)")), "SKIP LOCKED in the view"),
        (select(Song.id, text("generate_series(1, 2) AS n")), "several times"),
        (select(Song.id, literal_column("generate_series(1, 2)")), "several times"),
        (select(Song.id).join(TWICE, TWICE.c.song_id == Song.id), "several times"),
    ],
)
async def test_what_a_select_comes_to_in_the_database(
    sessions: Sessions, query: Any, hint: str
) -> None:
    """Names in quotes, operators, views and texts: what is written does not show it."""
    await execute(
        sessions,
        "CREATE FUNCTION by_chance(int, int) RETURNS bool LANGUAGE sql"
        " AS 'SELECT $1 > $2 AND random() < 0.5'",
        "CREATE OPERATOR ~~~~~ (LEFTARG = int, RIGHTARG = int, FUNCTION = by_chance)",
        "CREATE VIEW some_songs AS SELECT id FROM song WHERE random() < 0.5",
        "CREATE VIEW limited AS SELECT id FROM song ORDER BY place LIMIT 5",
        "CREATE VIEW first_songs AS SELECT id FROM limited",
        "CREATE VIEW free_songs AS SELECT id FROM song FOR UPDATE SKIP LOCKED",
    )
    await refused(sessions, query, hint, key=(Song.id,))


@pytest.mark.parametrize("may", ["CREATE in the jobs' own schema", "neither"])
async def test_what_a_select_comes_to_without_the_privilege_of_temporary_tables(
    sessions: Sessions, may: str
) -> None:
    """Else nobody would see the limit within the view; a role that may look nowhere is told so."""
    database, low = engine_of(sessions).url.database, f"low_{engine_of(sessions).url.database}"
    job, _ = seeing(select(Song), name="first")
    await job.run(sessions)  # makes the tables
    await execute(
        sessions,
        "TRUNCATE async_loader_jobs.run CASCADE",
        "CREATE VIEW limited AS SELECT id FROM song ORDER BY place LIMIT 5",
        f'CREATE ROLE "{low}" LOGIN',
        f'REVOKE TEMPORARY ON DATABASE "{database}" FROM PUBLIC',
        f'GRANT USAGE ON SCHEMA async_loader_jobs TO "{low}"',
        f'GRANT ALL ON ALL TABLES IN SCHEMA public, async_loader_jobs TO "{low}"',
        f'GRANT ALL ON ALL SEQUENCES IN SCHEMA async_loader_jobs TO "{low}"',
    )
    if may != "neither":
        await execute(sessions, f'GRANT CREATE ON SCHEMA async_loader_jobs TO "{low}"')
    query = select(Song).where(text("id IN (SELECT id FROM limited)"))
    engine = create_async_engine(engine_of(sessions).url.set(username=low))
    try:
        lowly = async_sessionmaker(engine)
        if may == "neither":
            await refused(lowly, select(Song), rf'GRANT TEMPORARY ON DATABASE \S+ TO "?{low}')
        else:
            await refused(lowly, query, "LIMIT in the view limited", key=(Song.id,))
            job, seen = seeing(select(Song))
            assert (await job.run(lowly)).total == len(seen) == 30
    finally:
        await engine.dispose()
        await execute(sessions, f'DROP OWNED BY "{low}"', f'DROP ROLE "{low}"')


async def test_a_view_of_the_whole_is_read(sessions: Sessions) -> None:
    await execute(sessions, "CREATE VIEW low AS SELECT id FROM song WHERE id <= 12")
    query = select(Song).where(text("id IN (SELECT id FROM low)"), Song.id > 2)
    job, seen = seeing(query)
    assert (await job.run(sessions)).total == len(seen) == 10


# --- keys that Python has in another way ---------------------------------------------------


class Span(Base):
    __tablename__ = "span"

    id: Mapped[timedelta] = mapped_column(primary_key=True)
    n: Mapped[int] = mapped_column(default=0)


async def test_two_rows_that_are_one_object(sessions: Sessions) -> None:
    """A year of interval is 360 days to PostgreSQL, and 365 to Python."""
    await execute(sessions, "INSERT INTO span VALUES ('1 year', 0), ('365 days', 0), ('1 day', 0)")
    job, seen = seeing(select(Span), chunk=1, partitions=1)
    with pytest.raises(ConfigurationError, match=r"\(id interval\) is not in Python what it is"):
        await job.run(sessions)
    assert len(seen) == 1
    job, seen = seeing(select(Span.n), key=(Span.id,), name="columns", chunk=1)
    assert (await job.run(sessions)).total == len(seen) == 3


@pytest.mark.parametrize(
    ("mapped", "column", "values"),
    [
        (Integer(), "numeric", ("1", "1.5", "2")),
        (BigInteger(), "numeric(20, 4)", ("1", "1.5", "2")),
        (Numeric(10, 2), "numeric", ("1.01", "1.014", "1.02")),
        (Date(), "timestamp", ("2026-02-03 04:05", "2026-02-03 05:06", "2026-02-04 00:00")),
        (postgresql.INTERVAL(precision=0), "interval", ("1 second", "1.2 seconds", "2 seconds")),
    ],
)
async def test_a_key_that_is_mapped_to_less_than_its_column_has(
    sessions: Sessions, mapped: Any, column: str, values: Sequence[str]
) -> None:
    """A flush would send what is left of it, and find another row or none, in silence."""

    class Own(DeclarativeBase):
        pass

    class Odd(Own):
        __tablename__ = "odd"
        id: Mapped[Any] = mapped_column(mapped, primary_key=True)
        n: Mapped[int]

    await execute(
        sessions,
        f"CREATE TABLE odd (id {column} PRIMARY KEY, n int DEFAULT 0)",
        *(f"INSERT INTO odd (id) VALUES ('{value}')" for value in values),
    )
    job = BatchJob("odd", select=select(Odd), chunk=5, partitions=1)

    @job.apply
    async def count(_session: AsyncSession, rows: Sequence[Odd]) -> None:
        for row in rows:
            row.n += 1

    # psycopg sends all digits of a number.
    whole = isinstance(mapped, Numeric) and engine_of(sessions).driver == "psycopg"
    with nullcontext() if whole else pytest.raises(ConfigurationError, match="is not in Python"):
        await job.run(sessions)
    async with sessions() as session:
        counts = await session.scalars(text("SELECT n FROM odd"))
        assert set(counts) == {int(whole)}


class Ratio(Base):
    __tablename__ = "ratio"

    id: Mapped[float] = mapped_column(
        Numeric(30, 20, asdecimal=False), primary_key=True, autoincrement=False
    )
    n: Mapped[int] = mapped_column(default=0)


async def test_an_object_that_is_not_its_rows_own(sessions: Sessions) -> None:
    await execute(
        sessions, "INSERT INTO ratio SELECT 1.0 / (3 + g), 0 FROM generate_series(1, 20) g"
    )
    job, seen = seeing(select(Ratio))
    with pytest.raises(ConfigurationError, match="numeric in the database and a float"):
        await job.run(sessions)
    assert seen == []
    job, seen = seeing(select(Ratio.id, Ratio.n), key=(Ratio.id,), name="columns")
    assert (await job.run(sessions)).total == len(seen) == 20


# --- an apply that moves the key -----------------------------------------------------------


async def moving(sessions: Sessions, statement: Any, hint: str, *, caught: bool = False) -> None:
    """Run a job whose third chunk executes a statement; expect all of that to be rolled back."""
    job = BatchJob("moving", select=select(Song), key=(Song.place,), chunk=5, partitions=1)

    @job.apply
    async def apply(session: AsyncSession, songs: Sequence[Song]) -> None:
        for song in songs:
            song.n += 1
        await session.flush()
        if any(song.id == 12 for song in songs):
            song = next(song for song in songs if song.id == 12)
            if statement is None:
                song.place += 1_000
            else:
                try:
                    await session.execute(statement)
                except ConfigurationError:
                    if not caught:
                        raise

    with pytest.raises(ConfigurationError, match=hint):
        await job.run(sessions)
    ended = await status(engine_of(sessions), "moving")
    assert ended.state == "failed"
    assert ended.message is not None
    assert "rolled back behind place=85 up to place=90" in ended.message
    async with sessions() as session:
        applied = select(func.count()).where(Song.n == 1)
        assert await session.scalar(applied) == 15
        assert await session.scalar(select(Song.place).where(Song.id == 12)) == 88


BEYOND = update(Song).where(Song.id == 12).values(place=Song.place + 1_000)


@pytest.mark.parametrize(
    "statement",
    [
        None,
        BEYOND,
        text('UPDATE public.song s SET n = 3, "place" = place + 1000 WHERE id = 12'),
        text("WITH x AS (UPDATE song SET (n, place) = (3, place + 1000) RETURNING id) SELECT 1"),
        text("MERGE INTO song USING (SELECT 12 AS x) o ON o.x = id"
             " WHEN MATCHED THEN UPDATE SET place = place + 1000"),
        text("INSERT INTO song VALUES (12, 0, '', 0, 0)"
             " ON CONFLICT (id) DO UPDATE SET place = 500"),
    ],
    ids=["attribute", "update", "text", "within", "merge", "on conflict"],
)  # fmt: skip
async def test_an_apply_that_sets_the_key(sessions: Sessions, statement: Any) -> None:
    await moving(sessions, statement, "apply sets place, and the job pages by")


async def test_an_apply_that_sets_the_key_and_says_nothing(sessions: Sessions) -> None:
    await moving(sessions, BEYOND, "apply sets place, and the job pages by", caught=True)


async def test_a_function_that_moves_the_key(sessions: Sessions) -> None:
    await execute(
        sessions,
        "CREATE FUNCTION move() RETURNS void LANGUAGE sql AS"
        " 'UPDATE song SET place = place + 1000 WHERE id = 12'",
    )
    hint = r"apply moves rows to other keys \(by the function move\)"
    await moving(sessions, select(func.move()), hint)


MOVE = "UPDATE song SET place = place + 1000 WHERE id = 12"
MOVING = (
    f"CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {MOVE}; RETURN NEW; END'"
)
MOVERS = {
    "a view": (("CREATE VIEW shelf AS SELECT id, place AS at FROM song",),
               "UPDATE shelf SET at = at + 1000 WHERE id = 12", "the view shelf"),
    "a function within": ((f"CREATE FUNCTION move() RETURNS void LANGUAGE sql AS '{MOVE}'",),
                          "DELETE FROM tag WHERE id < 0 OR (id = 1 AND move() IS NULL)",
                          "the function move"),
    "a function of many": ((f"CREATE FUNCTION move() RETURNS void LANGUAGE sql AS '{MOVE}'",),
                           "SELECT move() FROM generate_series(1, 1)", "the function move"),
    "another table's trigger": ((
        MOVING,
        "CREATE TRIGGER moving AFTER INSERT ON album FOR EACH ROW EXECUTE FUNCTION move()",
        ), "INSERT INTO album VALUES (100)", "a trigger of album"),
    "a trigger that waits": ((
        MOVING,
        "CREATE CONSTRAINT TRIGGER moving AFTER INSERT ON album DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION move()",
        ), "INSERT INTO album VALUES (100)", "a trigger of album"),
}  # fmt: skip


@pytest.mark.parametrize(("made", "statement", "by"), MOVERS.values(), ids=MOVERS.keys())
async def test_what_moves_a_key_out_of_sight(
    sessions: Sessions, made: Sequence[str], statement: str, by: str
) -> None:
    """The statement names neither the table nor its column."""
    await execute(sessions, *made)
    await moving(sessions, text(statement), rf"apply moves rows to other keys \(by {by}\)")


TOUCHED = (
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE TRIGGER touched BEFORE UPDATE ON song FOR EACH ROW EXECUTE FUNCTION touch()",
)


async def another_connection(sessions: Sessions) -> asyncpg.Connection:
    url = engine_of(sessions).url.set(drivername="postgresql")
    return await asyncpg.connect(url.render_as_string(hide_password=False))


async def test_rows_that_others_write_meanwhile_are_nobodys_fault(sessions: Sessions) -> None:
    """A table with a trigger, into and out of each chunk of which others put and take rows."""
    await execute(sessions, *TOUCHED, "ALTER TABLE tag DROP CONSTRAINT tag_song_id_fkey")
    another = await another_connection(sessions)
    job = BatchJob("met", select=select(Song), key=(Song.place,), chunk=10, partitions=1)
    chunks = list[int]()

    @job.apply
    async def apply(session: AsyncSession, songs: Sequence[Song]) -> None:
        chunks.append(len(songs))
        songs[0].n += 1
        await session.flush()
        first, last = songs[0].place, songs[-1].place
        # One row goes, one comes, one goes elsewhere, and one is in place, and ours.
        await another.execute("DELETE FROM song WHERE place = $1", first + 3)
        await another.execute("UPDATE song SET place = -place WHERE place = $1", first + 5)
        await another.execute(
            "INSERT INTO song VALUES ($1, $2, '', 0, 0), ($3, $4, '', 0, 0)",
            first + 1_000, first + 3, first + 2_000, first + 5,
        )  # fmt: skip
        await another.execute("DELETE FROM song WHERE place = $1", last - 1)
        async with session.begin_nested():
            songs[1].n += 1

    done = await job.run(sessions)
    await another.close()
    assert (done.state, done.rows_read, done.retried, chunks) == ("done", 30, 0, [10, 10, 10])


MASKS = {
    "a delete": "DELETE FROM song WHERE id > 25",
    "a savepoint": "SELECT 1",
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
async def test_a_move_is_seen_beside_other_changes(sessions: Sessions, mask: str) -> None:
    """As many rows may be deleted as are moved, and a savepoint may be rolled back before."""
    await execute(
        sessions,
        "ALTER TABLE tag DROP CONSTRAINT tag_song_id_fkey",
        f"CREATE FUNCTION move() RETURNS void LANGUAGE sql AS '{MOVE}'",
    )
    job = BatchJob("masked", select=select(Song), key=(Song.place,), chunk=5, partitions=1)

    @job.apply
    async def apply(session: AsyncSession, songs: Sequence[Song]) -> None:
        if any(song.id == 12 for song in songs):
            within = await session.begin_nested()
            await session.execute(select(func.move()))
            await within.rollback()
            await session.execute(text(mask))
            await session.execute(select(func.move()))

    with pytest.raises(ConfigurationError, match="apply moves rows to other keys"):
        await job.run(sessions)


async def test_a_move_that_was_rolled_back_is_none(sessions: Sessions) -> None:
    await execute(sessions, f"CREATE FUNCTION move() RETURNS void LANGUAGE sql AS '{MOVE}'")
    job = BatchJob("undone", select=select(Song), key=(Song.place,), chunk=5, partitions=1)

    @job.apply
    async def apply(session: AsyncSession, songs: Sequence[Song]) -> None:
        within = await session.begin_nested()
        await session.execute(select(func.move()))
        await within.rollback()

    assert (await job.run(sessions)).state == "done"


async def test_a_column_that_the_database_generates_moves(sessions: Sessions) -> None:
    """The model does not say that it is generated."""
    await execute(
        sessions,
        "ALTER TABLE song DROP COLUMN place",
        "ALTER TABLE song ADD place int NOT NULL GENERATED ALWAYS AS (100 - id + 1000 * n) STORED",
        "ALTER TABLE song ADD UNIQUE (place)",
    )
    job = BatchJob("generated", select=select(Song), key=(Song.place,), chunk=5, partitions=1)

    @job.apply
    async def apply(_session: AsyncSession, songs: Sequence[Song]) -> None:
        songs[0].n += 1

    with pytest.raises(ConfigurationError, match=r"other keys \(by a generated column\)"):
        await job.run(sessions)


async def test_a_trigger_of_a_partition_moves(sessions: Sessions) -> None:
    await execute(
        sessions,
        "DROP TABLE tag",
        "ALTER TABLE song RENAME TO once",
        "CREATE TABLE song (LIKE once, UNIQUE (place, id)) PARTITION BY RANGE (id)",
        "CREATE TABLE song_1 PARTITION OF song FOR VALUES FROM (0) TO (100)",
        "INSERT INTO song SELECT * FROM once",
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.place = NEW.place + 1000; RETURN NEW; END'",
        "CREATE TRIGGER touched BEFORE UPDATE ON song_1 FOR EACH ROW EXECUTE FUNCTION touch()",
    )
    columns = select(Song.id, Song.place)
    job = BatchJob("parts", select=columns, key=(Song.place, Song.id), chunk=5, partitions=1)

    @job.apply
    async def apply(session: AsyncSession, rows: Sequence[Any]) -> None:
        await session.execute(update(Song).where(Song.id == rows[0].id).values(n=1))

    with pytest.raises(ConfigurationError, match=r"other keys \(by a trigger\)"):
        await job.run(sessions)


async def test_a_trigger_that_moves_the_key(sessions: Sessions) -> None:
    await execute(
        sessions,
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.place = NEW.place + 1000; RETURN NEW; END'",
        "CREATE TRIGGER touched BEFORE UPDATE ON song FOR EACH ROW WHEN (NEW.id = 12)"
        " EXECUTE FUNCTION touch()",
    )
    await moving(sessions, select(1), r"apply moves rows to other keys \(by a trigger\)")


async def test_an_apply_may_delete_insert_and_call(sessions: Sessions) -> None:
    await execute(
        sessions,
        "CREATE FUNCTION forget(int) RETURNS void LANGUAGE sql AS 'DELETE FROM song WHERE id = $1'",
        "ALTER TABLE tag DROP CONSTRAINT tag_song_id_fkey",
    )
    job = BatchJob("deleting", select=select(Song.id), key=(Song.id,), chunk=5, partitions=1)

    @job.apply
    async def apply(session: AsyncSession, rows: Sequence[Any]) -> None:
        for row in rows:
            await session.execute(select(func.forget(row.id)))
        session.add(Song(id=1_000 + rows[0].id, place=-rows[0].id, title="", album_id=0))

    done = await job.run(sessions)
    assert (done.state, done.rows_read, done.message) == ("done", 30, None)


# --- which run is the same -----------------------------------------------------------------


async def interrupted(sessions: Sessions, query: Any, **options: Any) -> None:
    job = BatchJob("same", **{"select": query, "chunk": 5, "partitions": 1, **options})

    @job.apply
    async def apply(_session: AsyncSession, rows: Sequence[Any]) -> None:
        if rows[0].id >= 10:
            raise RuntimeError("stopped")

    with pytest.raises(JobError, match="stopped"):
        await job.run(sessions)


async def test_another_select_is_refused_and_can_be_gone_on_with(sessions: Sessions) -> None:
    await interrupted(sessions, select(Song).where(Song.n == 0))
    for query, what in (
        (select(Song).where(Song.n == 1), "a value in its conditions differs"),
        (select(Song), "its conditions or joins differ"),
        (select(Song).join(Song.album).where(Song.n == 0), "its conditions or joins differ"),
    ):
        job, _ = seeing(query, name="same", partitions=1)
        with pytest.raises(JobError, match=rf"run 1 was begun with another select, {what}.*cancel"):
            await job.run(sessions)
    job, seen = seeing(select(Song), name="same", partitions=1)
    done = await job.run(sessions, resume_changed=True)
    assert (done.run, done.state, sorted(song.id for song in seen)) == (1, "done", [*range(10, 30)])


async def test_what_changes_nothing_of_a_select(sessions: Sessions) -> None:
    """More columns, another loader, a set in another order."""
    numbers = {f"t{n}" for n in range(25)}
    await interrupted(sessions, select(Song).where(Song.title.in_(numbers)))
    again = select(Song.id, Song.n).where(Song.title.in_(sorted(numbers)[::-1]))
    job, seen = seeing(again, key=(Song.id,), name="same", partitions=1)
    done = await job.run(sessions)
    assert (done.run, len(seen)) == (1, 15)


async def test_a_search_path_by_a_sessions_events_is_a_tenants_own(sessions: Sessions) -> None:
    """Keys are read as rows are, by the sessions that the application made."""
    await execute(
        sessions,
        "CREATE SCHEMA tenant",
        "CREATE TABLE tenant.song (LIKE song INCLUDING ALL)",
        "INSERT INTO tenant.song SELECT id + 100, place, title, n, album_id FROM song LIMIT 7",
    )
    theirs = async_sessionmaker(engine_of(sessions), sync_session_class=type("S", (_Session,), {}))
    event.listen(
        theirs.kw["sync_session_class"], "after_begin",
        lambda _session, _transaction, connection: connection.execute(
            text("SET LOCAL search_path = tenant, public")
        ),
    )  # fmt: skip
    await interrupted(sessions, select(Song))
    job, seen = seeing(select(Song), name="same", partitions=1)
    done = await job.run(theirs)
    assert (done.run, done.total, len(seen)) == (2, 7, 7)
    job, seen = seeing(select(Song), name="same", partitions=1)
    assert ((await job.run(sessions)).run, len(seen)) == (1, 20)


# --- done, and why not all -----------------------------------------------------------------


async def test_done_says_why_rows_that_were_counted_were_not_read(sessions: Sessions) -> None:
    job = BatchJob("fewer", select=select(Song), chunk=5, partitions=1)

    @job.apply
    async def apply(session: AsyncSession, songs: Sequence[Song]) -> None:
        if songs[0].id == 0:
            await session.execute(text("DELETE FROM song WHERE id IN (20, 21)"))

    done = await job.run(sessions)
    assert (done.state, done.total, done.rows_read) == ("done", 30, 28)
    assert done.message == (
        "28 rows were read or skipped and 30 were counted at the start: the others had gone or "
        "matched no more when their range was read"
    )
