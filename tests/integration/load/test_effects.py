"""What an operation did to its databases is known, in whatever way it went about it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Integer, TypeDecorator, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from async_loader.load.effects import Effects, current_effects, sort_of, watched
from async_loader.load.effects.undetermined import is_undetermined


class Base(DeclarativeBase): ...


class Payment(Base):
    __tablename__ = "payment"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


PAY = text("INSERT INTO payment (amount) VALUES (1)")
WRONG = text("INSERT INTO payment (amount) VALUES (NULL)")
LEFT_OPEN: list[Any] = []
Way = Callable[[AsyncEngine], Awaitable[object]]
WAYS: dict[str, dict[str, Way]] = {"kept": {}, "committed": {}, "not done": {}, "nothing": {}}


def way(effect: str) -> Callable[[Way], Way]:
    def register(function: Way) -> Way:
        WAYS[effect][function.__name__] = function
        return function

    return register


def sync_engine(engine: AsyncEngine) -> Any:
    return create_engine(engine.url.set(drivername="postgresql+psycopg"))


@way("kept")
async def session_commit(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add(Payment(amount=1))
        await session.commit()


@way("kept")
async def engine_begin(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(PAY)


@way("kept")
async def commit_in_sql(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(PAY)
        await connection.execute(text("COMMIT"))


@way("kept")
async def commit_and_chain(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(PAY)
        await connection.execute(text("/* now */ COMMIT AND CHAIN"))


@way("kept")
async def autocommit(engine: AsyncEngine) -> None:
    async with AsyncSession(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        await session.execute(PAY)


@way("kept")
async def two_phase(engine: AsyncEngine) -> None:
    engine = create_async_engine(engine.url.set(drivername="postgresql+psycopg"))
    async with engine.connect() as connection:
        transaction = await connection.run_sync(lambda c: c.begin_twophase())
        await connection.execute(PAY)
        await connection.run_sync(lambda _c: transaction.commit())
    await engine.dispose()


@way("kept")
async def a_thread_with_the_context(engine: AsyncEngine) -> None:
    sync = sync_engine(engine)

    def pay() -> None:
        with Session(sync) as session:
            session.add(Payment(amount=1))
            session.commit()
        sync.dispose()

    await asyncio.to_thread(pay)


@way("kept")
async def a_task_of_its_own(engine: AsyncEngine) -> None:
    await asyncio.create_task(session_commit(engine))  # type: ignore[arg-type]  # an async def


@way("kept")
async def after_a_savepoint_that_failed(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        with suppress(DBAPIError):
            async with connection.begin_nested():
                await connection.execute(WRONG)
        await connection.execute(PAY)


@way("committed")
async def a_function_in_autocommit(engine: AsyncEngine) -> None:
    options = {"isolation_level": "AUTOCOMMIT"}
    async with engine.connect() as connection:
        await connection.execution_options(**options)
        await connection.execute(text("SELECT set_config('a.b', 'c', false)"))


@way("committed")
async def an_executor_thread(engine: AsyncEngine) -> None:
    sync = sync_engine(engine)

    def pay() -> None:
        with sync.begin() as connection:
            connection.execute(PAY)
        sync.dispose()

    await asyncio.get_running_loop().run_in_executor(None, pay)


@way("committed")
async def the_driver_of_a_connection(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute(PAY.text)


@way("committed")
async def a_driver_without_an_engine(engine: AsyncEngine) -> None:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    async with asyncpg.create_pool(url, min_size=1) as pool:
        await pool.execute(PAY.text)


@way("committed")
async def a_cursor_of_the_driver(engine: AsyncEngine) -> None:
    sync = sync_engine(engine)
    raw = sync.raw_connection()
    raw.cursor().execute(PAY.text)
    raw.commit()
    raw.close()
    sync.dispose()


@way("not done")
async def no_commit(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add(Payment(amount=1))
        await session.flush()


@way("not done")
async def no_commit_in_core(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(PAY)


@way("not done")
async def no_flush(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add(Payment(amount=1))


@way("not done")
async def a_commit_that_rolls_back(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(PAY)
        with suppress(DBAPIError):
            await connection.execute(text("SELECT 1/0"))
        await connection.commit()


@way("not done")
async def a_swallowed_error(engine: AsyncEngine) -> None:
    with suppress(DBAPIError):
        async with AsyncSession(engine) as session:
            session.add(Payment(amount=None))
            await session.commit()


@way("not done")
async def a_savepoint_that_was_rolled_back(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        with suppress(ValueError):
            async with session.begin_nested():
                session.add(Payment(amount=1))
                await session.flush()
                raise ValueError
        await session.commit()


@way("kept")
async def what_was_written_before_a_savepoint_that_was_rolled_back(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add(Payment(amount=1))
        await session.flush()
        for _ in range(2):
            with suppress(ValueError):
                async with session.begin_nested():
                    session.add(Payment(amount=2))
                    await session.flush()
                    raise ValueError
        await session.commit()


@way("not done")
async def a_swallowed_error_and_a_read_behind_it(engine: AsyncEngine) -> None:
    """Nobody has looked for what was wanted there: it could not be there."""
    await a_swallowed_error(engine)
    await a_read(engine)


@way("nothing")
async def what_is_there_already_and_is_looked_at(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        with suppress(DBAPIError):
            await session.execute(text("CREATE TABLE payment ()"))
        await session.rollback()
        await session.execute(text("SELECT * FROM payment"))


@way("not done")
async def rolled_back(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(PAY)
        await connection.rollback()


@way("not done")
async def a_connection_left_open(engine: AsyncEngine) -> None:
    LEFT_OPEN.append(await engine.connect())
    await LEFT_OPEN[0].execute(PAY)


SAVE = (
    "CREATE OR REPLACE FUNCTION save() RETURNS int LANGUAGE sql "
    "AS 'INSERT INTO payment (amount) VALUES (1) RETURNING id'"
)


@way("not done")
async def a_function_that_writes(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT save()"))


@way("not done")
async def a_function_that_writes_by_another_driver(engine: AsyncEngine) -> None:
    sync = sync_engine(engine)
    with Session(sync) as session:
        session.execute(text("SELECT save()"))
    sync.dispose()


@way("not done")
async def prepared_in_sql(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text(f"PREPARE pay AS {PAY}"))
        await connection.execute(text("EXECUTE pay"))
        await connection.execute(text("DEALLOCATE pay"))


@way("committed")
async def a_function_that_is_committed(engine: AsyncEngine) -> None:
    """Whether it has written anything is not known then, and what is lost besides may be less."""
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT save()"))
        await session.commit()
        await session.execute(PAY)


@way("nothing")
async def a_function_that_only_reads(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT round(sum(amount), 2) FROM payment"))


@way("nothing")
async def a_function_that_locks(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT * FROM payment WHERE amount = sqrt(4) FOR UPDATE"))


@way("nothing")
async def a_function_beside_a_lock(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT * FROM payment FOR NO KEY UPDATE"))
        await session.execute(text("SELECT round(sum(amount), 2) FROM payment"))


@way("nothing")
async def a_sequence_that_is_asked(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT nextval('payment_id_seq')"))


@way("not done")
async def a_session_that_is_never_closed(engine: AsyncEngine) -> None:
    AsyncSession(engine).add(Payment(amount=1))


@way("not done")
async def a_session_that_is_kept(engine: AsyncEngine) -> None:
    LEFT_OPEN.append(AsyncSession(engine))
    LEFT_OPEN[0].add(Payment(amount=1))


@way("not done")
async def expunged(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add(Payment(amount=1))
        session.expunge_all()


@way("not done")
async def reset(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add(Payment(amount=1))
        await session.reset()


@way("not done")
async def used_again_and_never_closed(engine: AsyncEngine) -> None:
    session = AsyncSession(engine)
    await session.close()
    session.add(Payment(amount=1))


@way("nothing")
async def added_and_taken_out_again(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        payment = Payment(amount=1)
        session.add(payment)
        session.expunge(payment)


@way("kept")
async def never_closed_and_committed(engine: AsyncEngine) -> None:
    session = AsyncSession(engine)
    session.add(Payment(amount=1))
    await session.commit()
    LEFT_OPEN.append(session)


@way("nothing")
async def a_read_of_a_session_that_is_never_closed(engine: AsyncEngine) -> None:
    session = AsyncSession(engine)
    await session.scalars(text("SELECT * FROM payment"))
    LEFT_OPEN.append(session)


@way("nothing")
async def a_read(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        assert (await session.execute(text("SELECT count(*) FROM payment"))).scalar() == 0


@way("nothing")
async def a_read_in_autocommit(engine: AsyncEngine) -> None:
    async with AsyncSession(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        await session.execute(text("SELECT * FROM payment WHERE amount IN (1, 2)"))


@way("nothing")
async def an_update_of_no_row(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("UPDATE payment SET amount = 2"))


@pytest.fixture
async def filled(engine: AsyncEngine) -> AsyncEngine:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text(SAVE))
    async with engine.connect() as connection:  # warm: it was there before anybody looked
        await connection.execute(text("SELECT 1"))
    return engine


def seen_of(effects: Effects) -> str:
    if effects.not_done is not None:
        return "not done"
    if effects.kept:
        assert effects.may_have_committed
        return "kept"
    return "committed" if effects.may_have_committed else "nothing"


@pytest.mark.parametrize(
    ("name", "expected"), [(name, effect) for effect, ways in WAYS.items() for name in ways]
)
async def test_every_way(filled: AsyncEngine, name: str, expected: str) -> None:
    if name == "two_phase":
        async with filled.connect() as connection:
            prepared = await connection.scalar(text("SHOW max_prepared_transactions"))
        if prepared == "0":
            pytest.skip("the server has no prepared transactions")
    with watched(raw_drivers=True):
        effects = Effects()
        token = current_effects.set(effects)
        await WAYS[expected][name](filled)
        current_effects.reset(token)
        assert seen_of(effects) == expected
    while LEFT_OPEN:
        await LEFT_OPEN.pop().close()
    assert "do_execute" not in vars(filled.dialect)


class Touchy:
    """What an application's type makes of a value, and how it compares it."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("not to be compared")

    __hash__ = None  # type: ignore[assignment]


class TouchyType(TypeDecorator[Touchy]):
    impl = Integer
    cache_ok = True

    def process_bind_param(self, _value: Any, _dialect: Any) -> int:
        return 1

    def process_result_value(self, _value: Any, _dialect: Any) -> Touchy:
        return Touchy()


class TouchyPayment(Base):
    __tablename__ = "touchy_payment"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[Touchy] = mapped_column(TouchyType)


async def change_and_close(engine: AsyncEngine, model: type[Any], amount: object) -> Effects:
    """Return what is seen of a change that nobody flushes and of which nobody keeps the object."""
    async with AsyncSession(engine) as session:
        session.add(model(id=1, amount=amount))
        await session.commit()
    with watched():
        effects = Effects()
        token = current_effects.set(effects)
        async with AsyncSession(engine) as session:
            payment = await session.get(model, 1)
            assert payment is not None
            payment.amount = amount
            del payment
        current_effects.reset(token)
        gc.collect()
    return effects


async def test_what_is_set_to_what_it_is_and_then_gone_is_no_change(filled: AsyncEngine) -> None:
    effects = await change_and_close(filled, Payment, 5)
    assert seen_of(effects) == "nothing"
    assert not effects.wrote


async def test_a_value_that_cannot_be_compared_counts_as_changed(filled: AsyncEngine) -> None:
    effects = await change_and_close(filled, TouchyPayment, Touchy())
    assert seen_of(effects) == "not done"
    assert effects.wrote


async def test_the_server_is_asked_only_until_it_is_known(filled: AsyncEngine) -> None:
    reads, writes = "SELECT round(2.345, 2)", "SELECT save()"
    with watched():
        for _ in range(20):
            for sql in (reads, writes):
                token = current_effects.set(Effects())
                async with AsyncSession(filled) as session:
                    await session.execute(text(sql))
                current_effects.reset(token)
    assert not is_undetermined(reads)
    assert is_undetermined(writes)


async def test_a_statement_that_the_driver_had_prepared_before(filled: AsyncEngine) -> None:
    url = filled.url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(url)
    prepared = await connection.prepare(PAY.text)
    with watched(raw_drivers=True):
        effects = Effects()
        token = current_effects.set(effects)
        await prepared.fetch()
        current_effects.reset(token)
    assert effects.may_have_committed
    await connection.close()


async def test_a_commit_that_the_server_refused_is_none(filled: AsyncEngine) -> None:
    async with filled.begin() as connection:
        await connection.execute(
            text(
                "ALTER TABLE payment ADD CONSTRAINT one UNIQUE (amount) DEFERRABLE "
                "INITIALLY DEFERRED"
            )
        )
    with watched():
        effects = Effects()
        current_effects.set(effects)
        async with filled.connect() as connection:
            await connection.execute(PAY)
            await connection.execute(PAY)
            with pytest.raises(DBAPIError):
                await connection.commit()
    assert not effects.may_have_committed
    assert effects.lost


@pytest.mark.parametrize(
    ("sql", "sort"),
    [
        ("SELECT a FROM t WHERE b = 'pay(1)'", "read"),
        ("SELECT count(*), lower(a) FROM t FOR UPDATE", "passing"),
        ("SELECT pay(1)", "unknown"),
        ("WITH a AS (SELECT 1) SELECT * FROM a FOR NO KEY UPDATE OF a", "passing"),
        ("WITH a AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT * FROM a", "write"),
        ("-- why\n/* and how */ insert into t values (1)", "write"),
        ("ROLLBACK TO SAVEPOINT sa_savepoint_1", "rollback to"),
        ("SAVEPOINT sa_savepoint_1", "savepoint"),
        ("ROLLBACK", "rollback"),
        ("END", "commit"),
        ("EXPLAIN INSERT INTO t VALUES (1)", "read"),
        ("EXPLAIN SELECT analyze FROM t", "read"),
        ("/* why */ EXPLAIN ANALYSE INSERT INTO t VALUES (1)", "write"),
        ("EXPLAIN (COSTS OFF, ANALYZE) DELETE FROM t", "write"),
        ("CALL pay()", "unknown"),
        ("CREATE TEMP TABLE t (a int)", "passing"),
        ("SELECT nextval('a')", "passing"),
        ("SELECT nextval('a'), f() FOR UPDATE", "unknown"),
        ("(SELECT 1) UNION (SELECT 2)", "unknown"),
    ],
)
def test_what_a_statement_does(sql: str, sort: str) -> None:
    assert sort_of(sql) == sort
