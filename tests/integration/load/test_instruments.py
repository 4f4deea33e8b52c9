from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.ext.asyncio
from sqlalchemy import create_engine, text
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.engine import make_url
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool, Pool
from sqlalchemy.pool.base import _ConnectionRecord

from async_loader import ConfigurationError
from async_loader.load.instruments import (
    Instruments,
    OperationTimes,
    PoolWatch,
    attached,
    current_times,
)

# Times that the server slept are asked for by four fifths: it sleeps by the clock of the day,
# which the machine may correct meanwhile.


@contextmanager
def watching(engine: AsyncEngine) -> Iterator[PoolWatch]:
    with ExitStack() as stack:
        yield attached(async_sessionmaker(engine), stack, time_split=False).pool


async def hold(engine: AsyncEngine, gate: asyncio.Event) -> None:
    async with engine.connect():
        await gate.wait()


async def reach(watch: PoolWatch, in_use: int, waiting: int) -> None:
    async with asyncio.timeout(10):
        while (watch.in_use, watch.waiting) != (in_use, waiting):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("dispose_first", [False, True])
async def test_it_counts_who_has_and_who_waits(database_url: str, dispose_first: bool) -> None:
    engine = create_async_engine(database_url, pool_size=2, max_overflow=1)
    with watching(engine) as watch:
        if dispose_first:
            await engine.dispose()
        assert watch.size == 3
        gate = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(hold(engine, gate))
            await reach(watch, in_use=3, waiting=2)
            gate.set()
        assert (watch.in_use, watch.waiting) == (0, 0)
        assert (watch.peak_in_use, watch.peak_waiting) == (3, 5)
    await engine.dispose()


async def test_any_pool_can_be_watched(database_url: str) -> None:
    engine = create_async_engine(database_url, poolclass=NullPool)
    with watching(engine) as watch:
        async with engine.connect(), engine.connect():
            assert watch.in_use == 2
        assert (watch.in_use, watch.size) == (0, 0)


async def test_a_connection_that_cannot_be_opened_is_not_in_use(database_url: str) -> None:
    url = make_url(database_url).set(database="absent")
    engine = create_async_engine(url)
    with watching(engine) as watch:
        for _ in range(3):
            # SQLAlchemy 2.0 passes the driver's own error through, 2.1 wraps it.
            with pytest.raises(Exception, match="does not exist"):
                await engine.connect()
        assert (watch.in_use, watch.waiting, watch.peak_in_use) == (0, 0, 0)
    await engine.dispose()


async def test_an_invalidated_connection_is_given_back(engine: AsyncEngine) -> None:
    with watching(engine) as watch:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            await connection.invalidate()
        assert watch.in_use == 0


def patched() -> dict[str, object]:
    classes = [Pool, _ConnectionRecord, DefaultDialect, PGDialect]
    modules = [sqlalchemy.ext.asyncio.engine, sqlalchemy.ext.asyncio.session]
    return {f"{o}.{name}": value for o in (*classes, *modules) for name, value in vars(o).items()}


async def test_nothing_stays_behind(engine: AsyncEngine) -> None:
    before = patched()
    with watching(engine), watching(create_async_engine(engine.url)):
        assert patched() != before
    changed = {name for name, value in patched().items() if before.get(name) is not value}
    # What SQLAlchemy itself notes on its classes of whoever has ever listened.
    assert all(name.endswith(("dispatch", "_has_events")) for name in changed), changed
    async with engine.connect():
        pass


async def timed(instruments: Instruments, engine: AsyncEngine, *statements: str) -> OperationTimes:
    """Return the times of an operation that executes these."""

    async def operation() -> None:
        async with engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    return await of(instruments, operation())


async def of(instruments: Instruments, coroutine: Coroutine[Any, Any, Any]) -> OperationTimes:
    times = instruments.times("op")
    assert times is not None
    await instruments.drive(coroutine, times)
    current_times.set(None)
    return times


@pytest.fixture
async def instruments(engine: AsyncEngine) -> AsyncIterator[Instruments]:
    with ExitStack() as stack:
        yield attached(async_sessionmaker(engine), stack, time_split=True, n_plus_one=5)


async def test_time_in_the_database_is_the_databases(
    instruments: Instruments, engine: AsyncEngine
) -> None:
    times = await timed(instruments, engine, "SELECT pg_sleep(0.05)", "SELECT 1")
    assert times.statements == 2, "what a new connection asks is not the operation's"
    assert times.database_ns > 40e6
    assert times.connect_ns > 0


async def test_time_in_the_pool_is_not_the_databases(
    instruments: Instruments, database_url: str
) -> None:
    engine = create_async_engine(database_url, pool_size=1, max_overflow=0)
    async with engine.connect() as connection:
        waiting = asyncio.create_task(timed(instruments, engine, "SELECT 1"))
        await reach(instruments.pool, in_use=1, waiting=1)
        await connection.execute(text("SELECT pg_sleep(0.05)"))
    times = await waiting
    assert times.pool_ns > 40e6
    assert times.database_ns < times.pool_ns
    await engine.dispose()


async def test_commit_and_rollback_are_timed(instruments: Instruments, engine: AsyncEngine) -> None:
    """A deferred trigger makes the COMMIT itself slow, which no event after it would tell."""
    async with engine.begin() as connection:
        for statement in (
            "CREATE TABLE t (id int)",
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END$$",
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION slow()",
        ):
            await connection.execute(text(statement))
    times = await timed(instruments, engine, "INSERT INTO t VALUES (1)")
    assert times.database_ns > 40e6


async def test_the_rows_of_a_server_side_cursor_are_the_databases(
    instruments: Instruments, engine: AsyncEngine
) -> None:
    async def operation() -> None:
        async with engine.connect() as connection:
            result = await connection.stream(
                text("SELECT pg_sleep(0.002) FROM generate_series(1, 40)")
            )
            assert len(await result.fetchall()) == 40

    assert (await of(instruments, operation())).database_ns > 64e6


async def test_a_ping_is_neither_the_pools_nor_the_databases(
    instruments: Instruments, engine: AsyncEngine
) -> None:
    pinged = create_async_engine(engine.url, pool_pre_ping=True)
    await timed(instruments, pinged, "SELECT 1")
    times = await timed(instruments, pinged, "SELECT 1")
    assert times.ping_ns > 0
    assert times.connect_ns == 0
    assert times.statements == 1
    await pinged.dispose()


async def test_an_engine_made_in_the_middle_counts_as_well(
    instruments: Instruments, engine: AsyncEngine
) -> None:
    async def operation() -> None:
        another = create_async_engine(engine.url)
        async with another.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(0.03)"))
        await another.dispose()

    times = await of(instruments, operation())
    assert (times.statements, times.database_ns > 24e6) == (1, True)
    assert instruments.pool.pools == 1


async def test_sync_engines_count_in_threads_and_on_the_loop(
    instruments: Instruments, engine: AsyncEngine
) -> None:
    sync = create_engine(engine.url.set(drivername="postgresql+psycopg"))

    def ask() -> None:
        with sync.connect() as connection:
            connection.execute(text("SELECT pg_sleep(0.03)"))

    async def on_the_loop() -> None:
        ask()

    for operation in (asyncio.to_thread(ask), on_the_loop()):
        times = await of(instruments, operation)
        assert (times.statements, times.database_ns > 24e6) == (1, True)
    sync.dispose()


async def test_statements_that_are_nobodys_are_told_of(
    instruments: Instruments, engine: AsyncEngine
) -> None:
    sync = create_engine(engine.url.set(drivername="postgresql+psycopg"))

    def ask() -> None:
        with sync.connect() as connection:
            connection.execute(text("SELECT 1"))

    async def in_an_executor() -> None:
        await asyncio.get_running_loop().run_in_executor(None, ask)

    instruments.begin()
    assert (await of(instruments, in_an_executor())).statements == 0
    (sentence,) = instruments.unseen()
    assert "run_in_executor" in sentence
    instruments.begin()
    assert instruments.unseen() == ()
    sync.dispose()


async def test_what_the_application_does_itself_is_its_own(
    instruments: Instruments, engine: AsyncEngine
) -> None:
    def compute() -> None:
        until = time.perf_counter() + 0.03
        while time.perf_counter() < until:
            pass

    async def operation() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            compute()
            await connection.run_sync(lambda _: compute())
            await asyncio.sleep(0.03)

    await timed(instruments, engine, "SELECT 1")  # opens the connection
    times = await of(instruments, operation())
    assert times.application_ns > 60e6
    assert times.orm_ns + times.database_ns < times.application_ns


async def test_run_sync_takes_any_argument_and_its_errors_are_the_applications(
    instruments: Instruments, engine: AsyncEngine
) -> None:
    seen: list[object] = []

    def function(_connection: object, /, *args: object, **kwargs: object) -> None:
        seen.append((args, kwargs))
        raise LookupError("of the application")

    async def operation() -> None:
        async with engine.connect() as connection:
            with pytest.raises(LookupError, match="of the application"):
                await connection.run_sync(function, 1, times=2, orm=3, function=4)
            await connection.execute(text("SELECT 1"))

    times = await of(instruments, operation())
    assert seen == [((1,), {"times": 2, "orm": 3, "function": 4})]
    assert (times.inside, times.orm) == (0, False)
    assert times.orm_ns > 0
    assert times.database_ns > 0


async def test_what_runs_side_by_side_is_counted_once(
    instruments: Instruments, engine: AsyncEngine
) -> None:
    async def ask() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(0.05)"))

    async def operation() -> None:
        await asyncio.gather(*(ask() for _ in range(4)))

    await of(instruments, operation())  # with its connections
    started = time.perf_counter_ns()
    times = await of(instruments, operation())
    took = time.perf_counter_ns() - started
    spent = (times.pool_ns, times.connect_ns, times.database_ns, times.orm_ns, times.queue_ns)
    assert sum(spent) + times.application_ns <= took
    assert times.database_ns > 40e6
    assert times.statements == 4


async def test_a_loop_that_is_blocked_is_not_the_databases(
    instruments: Instruments, engine: AsyncEngine
) -> None:
    """The reply is there when the loop is let go; how long it had lain there others tell."""

    async def block() -> None:
        await asyncio.sleep(0)
        time.sleep(0.05)

    for _ in range(20):
        await timed(instruments, engine, "SELECT 1")
    asking = asyncio.create_task(timed(instruments, engine, "SELECT 1"))
    blocking = [asyncio.create_task(of(instruments, block())) for _ in range(3)]
    times = await asking
    for each in blocking:
        assert (await each).application_ns > 40e6
    assert times.queue_ns > times.database_ns


async def test_two_runs_do_not_measure_one_engine(
    instruments: Instruments, engine: AsyncEngine
) -> None:
    with (
        pytest.raises(ConfigurationError, match="give each run an engine of its own"),
        watching(engine),
    ):
        pass
    async with engine.connect():
        pass


async def test_two_runs_at_once_count_their_own(engine: AsyncEngine) -> None:
    other = create_async_engine(engine.url)
    gate = asyncio.Event()

    async def run(engine: AsyncEngine) -> int:
        with watching(engine) as watch:
            async with engine.connect():
                await reach(watch, in_use=1, waiting=0)
                gate.set() if both.is_set() else both.set()
                await gate.wait()
                return watch.in_use

    both = asyncio.Event()
    assert [*await asyncio.gather(run(engine), run(other))] == [1, 1]
    await other.dispose()


async def test_the_line_that_blocks_is_found(instruments: Instruments, engine: AsyncEngine) -> None:
    async def block() -> None:
        await asyncio.sleep(0)
        time.sleep(0.2)  # blocks

    async def in_the_background() -> None:
        time.sleep(0.2)  # blocks beside

    await of(instruments, block())
    await asyncio.create_task(in_the_background())
    profile = instruments.profile()
    assert profile is not None
    lines = Path(__file__).read_text().splitlines()
    blocking = {(one.operation, one.source.rpartition(":")[2]) for one in profile.blocking}
    for operation, mark, function in (
        ("op", "# blocks", "block"),
        (None, "# blocks beside", "in_the_background"),
    ):
        number = next(n for n, line in enumerate(lines, 1) if line.endswith(f"  {mark}"))
        assert (operation, f"{number} in {function}") in blocking


async def test_a_connection_that_is_not_given_back_is_told_of(
    instruments: Instruments, engine: AsyncEngine
) -> None:
    kept = []

    async def leak() -> None:
        kept.append(await engine.connect())  # leaks
        await kept[-1].execute(text("SELECT 1"))

    async def close() -> None:
        async with engine.connect():
            pass

    for operation in (leak, close, leak):
        await of(instruments, operation())
    (found,) = instruments.leaks()
    assert (found.operation, found.connections, found.in_transaction) == ("op", 2, 2)
    assert found.source.endswith(" in leak")
    for connection in kept:
        await connection.close()
    assert instruments.leaks() == ()


async def test_a_connection_that_is_forgotten_is_told_of(
    instruments: Instruments, engine: AsyncEngine
) -> None:
    async def forget() -> None:
        connection = await engine.connect()
        await connection.execute(text("SELECT 1"))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # SQLAlchemy's own, of the same
        await of(instruments, forget())
        gc.collect()
    (found,) = instruments.leaks()
    assert (found.connections, found.collected) == (1, 1)
