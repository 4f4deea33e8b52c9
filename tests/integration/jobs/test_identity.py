"""Which run is the same work: another select, tenant or search path is another, on any version."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Select, String, TypeDecorator, and_, event, func, or_, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, with_loader_criteria

from async_loader.errors import ConfigurationError, JobError
from async_loader.jobs import BatchJob
from async_loader.jobs.identity import meaning_of
from async_loader.jobs.keyset import Keyset
from async_loader.testing import Interrupted, interrupt_after

Sessions = async_sessionmaker[AsyncSession]


class Owner:
    """A value without a text of its own."""

    def __init__(self, name: str) -> None:
        self.name = name


class OwnerType(TypeDecorator[Owner]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: Owner | None, _dialect: Any) -> str | None:
        return None if value is None else value.name


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int] = mapped_column(default=0)
    b: Mapped[int] = mapped_column(default=0)
    title: Mapped[str] = mapped_column(default="")
    owner: Mapped[Owner] = mapped_column(OwnerType, default=Owner("nobody"))


class Mark(Base):
    __tablename__ = "mark"

    n: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[int]


class Link(Base):
    __tablename__ = "link"

    id: Mapped[int] = mapped_column(primary_key=True)
    note_id: Mapped[int]


class Wider(DeclarativeBase):
    pass


class WiderLink(Wider):
    """The same table, of which a later version of the application knows more."""

    __tablename__ = "link"

    id: Mapped[int] = mapped_column(primary_key=True)
    note_id: Mapped[int]
    since: Mapped[int | None]


A, B = Note.a == 1, Note.b == 2


def meaning(query: Select[Any]) -> str:
    return meaning_of(Keyset(query).only_keys)


def note(*conditions: Any) -> Select[Any]:
    return select(Note).where(*conditions)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (note(A, or_(B, Note.id > 3)), note(or_(and_(A, B), Note.id > 3))),
        (note((Note.a + Note.b) * 2 > 2), note(Note.a + Note.b * 2 > 2)),
        (note(text("a=1 and (b=1 or id=1)")), note(text("a=1 and b=1 or id=1"))),
        (note(text("title = 'x y'")), note(text("title = 'xy'"))),
        (note(text('"a b" = 1')), note(text('"ab" = 1'))),
        (note(Note.owner == Owner("a")), note(Note.owner == Owner("b"))),
        (note(Note.id.in_(select(Link.id))), note(Note.id.in_(select(Link.note_id)))),
    ],
)
def test_another_select_is_told(one: Select[Any], other: Select[Any]) -> None:
    assert meaning(one) != meaning(other)
    assert meaning(one) == meaning(one.where())


def of_link(model: Any) -> Sequence[Select[Any]]:
    cte, subquery = select(model).cte("links"), select(model).subquery("links")
    return (
        select(Note).where(select(cte.c.note_id).where(cte.c.note_id == Note.id).exists()),
        select(Note).where(Note.id.in_(select(subquery.c.note_id))),
        select(Note).where(Note.id > select(func.max(model.note_id)).scalar_subquery()),
    )


@pytest.mark.parametrize(
    ("one", "other"), list(zip(of_link(Link), of_link(WiderLink), strict=True))
)
def test_an_added_column_is_the_same_select(one: Select[Any], other: Select[Any]) -> None:
    assert meaning(one) == meaning(other)


@pytest.mark.parametrize(
    ("query", "known"),
    [
        (select(Note), "af301356c33c8590 4f53cda18c2baa0c"),
        (note(A, or_(B, Note.id.in_([3, 1, 2]))), "a711d03ca91df637 4b05c5807f1b7b78"),
        (
            note(Note.title.collate("C") == "x", func.lower(Note.title).like("a%")),
            "bc1fbf8f65062585 95ae864a84f91332",
        ),
    ],
)
def test_the_version_of_sqlalchemy_changes_nothing(query: Select[Any], known: str) -> None:
    assert meaning(query) == known


# --- whose rows they are ----------------------------------------------------------------------


@pytest.fixture(params=["asyncpg", "psycopg"])
async def sessions(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Sessions]:
    """Sessions by each driver, on a database of 20 notes, every second one with a = 1."""
    url = make_url(database_url).set(drivername=f"postgresql+{request.param}")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        notes = "SELECT n, n % 2, 0, '', '' FROM generate_series(1, 20) n"
        await connection.execute(text(f"INSERT INTO note (id, a, b, title, owner) {notes}"))
    yield async_sessionmaker(engine)
    await engine.dispose()


def marking(query: Any = None) -> BatchJob:
    """Return a job that marks each note."""
    job = BatchJob("mark", select=select(Note) if query is None else query, chunk=2, partitions=1)

    @job.apply
    async def mark(session: AsyncSession, notes: Sequence[Note]) -> None:
        session.add_all(Mark(note=note.id) for note in notes)

    return job


async def interrupted(job: BatchJob, sessions: Sessions) -> None:
    """Run a job, and break it off behind its first chunk."""
    with pytest.raises(Interrupted), interrupt_after(1):
        await job.run(sessions)


async def test_conditions_that_a_session_adds_are_a_tenants_own(sessions: Sessions) -> None:
    """As SQLAlchemy's documentation has it, by do_orm_execute; a mistaken tenant is refused."""

    def of(tenant: int) -> Sessions:
        class Own(AsyncSession):
            sync_session_class = type("Own", (AsyncSession.sync_session_class,), {})

        @event.listens_for(Own.sync_session_class, "do_orm_execute")
        def add(state: Any) -> None:
            if state.is_select:
                state.statement = state.statement.options(
                    with_loader_criteria(Note, Note.a == tenant)
                )

        return async_sessionmaker(sessions.kw["bind"], class_=Own)

    await interrupted(marking(), of(1))
    with pytest.raises(JobError, match="another select, a value in its conditions differs"):
        await marking().run(of(0))
    await marking().run(of(1))
    async with sessions() as session:
        marked = await session.scalars(select(Mark.note))
        assert sorted(marked) == list(range(1, 21, 2))


async def test_row_level_security_wants_a_name_for_whose_rows_they_are(sessions: Sessions) -> None:
    role = f"one_{sessions.kw['bind'].url.database}"
    await marking(select(Note).where(Note.id > 99)).run(sessions)  # makes the tables
    async with sessions.begin() as session:
        for statement in (
            "ALTER TABLE note ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY own ON note USING (a = 1)",
            f'CREATE ROLE "{role}" LOGIN',
            f'GRANT ALL ON ALL TABLES IN SCHEMA public, async_loader_jobs TO "{role}"',
            f'GRANT ALL ON ALL SEQUENCES IN SCHEMA public, async_loader_jobs TO "{role}"',
            f'GRANT USAGE ON SCHEMA async_loader_jobs TO "{role}"',
        ):
            await session.execute(text(statement))
    engine = create_async_engine(sessions.kw["bind"].url.set(username=role))
    try:
        with pytest.raises(ConfigurationError, match=r"note has row-level security.*arguments"):
            await marking().run(async_sessionmaker(engine))
        done = await marking().run(async_sessionmaker(engine), arguments={"tenant": "1"})
        assert (done.state, done.rows_read) == ("done", 10)
        assert (await marking().run(sessions)).rows_read == 20, "who sees all needs no name"
    finally:
        await engine.dispose()
        async with sessions.begin() as session:
            await session.execute(text(f'DROP OWNED BY "{role}"'))
            await session.execute(text(f'DROP ROLE "{role}"'))


async def test_another_path_behind_the_same_schema_is_another_run(sessions: Sessions) -> None:
    """What apply writes may lie in the second schema of the path."""
    async with sessions.begin() as session:
        for statement in (
            "CREATE SCHEMA a",
            "CREATE SCHEMA b",
            "ALTER TABLE mark SET SCHEMA a",
            "CREATE TABLE b.mark (LIKE a.mark INCLUDING ALL)",
        ):
            await session.execute(text(statement))

    def of(tenant: str) -> Sessions:
        engine = create_async_engine(sessions.kw["bind"].url)

        @event.listens_for(engine.sync_engine, "connect")
        def set_path(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(f"SET search_path TO public, {tenant}")
            cursor.close()
            connection.commit()

        return async_sessionmaker(engine)

    a, b = of("a"), of("b")
    try:
        await interrupted(marking(), a)
        await marking().run(b)
        await marking().run(a)
        async with sessions() as session:
            for tenant in ("a", "b"):
                marked = await session.scalars(text(f"SELECT note FROM {tenant}.mark ORDER BY 1"))
                assert marked.all() == list(range(1, 21))
    finally:
        await a.kw["bind"].dispose()
        await b.kw["bind"].dispose()
