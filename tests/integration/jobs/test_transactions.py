"""Whatever an apply, an engine or a session does to a chunk's transaction: once, or refused."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Select, create_engine, event, func, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from async_loader.errors import AsyncLoaderError, ConfigurationError, JobError
from async_loader.jobs import BatchJob, list_runs, status

Sessions = async_sessionmaker[AsyncSession]
Act = Callable[[AsyncSession], Awaitable[Any]]
ROWS, CHUNK = 40, 10


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "placed_order"
    id: Mapped[int] = mapped_column(primary_key=True)


class Invoice(Base):
    __tablename__ = "invoice"
    number: Mapped[int] = mapped_column(primary_key=True)
    order: Mapped[int]


class Only(Base):
    """A row that there is: to insert it once more is an error."""

    __tablename__ = "only_one"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture(params=["asyncpg", "psycopg"])
def url(request: pytest.FixtureRequest, database_url: str) -> str:
    driver = f"postgresql+{request.param}"
    return make_url(database_url).set(drivername=driver).render_as_string(hide_password=False)


@pytest.fixture(autouse=True)
async def orders(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Order), [{"id": n} for n in range(1, ROWS + 1)])
        await connection.execute(insert(Only).values(id=1))


@pytest.fixture
async def made(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine of either driver."""
    engine = create_async_engine(url)
    yield engine
    await engine.dispose()


def invoicing(act: Act | None = None, **options: Any) -> BatchJob:
    """Return a job that writes an invoice for each order, and does something half-way in one."""
    job = BatchJob("invoicing", select=select(Order), chunk=CHUNK, partitions=1, **options)

    @job.apply
    async def apply(session: AsyncSession, found: Sequence[Order]) -> None:
        for n, order in enumerate(found):
            if act is not None and order.id == 25:
                await session.flush()
                await act(session)
            if n % 2:
                session.add(Invoice(order=order.id))
            else:
                await session.execute(insert(Invoice).values(order=order.id))

    return job


async def invoices(engine: AsyncEngine) -> list[int]:
    """Return the orders that have an invoice, as often as they have one."""
    async with engine.connect() as connection:
        return list(await connection.scalars(select(Invoice.order).order_by(Invoice.order)))


async def driver_of(session: AsyncSession) -> Any:
    connection = await session.connection()
    return (await connection.get_raw_connection()).driver_connection


# --- what ends the transaction underneath -----------------------------------------------------


async def commits(session: AsyncSession) -> None:
    await session.commit()


async def commits_the_connection(session: AsyncSession) -> None:
    await (await session.connection()).commit()


async def rolls_the_connection_back(session: AsyncSession) -> None:
    await (await session.connection()).rollback()


async def commits_the_transaction(session: AsyncSession) -> None:
    transaction = (await session.connection()).get_transaction()
    assert transaction is not None
    await transaction.commit()


async def rolls_back_and_commits_the_next(session: AsyncSession) -> None:
    await session.rollback()
    connection = await session.connection()
    await connection.execute(insert(Invoice).values(order=-1))
    await connection.commit()


async def closes(session: AsyncSession) -> None:
    await session.close()


async def another_session_on_the_connection(session: AsyncSession) -> None:
    connection = await session.connection()
    other = AsyncSession(bind=connection, join_transaction_mode="control_fully")
    await other.execute(insert(Invoice).values(order=-1))
    await other.commit()


def says(statement: str) -> Act:
    async def act(session: AsyncSession) -> None:
        await session.execute(text(statement))

    return act


def tells_the_driver(statement: str) -> Act:
    async def act(session: AsyncSession) -> None:
        await (await driver_of(session)).execute(statement)

    return act


def goes_on_after(act: Act) -> Act:
    """Catch what comes of an act, as an apply does that logs and goes on."""

    async def quiet(session: AsyncSession) -> None:
        try:
            await act(session)
        except Exception:
            await asyncio.sleep(0)

    return quiet


ENDS = {
    act.__name__: act
    for act in (
        commits, commits_the_connection, rolls_the_connection_back, commits_the_transaction,
        rolls_back_and_commits_the_next, closes, another_session_on_the_connection,
    )
} | {
    statement: says(statement)
    for statement in (
        "COMMIT", "  end work", "ROLLBACK", "abort", "PREPARE TRANSACTION 'x'",
        "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "/* soon */ COMMIT", "-- now\nROLLBACK",
    )
} | {
    f"driver: {statement}": tells_the_driver(statement)
    for statement in (
        "COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "PREPARE TRANSACTION 'x'",
    )
}  # fmt: skip


@pytest.mark.parametrize("how", ENDS)
async def test_nobody_but_the_job_ends_its_transaction(made: AsyncEngine, how: str) -> None:
    for act in (ENDS[how], goes_on_after(ENDS[how])):
        with pytest.raises(ConfigurationError, match="must not commit or roll back") as refused:
            await invoicing(act).run(async_sessionmaker(made))
        assert "the rows behind id=20 up to id=30" in str(refused.value)
        assert await invoices(made) == list(range(1, 21))
        failed = await status(made, "invoicing")
        assert (failed.state, failed.rows_read) == ("failed", 20)
        assert failed.message == str(refused.value)
    # Repaired, the job goes on where it was.
    assert (await invoicing().run(async_sessionmaker(made))).state == "done"
    assert await invoices(made) == list(range(1, ROWS + 1))


async def invalidates_the_connection(session: AsyncSession) -> None:
    await (await session.connection()).invalidate()


async def invalidates_the_session(session: AsyncSession) -> None:
    await session.invalidate()


async def test_a_session_that_ends_in_its_own_way_is_left_to_it(made: AsyncEngine) -> None:
    ended: list[str] = []

    class Own(AsyncSession):
        async def commit(self) -> None:
            ended.append("commit")
            await super().commit()

        async def close(self) -> None:
            ended.append("close")
            await super().close()

    before = await invoices(made)
    done = await invoicing().run(async_sessionmaker(made, class_=Own))
    assert done.state == "done"
    assert len(await invoices(made)) > len(before)
    assert ended.count("commit") == done.chunks > 0
    assert ended.count("close") >= done.chunks


async def test_a_session_that_executes_in_its_own_way_reads_the_rows_by_it(
    made: AsyncEngine,
) -> None:
    executed: list[str] = []

    class Own(AsyncSession):
        async def execute(self, statement: Any, *args: Any, **options: Any) -> Any:
            executed.append(str(statement))
            return await super().execute(statement, *args, **options)

    done = await invoicing().run(async_sessionmaker(made, class_=Own))
    assert done.state == "done"
    reads = [statement for statement in executed if "key_upper_0" in statement]
    assert len(reads) == done.chunks > 0


@pytest.mark.parametrize("act", [invalidates_the_connection, invalidates_the_session])
async def test_nobody_but_the_job_gives_its_connection_up(made: AsyncEngine, act: Act) -> None:
    """No server has ended it: the job fails at once, and waits for nothing."""
    hint = r"must not invalidate its connection: .*; the rows"
    for doing in (act, goes_on_after(act)):
        with pytest.raises(ConfigurationError, match=hint):
            await invoicing(doing).run(async_sessionmaker(made))
        assert await invoices(made) == list(range(1, 21))
        failed = await status(made, "invoicing")
        assert (failed.state, failed.rows_read, failed.retried) == ("failed", 20, 0)
    assert (await invoicing().run(async_sessionmaker(made))).state == "done"


async def test_work_that_may_be_committed_is_named(made: AsyncEngine) -> None:
    """Behind a ROLLBACK that only the driver knows of, each statement is a transaction."""

    async def act(session: AsyncSession) -> None:
        driver = await driver_of(session)
        await driver.execute("ROLLBACK")
        await driver.execute('INSERT INTO invoice ("order") VALUES (-1)')
        if made.dialect.driver == "psycopg":
            await driver.commit()
        raise ValueError("and then something else")

    named = "may be committed: look at the rows behind id=20 up to id=30"
    with pytest.raises(ConfigurationError, match=named):
        await invoicing(act).run(async_sessionmaker(made))
    assert await invoices(made) == [-1, *range(1, 21)]


async def test_a_savepoint_is_apply_s_own(made: AsyncEngine) -> None:
    async def act(session: AsyncSession) -> None:
        try:
            async with session.begin_nested():
                await session.execute(insert(Only).values(id=1))
        except SQLAlchemyError:
            await session.execute(text("SAVEPOINT mine"))
            await session.execute(insert(Invoice).values(order=-1))
            await session.execute(text("ROLLBACK TO SAVEPOINT mine"))
            await session.execute(text("RELEASE mine"))

    assert (await invoicing(act).run(async_sessionmaker(made))).state == "done"
    assert await invoices(made) == list(range(1, ROWS + 1))


# --- errors that are caught ---------------------------------------------------------------------


async def catches_an_error(session: AsyncSession) -> None:
    try:
        await session.execute(insert(Only).values(id=1))
    except SQLAlchemyError:
        return
    raise AssertionError("it is there already")


async def test_a_caught_database_error_is_no_success(made: AsyncEngine) -> None:
    """PostgreSQL answers the COMMIT of an aborted transaction with ROLLBACK, and no error."""
    job = BatchJob("catching", select=select(Order), chunk=CHUNK, partitions=1)

    @job.apply
    async def apply(session: AsyncSession, found: Sequence[Order]) -> None:
        for order in found:
            await session.execute(insert(Invoice).values(order=order.id))
        if found[0].id == 21:
            await catches_an_error(session)

    with pytest.raises(ConfigurationError, match="caught a database error and went on") as told:
        await job.run(async_sessionmaker(made))
    assert "begin_nested" in str(told.value)
    assert await invoices(made) == list(range(1, 21))
    assert (await status(made, "catching")).state == "failed"


async def test_a_caught_flush_error_is_no_success(made: AsyncEngine) -> None:
    async def act(session: AsyncSession) -> None:
        session.add(Only(id=1))
        try:
            await session.flush()
        except SQLAlchemyError:
            session.expunge_all()

    with pytest.raises(JobError, match="stopped at the row id=25"):
        await invoicing(act).run(async_sessionmaker(made))
    assert await invoices(made) == list(range(1, 25))


async def commits_underneath(session: AsyncSession) -> None:
    await (await driver_of(session)).execute("COMMIT")


@pytest.mark.parametrize("act", [catches_an_error, commits_underneath])
async def test_a_row_tried_again_still_fails_by_what_apply_does(
    made: AsyncEngine, act: Act
) -> None:
    broken = True
    job = BatchJob("again", select=select(Order), chunk=CHUNK, partitions=1, skip_limit=5)

    @job.apply
    async def apply(session: AsyncSession, found: Sequence[Order]) -> None:
        for order in found:
            if broken and order.id == 25:
                raise ValueError("poison")
            await session.execute(insert(Invoice).values(order=order.id))
            if not broken:
                await act(session)

    sessions = async_sessionmaker(made)
    assert (await job.run(sessions)).rows_skipped == 1
    broken = False
    retried = await job.retry_errors(sessions)
    assert (retried.repaired, retried.failing) == (0, 1)
    assert await invoices(made) == [n for n in range(1, ROWS + 1) if n != 25]


# --- AUTOCOMMIT and several connections ---------------------------------------------------------


def by_connect(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def listen(connection: Any, _record: object) -> None:
        connection.autocommit = True


def by_checkout(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "checkout")
    def listen(connection: Any, _record: object, _proxy: object) -> None:
        connection.autocommit = True


def by_engine_connect(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "engine_connect")
    def listen(connection: Any) -> None:
        connection.execution_options(isolation_level="AUTOCOMMIT")


def by_begin(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "begin")
    def listen(connection: Any) -> None:
        connection.connection.dbapi_connection.autocommit = True


@pytest.mark.parametrize("listener", [by_connect, by_checkout, by_engine_connect, by_begin])
async def test_autocommit_by_a_listener_is_refused(
    made: AsyncEngine, listener: Callable[[AsyncEngine], None]
) -> None:
    listener(made)
    await refused_for_autocommit(made, async_sessionmaker(made))


@pytest.mark.parametrize(
    "options",
    [
        {"isolation_level": "AUTOCOMMIT"},
        {"execution_options": {"isolation_level": "AUTOCOMMIT"}},
        {"connect_args": {"autocommit": True}},
    ],
    ids=["isolation_level", "execution_options", "connect_args"],
)
async def test_autocommit_by_the_engine_is_refused(url: str, options: dict[str, Any]) -> None:
    if "connect_args" in options and "psycopg" not in url:
        pytest.skip("asyncpg has no such argument")
    engine = create_async_engine(url, **options)
    await refused_for_autocommit(engine, async_sessionmaker(engine))
    await engine.dispose()


async def refused_for_autocommit(engine: AsyncEngine, sessions: Sessions) -> None:
    with pytest.raises(ConfigurationError, match="cannot be in AUTOCOMMIT"):
        await invoicing().run(sessions)
    assert await invoices(engine) == []


async def test_autocommit_that_comes_later_is_refused(made: AsyncEngine) -> None:
    """The constraint holds the first statement of a chunk back, whoever commits it."""
    late = False

    @event.listens_for(made.sync_engine, "begin")
    def listen(connection: Any) -> None:
        if late:
            connection.exec_driver_sql("COMMIT")

    async def act(session: AsyncSession) -> None:
        nonlocal late
        late = True

    if made.dialect.driver == "psycopg":  # it begins a transaction by itself
        await invoicing(act).run(async_sessionmaker(made))
    else:
        with pytest.raises(AsyncLoaderError):
            await invoicing(act).run(async_sessionmaker(made))
        late = False
        assert await invoices(made) == list(range(1, 31))
        await invoicing().run(async_sessionmaker(made))
    assert await invoices(made) == list(range(1, ROWS + 1))


async def test_what_is_written_on_another_bind_is_refused(made: AsyncEngine, url: str) -> None:
    other = create_async_engine(url)
    sessions = async_sessionmaker(made, binds={Invoice: other})
    with pytest.raises(ConfigurationError, match="must be on one connection"):
        await invoicing().run(sessions)
    assert await invoices(made) == []
    await other.dispose()


async def test_what_is_read_on_another_bind_is_refused_at_once(made: AsyncEngine, url: str) -> None:
    other = create_async_engine(url)
    with pytest.raises(ConfigurationError, match="Order is bound to another"):
        await invoicing().run(async_sessionmaker(made, binds={Order: other}))
    assert await list_runs(made) == []
    await other.dispose()


async def test_a_routing_session_is_refused(made: AsyncEngine, url: str) -> None:
    replica = create_async_engine(url)

    class Routing(Session):
        def get_bind(self, mapper: Any = None, **options: Any) -> Any:
            return made.sync_engine if self._flushing else replica.sync_engine

    with pytest.raises(ConfigurationError, match="must be on one connection"):
        await invoicing().run(async_sessionmaker(made, sync_session_class=Routing))
    assert await invoices(made) == []
    await replica.dispose()


async def test_sessions_of_two_phases_are_refused(made: AsyncEngine) -> None:
    with pytest.raises(ConfigurationError, match="two phases"):
        await invoicing().run(async_sessionmaker(made, twophase=True))


async def test_a_factory_that_gives_one_session_again(made: AsyncEngine) -> None:
    scoped = async_scoped_session(async_sessionmaker(made), scopefunc=asyncio.current_task)
    one = async_sessionmaker(made)()
    for sessions in (scoped, lambda: one):
        factory: Any = sessions
        with pytest.raises(ConfigurationError, match="a new session for each chunk"):
            await invoicing().run(factory)
    assert await invoices(made) == []


@pytest.mark.parametrize(
    "statement",
    ["SET search_path = other", "set session search_path to other", "SET SCHEMA 'other'",
     "RESET ALL", "SET ROLE pg_read_all_data", "SELECT set_config('search_path', 'other', false)",
     "/* a tenant's */ SET search_path TO other", "-- its\nSET ROLE pg_read_all_data",
     "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"],
)  # fmt: skip
async def test_an_apply_that_changes_what_names_mean_for_the_next(
    made: AsyncEngine, statement: str
) -> None:
    """The pool gives the connection to the next chunk, which would read another schema's rows."""

    async def act(session: AsyncSession) -> None:
        await session.execute(text(statement))

    with pytest.raises(ConfigurationError, match=r"say SET LOCAL; the rows .*: rolled back"):
        await invoicing(act).run(async_sessionmaker(made))


async def by_a_bound_value(session: AsyncSession) -> None:
    await session.execute(select(func.set_config("search_path", "other, public", False)))


async def by_a_block(session: AsyncSession) -> None:
    await session.execute(text("DO $$BEGIN SET search_path TO other, public; END$$"))


@pytest.mark.parametrize(
    "act",
    [by_a_bound_value, by_a_block, tells_the_driver("SET search_path TO other, public")],
    ids=["a bound value", "a block", "the driver"],
)
async def test_what_names_mean_is_set_back_for_the_next(made: AsyncEngine, act: Act) -> None:
    """No text says that it stays: the next chunk reads the same tables even so."""
    async with made.begin() as connection:
        await connection.execute(text("CREATE SCHEMA other"))
        await connection.execute(text("CREATE TABLE other.placed_order (LIKE public.placed_order)"))
    await invoicing(act).run(async_sessionmaker(made))
    assert await invoices(made) == list(range(1, ROWS + 1))
    async with made.connect() as connection:
        assert "other" not in str(await connection.scalar(text("SHOW search_path")))


async def test_an_apply_may_change_what_names_mean_for_itself(made: AsyncEngine) -> None:
    async def act(session: AsyncSession) -> None:
        await session.execute(text("SET LOCAL search_path = public, pg_catalog"))
        await session.execute(text("SELECT set_config('search_path', 'public', true)"))

    await invoicing(act).run(async_sessionmaker(made))
    assert await invoices(made) == list(range(1, ROWS + 1))


async def test_sessions_that_do_not_begin_by_themselves(made: AsyncEngine) -> None:
    await invoicing().run(async_sessionmaker(made, autobegin=False))
    assert await invoices(made) == list(range(1, ROWS + 1))


async def test_a_listener_that_runs_statements_before_a_commit(made: AsyncEngine) -> None:
    """Those of the session are within the transaction that the last act looks at."""

    class Auditing(Session):
        pass

    @event.listens_for(Auditing, "before_commit")
    def audit(session: Session) -> None:
        if made.dialect.driver:
            try:
                session.execute(insert(Only).values(id=1))
            except SQLAlchemyError:
                return

    with pytest.raises((ConfigurationError, JobError), match="caught a database error"):
        await invoicing().run(async_sessionmaker(made, sync_session_class=Auditing))
    assert await invoices(made) == []


# --- commits elsewhere --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["a session", "a connection", "another engine", "a task"])
@pytest.mark.parametrize("error", [ConnectionResetError, ValueError])
async def test_a_commit_elsewhere_is_not_repeated(
    made: AsyncEngine, url: str, how: str, error: type[Exception]
) -> None:
    other = create_async_engine(url) if how == "another engine" else made
    calls = 0

    async def write() -> None:
        if how == "a session":
            async with async_sessionmaker(made).begin() as mine:
                mine.add(Invoice(order=-1))
        else:
            async with other.begin() as connection:
                await connection.execute(insert(Invoice).values(order=-1))

    async def act(session: AsyncSession) -> None:
        nonlocal calls
        calls += 1
        await (asyncio.create_task(write()) if how == "a task" else write())
        raise error("it happens")

    with pytest.raises(JobError, match=r"rows behind id=20 up to id=30 failed.*done twice"):
        await invoicing(act, skip_limit=5).run(async_sessionmaker(made))
    assert calls == 1
    assert await invoices(made) == [-1, *range(1, 21)]
    assert (await status(made, "invoicing")).state == "failed"
    await other.dispose()


INVOICE = insert(Invoice).values(order=-1)


async def by_an_autocommit_engine(made: AsyncEngine) -> None:
    engine = create_async_engine(made.url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(INVOICE)
    await engine.dispose()


async def by_an_autocommit_session(made: AsyncEngine) -> None:
    async with AsyncSession(made.execution_options(isolation_level="AUTOCOMMIT")) as session:
        await session.execute(INVOICE)


async def by_an_option(made: AsyncEngine) -> None:
    async with made.connect() as connection:
        mine = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await mine.execute(INVOICE)


async def by_a_text(made: AsyncEngine) -> None:
    async with made.connect() as connection:
        await connection.execute(INVOICE)
        await connection.execute(text("/* now */ COMMIT"))


async def by_an_engine_without_a_url(made: AsyncEngine) -> None:
    url = made.url.set(drivername="postgresql").render_as_string(hide_password=False)
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url)
    )
    async with engine.begin() as connection:
        await connection.execute(INVOICE)
    await engine.dispose()


async def by_an_executor(made: AsyncEngine) -> None:
    engine = create_engine(made.url.set(drivername="postgresql+psycopg"))

    def write() -> None:
        with engine.begin() as connection:
            connection.execute(INVOICE)
        engine.dispose()

    await asyncio.get_running_loop().run_in_executor(None, write)


@pytest.mark.parametrize(
    "way",
    [by_an_autocommit_engine, by_an_autocommit_session, by_an_option, by_a_text,
     by_an_engine_without_a_url, by_an_executor],
)  # fmt: skip
async def test_a_commit_elsewhere_that_says_little_is_not_repeated(
    made: AsyncEngine, way: Callable[[AsyncEngine], Awaitable[None]]
) -> None:
    async def act(_session: AsyncSession) -> None:
        await way(made)
        raise ConnectionResetError("a service")

    with pytest.raises(JobError, match=r"rows behind id=20 up to id=30 failed.*done twice"):
        await invoicing(act).run(async_sessionmaker(made))
    assert await invoices(made) == [-1, *range(1, 21)]


async def test_a_commit_by_a_task_that_began_before_is_not_repeated(made: AsyncEngine) -> None:
    """It knows nothing of the chunk that gives it something to write."""
    asked, answered = asyncio.Event(), asyncio.Event()

    async def consume() -> None:
        await asked.wait()
        async with made.begin() as connection:
            await connection.execute(INVOICE)
        answered.set()

    async def act(_session: AsyncSession) -> None:
        asked.set()
        await answered.wait()
        raise ConnectionResetError("a service")

    consumer = asyncio.create_task(consume())
    with pytest.raises(JobError, match=r"rows behind id=20 up to id=30 failed.*done twice"):
        await invoicing(act).run(async_sessionmaker(made))
    await consumer
    assert await invoices(made) == [-1, *range(1, 21)]


async def test_what_is_only_read_elsewhere_may_be_repeated(made: AsyncEngine, url: str) -> None:
    other = create_async_engine(url, isolation_level="AUTOCOMMIT")
    calls = 0

    async def act(_session: AsyncSession) -> None:
        nonlocal calls
        calls += 1
        async with other.connect() as connection:
            await connection.execute(select(Order))
        if calls == 1:
            raise ConnectionResetError("a service")

    done = await invoicing(act).run(async_sessionmaker(made))
    assert (done.state, done.retried, calls) == ("done", 1, 2)
    assert await invoices(made) == list(range(1, ROWS + 1))
    await other.dispose()


async def test_a_commit_elsewhere_is_no_fault_by_itself(made: AsyncEngine) -> None:
    async def act(session: AsyncSession) -> None:
        async with made.begin() as connection:
            await connection.execute(insert(Invoice).values(order=-1))

    assert (await invoicing(act).run(async_sessionmaker(made))).state == "done"
    assert await invoices(made) == [-1, *range(1, ROWS + 1)]


# --- what else apply may raise ------------------------------------------------------------------


def raises(error: BaseException) -> Act:
    async def act(session: AsyncSession) -> None:
        raise error

    return act


async def awaits_what_is_cancelled(session: AsyncSession) -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


async def cancels_its_own_task(session: AsyncSession) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(60)


async def exits(session: AsyncSession) -> None:
    sys.exit(0)


@pytest.mark.parametrize(
    ("act", "by"),
    [
        (exits, r"SystemExit\(0\)"),
        (raises(KeyboardInterrupt()), "KeyboardInterrupt"),
        (raises(asyncio.CancelledError()), "CancelledError"),
        (awaits_what_is_cancelled, "CancelledError"),
        (cancels_its_own_task, "cancelled"),
    ],
)
async def test_an_end_from_within_apply_is_told(made: AsyncEngine, act: Act, by: str) -> None:
    with pytest.raises(JobError, match=by):
        await invoicing(act).run(async_sessionmaker(made))
    failed = await status(made, "invoicing")
    assert failed.state == "failed"
    assert failed.message is not None
    assert await invoices(made) == list(range(1, 21))
    await invoicing().run(async_sessionmaker(made))
    assert await invoices(made) == list(range(1, ROWS + 1))


@pytest.mark.parametrize(
    ("error", "by"),
    [(SystemExit(0), r"SystemExit\(0\)"), (KeyboardInterrupt(), "KeyboardInterrupt"),
     (asyncio.CancelledError(), "CancelledError"),
     (BaseExceptionGroup("g", [SystemExit()]), r"BaseExceptionGroup\('g', \[SystemExit\(\)\]\)")],
)  # fmt: skip
@pytest.mark.parametrize("place", ["setup", "select", "a throttle"])
async def test_an_end_from_within_the_rest_is_told(
    made: AsyncEngine, place: str, error: BaseException, by: str
) -> None:
    async def ends(*_: object) -> None:
        raise error

    def selects(_arguments: object) -> Select[Any]:
        raise error

    options: dict[str, dict[str, Any]] = {
        "setup": {"setup": ends},
        "select": {"select": selects},
        "a throttle": {"throttles": [ends]},
    }
    job = BatchJob("ending", **{"select": select(Order), **options[place]})
    job.apply(_nothing)
    with pytest.raises(JobError, match=f"^{place} raised {by}$"):
        await job.run(async_sessionmaker(made))
    if place == "a throttle":
        failed = await status(made, "ending")
        assert (failed.state, failed.message) == (
            "failed",
            f"a throttle raised {by}".replace("\\", ""),
        )


async def _nothing(_session: AsyncSession, _rows: Sequence[Any]) -> None:
    pass


@pytest.mark.parametrize("message", ["nul \0 here", "lone \ud800 half", "\udcff", "x" * 100_000])
async def test_any_text_of_an_error_is_recorded(made: AsyncEngine, message: str) -> None:
    skipping = invoicing(raises(ValueError(message)), skip_limit=1)
    done = await skipping.run(async_sessionmaker(made))
    assert (done.state, done.rows_skipped) == ("done", 1)
    failing = BatchJob("failing", select=select(Order))

    @failing.apply
    async def apply(session: AsyncSession, found: Sequence[Order]) -> None:
        raise JobError(message)

    with pytest.raises(JobError):
        await failing.run(async_sessionmaker(made))
    assert (await status(made, "failing")).state == "failed"


class RaisesError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class ExitsError(Exception):
    def __str__(self) -> str:  # noqa: PLE0307  the mistake
        sys.exit(0)


class NothingError(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # noqa: PLE0307  the mistake

    __repr__ = __str__


@pytest.mark.parametrize("kind", [RaisesError, ExitsError, NothingError])
async def test_an_error_without_a_text_is_recorded_by_its_class(
    made: AsyncEngine, kind: type[Exception]
) -> None:
    skipping = invoicing(raises(kind()), skip_limit=1)
    done = await skipping.run(async_sessionmaker(made))
    assert (done.state, done.rows_skipped) == ("done", 1)
    async with made.connect() as connection:
        noted = text("SELECT exception, message FROM async_loader_jobs.error")
        assert (await connection.execute(noted)).one() == (kind.__name__, kind.__name__)
    retried = await skipping.retry_errors(async_sessionmaker(made))
    assert (retried.repaired, retried.failing) == (0, 1)
    failing = invoicing(raises(kind()))
    told = f"stopped at the row id=25: {kind.__name__}: {kind.__name__}; repair it"
    with pytest.raises(JobError, match=told):
        await failing.run(async_sessionmaker(made))
    assert told in str((await status(made, "invoicing")).message)
