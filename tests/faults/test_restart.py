"""A server that goes away under load, and comes back, or does not."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from async_loader import RunResult, Stop
from async_loader.database.run_schema import PREFIX, run_schema
from async_loader.database.urls import parse_url
from tests.faults.ledger import Ledger, make_table, under_load
from tests.faults.server import Server, new_server

CLASSES = (
    "57P01 ", "57P02 ", "57P03 ", "08003 ", "08006 ", "connection ", "no such server", "53300 "
)  # fmt: skip


@pytest.fixture
def own_server() -> Iterator[Server]:
    with new_server() as server:
        yield server


class Outages:
    """Faults under load, and when the ledger was written again after each."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.recovered_after: list[float] = []

    async def next_success(self) -> None:
        before = self._ledger.count("ok")
        while self._ledger.count("ok") <= before:
            await asyncio.sleep(0.01)

    async def cause(self, fault: Callable[[], None]) -> None:
        """Let the fault happen, which ends with a ready server, and wait for a success."""
        await self.next_success()
        await asyncio.to_thread(fault)
        ready = asyncio.get_running_loop().time()
        await self.next_success()
        self.recovered_after.append(asyncio.get_running_loop().time() - ready)


async def run_through(url: str, ledger: Ledger, faults: Callable[[], Awaitable[None]]) -> RunResult:
    """Run the ledger's workload while the faults happen, and stop it after them."""
    await make_table(url)
    stop = Stop()
    async with under_load(ledger.workload, url, op_timeout=10, stop=stop) as running:
        await faults()
        stop.request()
        return await running


# What was opened and fails in SQLAlchemy's own first statement is left to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.soak)])
@pytest.mark.parametrize("fault", ["stop", "kill"])
async def test_a_restart_is_an_outage_and_no_more(
    own_server: Server, fault: str, times: int
) -> None:
    ledger = Ledger()
    outages = Outages(ledger)

    def restart() -> None:
        own_server.kill() if fault == "kill" else own_server.stop()
        own_server.start()

    async def restarts() -> None:
        for _ in range(times):
            await outages.cause(restart)

    result = await run_through(own_server.url, ledger, restarts)
    committed = await ledger.reconcile(own_server.url, result)
    print(
        f"{fault} x {times}: recovered after {[f'{s:.2f}' for s in outages.recovered_after]} s;"
        f" {result.completed} ok, {result.failed} failed, {result.indeterminate} indeterminate of"
        f" which {committed} committed; {sorted(result.errors)}"
    )
    # The promise is 2 s on a machine that does nothing else; CI's does.
    assert max(outages.recovered_after) < (2.0 if times == 10 else 20.0)
    assert sum(result.series.failed) == result.failed + result.indeterminate > 0
    assert all(name.startswith(CLASSES) for name in result.errors), result.errors
    # Backing off: a worker fails a few times in an outage, not thousands of times.
    assert result.failed < 10 * 20 * times
    gc.collect()


@pytest.mark.timeout(60)
async def test_a_server_that_never_comes_back_ends_the_run(own_server: Server) -> None:
    await make_table(own_server.url)
    ledger = Ledger()
    outages = Outages(ledger)
    async with under_load(
        ledger.workload, own_server.url, ops=1_000_000, op_timeout=1, give_up=3
    ) as running:
        await outages.next_success()
        own_server.kill()
        result = await running
    assert result.outcome == "aborted"
    assert result.completed == ledger.count("ok") > 0
    assert result.failed < 1000
    own_server.start()
    await ledger.reconcile(own_server.url, result)


@pytest.mark.timeout(60)
async def test_the_guard_comes_back_before_a_sweep_takes_the_schema(own_server: Server) -> None:
    url = parse_url(own_server.url)
    async with run_schema(url) as living:
        await asyncio.to_thread(own_server.kill)
        await asyncio.to_thread(own_server.start)
        async with run_schema(url) as next_run:  # removes what it takes for a dead run's
            assert await schemas(own_server.url) == {living, next_run}
        engine = create_async_engine(own_server.url, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                )
            )
            async with run_schema(url) as next_run:
                assert await schemas(own_server.url) == {living, next_run}
        await engine.dispose()
    assert await schemas(own_server.url) == set()


async def schemas(url: str) -> set[str]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        names = await connection.scalars(
            text(f"SELECT nspname FROM pg_namespace WHERE nspname LIKE '{PREFIX}%'")
        )
        found = set(names)
    await engine.dispose()
    return found
