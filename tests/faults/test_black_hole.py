"""A network on which nothing arrives any more: everything ends all the same, and in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from async_loader import OperationContext, RunResult, Stop, Workload, run
from async_loader.database.postgresql import closing, create_engine, create_sessions
from async_loader.database.run_schema import run_schema
from async_loader.errors import DatabaseError
from async_loader.load.runner.in_flight import FlightTask
from async_loader.load.server.statistics import ANSWER, SAMPLE_EVERY
from tests.faults.ledger import Ledger, by_kind, make_table, no_backend_is_left, under_load
from tests.faults.proxy import FaultProxy

pytestmark = pytest.mark.timeout(90)

OP_TIMEOUT = 1.0
# The promise: each operation ends within its timeout and five seconds.
ENDED = OP_TIMEOUT + 5.0


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[FaultProxy]:
    await make_table(database_url)
    async with FaultProxy(database_url) as proxy:
        yield proxy


class Timed:
    """How long operations were in flight, from their session's making to its close."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.longest = 0.0

    async def __call__(self, proxy: FaultProxy, hole: str, seconds: float) -> RunResult:
        """Run, fall into the hole after a while, and stop once work is done again."""
        stop = Stop()
        async with under_load(
            self.ledger.workload, proxy.url, op_timeout=OP_TIMEOUT, stop=stop
        ) as running:
            watching = asyncio.create_task(self._watch())
            await asyncio.sleep(0.5)
            proxy.black_hole(to_server=hole != "to client", to_client=hole != "to server")
            await asyncio.sleep(seconds)
            proxy.heal()
            await self._recovers()
            stop.request()
            result = await running
            watching.cancel()
            return result

    async def _recovers(self) -> None:
        """Wait for operations that are done; fail when it takes long."""
        done = self.ledger.count("ok")
        async with asyncio.timeout(30):
            while self.ledger.count("ok") < done + 100:
                await asyncio.sleep(0.05)

    async def _watch(self) -> None:
        """Note how old the oldest operation is that the run waits for: none that is abandoned."""
        while True:
            await asyncio.sleep(0.05)
            now = asyncio.get_running_loop().time()
            waited_for = [since for task, since in STARTED.items() if not task.of.ended]
            self.longest = max([self.longest, *(now - since for since in waited_for)])


STARTED: dict[FlightTask, float] = {}


@pytest.mark.parametrize(
    "hole", ["both ways", "to client", pytest.param("to server", marks=pytest.mark.soak)]
)
@pytest.mark.parametrize("seconds", [3.5, pytest.param(30, marks=pytest.mark.soak)])
async def test_operations_end_in_time_and_the_run_recovers(
    proxy: FaultProxy, database_url: str, admin: AsyncEngine, hole: str, seconds: float
) -> None:
    STARTED.clear()

    async def note(session: AsyncSession, op: OperationContext) -> None:
        task = asyncio.current_task()
        assert isinstance(task, FlightTask)
        STARTED[task] = asyncio.get_running_loop().time()
        task.add_done_callback(lambda ended: STARTED.pop(ended, None))

    ledger = Ledger(note)
    timed = Timed(ledger)
    result = await timed(proxy, hole, seconds)
    await no_backend_is_left(admin, make_url(database_url).database or "")
    committed = await ledger.reconcile(database_url, result)
    print(
        f"{hole}, {seconds} s: longest {timed.longest:.2f} s, {result.completed} ok,"
        f" {result.indeterminate} indeterminate, {committed} of them committed,"
        f" {result.failed} failed; {sorted(result.errors)}"
    )
    assert 0 < timed.longest < ENDED
    assert by_kind(result)["timeout"] >= 10


async def test_a_close_that_is_not_answered_is_broken_off(proxy: FaultProxy) -> None:
    """The session's close is shielded from cancellations; its ROLLBACK would wait for ever."""
    workload = Workload("never commits")

    @workload.operation("write", kind="write")
    async def write(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        proxy.black_hole()

    async with closing(create_engine(proxy.url, pool_size=2)) as engine:
        async with asyncio.timeout(30):  # "for ever" is longer, on the busiest machine
            result = await run(
                workload,
                sessions=create_sessions(engine),
                ops=1,
                concurrency=1,
                op_timeout=OP_TIMEOUT,
            )
        assert engine.pool.status().endswith("Current Checked out connections: 0")
    assert result.errors["timeout"].count == 1


@pytest.mark.parametrize("times", [1, 2])
async def test_a_stop_in_a_black_hole_ends_within_the_grace(proxy: FaultProxy, times: int) -> None:
    ledger = Ledger()
    stop = Stop()
    grace = 1 if times == 1 else 300
    async with under_load(
        ledger.workload, proxy.url, op_timeout=300, grace=grace, stop=stop
    ) as running:
        await asyncio.sleep(0.5)
        proxy.black_hole()
        await asyncio.sleep(0.5)  # what had its reply already ends, and the next are let in
        for _ in range(times):
            stop.request()
        async with asyncio.timeout(30):  # and the grace of two signals is 300 s
            result = await running
    assert result.outcome == "interrupted"
    assert by_kind(result) == {"cancelled": 10}


async def test_a_stop_of_a_set_up_in_a_black_hole(proxy: FaultProxy) -> None:
    workload = Workload("set up")
    begun = asyncio.Event()

    @workload.setup
    async def set_up(sessions: object) -> None:
        async with create_sessions(engine).begin() as session:
            await session.execute(text("SELECT 1"))
            proxy.black_hole()
            begun.set()

    @workload.operation("nothing", kind="read")
    async def nothing(session: AsyncSession) -> None:
        pass

    stop = Stop()
    async with closing(create_engine(proxy.url, pool_size=1)) as engine:
        running = asyncio.create_task(
            run(workload, sessions=create_sessions(engine), ops=1, stop=stop)
        )
        await begun.wait()
        stop.request()
        async with asyncio.timeout(10):
            assert (await running).outcome == "interrupted"


async def test_the_schema_is_given_up_in_time(proxy: FaultProxy) -> None:
    with pytest.raises(DatabaseError, match=r"could not be dropped \(no answer\)"):
        async with asyncio.timeout(20), run_schema(proxy.url):
            proxy.black_hole()


async def test_an_engine_closes_in_time(proxy: FaultProxy) -> None:
    """The pool's close says good-bye to each connection, and waits for the server's answer."""
    async with asyncio.timeout(10):
        async with closing(create_engine(proxy.url, pool_size=3)) as engine:
            for connection in [await engine.connect() for _ in range(3)]:
                await connection.close()
            proxy.black_hole()


@pytest.mark.parametrize("heals", [False, True])
async def test_the_servers_account_delays_no_end(proxy: FaultProxy, heals: bool) -> None:
    """What asks the server for its account is alone in the hole, and the run is over."""
    workload = Workload("elsewhere")
    stop = Stop()

    @workload.operation("elsewhere", kind="read")
    async def elsewhere(session: AsyncSession) -> None:
        await asyncio.sleep(0.01)

    async with closing(create_engine(proxy.url, pool_size=3)) as engine:
        async with engine.connect():
            pass  # one that is idle in the pool, to be flushed
        running = asyncio.create_task(
            run(
                workload,
                sessions=create_sessions(engine),
                duration=600,
                concurrency=2,
                server_side=True,
                stop=stop,
            )
        )
        while len(proxy.links) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(2 * SAMPLE_EVERY)
        proxy.black_hole()
        await asyncio.sleep(ANSWER + 3 * SAMPLE_EVERY if heals else 0)
        if heals:
            proxy.heal()
        stop.request()
        async with asyncio.timeout(2 * ANSWER):
            result = await running
    assert result.server_side is not None
    assert result.server_side.samples > 0
    assert result.server_side.database is None
    assert any("no account of the server" in note for note in result.server_side.notes)


async def test_a_server_that_ends_the_watch_ends_nothing_else(
    database_url: str, admin: AsyncEngine
) -> None:
    workload = Workload("killing")

    @workload.operation("kill", kind="read")
    async def kill(session: AsyncSession) -> None:
        await session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <>"
                " pg_backend_pid() AND datname = current_database()"
            )
        )
        await asyncio.sleep(3 * SAMPLE_EVERY)

    async with closing(create_engine(make_url(database_url), pool_size=1)) as engine:
        result = await run(
            workload, sessions=create_sessions(engine), ops=1, concurrency=1, server_side=True
        )
    assert result.completed == 1
    assert result.server_side is not None
    assert any("no account of the server" in note for note in result.server_side.notes)
    await no_backend_is_left(admin, make_url(database_url).database or "")
