"""A server or a pool with fewer connections than there are operations in flight."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.engine import make_url

from async_loader import run
from async_loader.database.embedded import cluster
from async_loader.database.postgresql import closing, create_engine, create_sessions
from tests.faults.ledger import Ledger, make_table
from tests.faults.server import Server, new_server

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def small_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Twenty connections, three of them for superusers: we are one, and take them all."""
    monkeypatch.setitem(cluster.SETTINGS, "max_connections", "20")
    with new_server() as server:
        yield server


@pytest.mark.parametrize("ops", [1500, pytest.param(35_000, marks=pytest.mark.soak)])
async def test_a_full_server_is_named_and_the_run_finishes_with_fewer(
    small_server: Server, ops: int
) -> None:
    await make_table(small_server.url)
    ledger = Ledger()
    async with closing(create_engine(make_url(small_server.url), pool_size=25)) as engine:
        result = await run(
            ledger.workload, sessions=create_sessions(engine), ops=ops, concurrency=25
        )
    await ledger.reconcile(small_server.url, result)
    print(f"{ops} operations: {result.failed} refused in {result.seconds:.1f} s")
    assert result.outcome == "done"
    assert set(result.errors) == {"53300 too_many_connections"}
    assert result.completed + result.failed == ops
    # Five workers too many: without back-off they would fail as fast as they can connect.
    assert 5 <= result.failed < 100
    assert result.indeterminate == 0


async def test_a_small_pool_is_pool_wait_and_not_database_time(database_url: str) -> None:
    await make_table(database_url)
    ledger = Ledger()
    async with closing(create_engine(make_url(database_url), pool_size=1)) as engine:
        result = await run(ledger.workload, sessions=create_sessions(engine), ops=400,
                           concurrency=20)  # fmt: skip
    await ledger.reconcile(database_url, result)
    assert result.completed == 400
    assert result.pool is not None
    assert (result.pool.size, result.pool.peak_in_use) == (1, 1)
    assert result.pool.peak_waiting >= 19
    split = result.by_operation["write"].split
    assert split is not None
    # Nineteen of twenty wait for the one that works.
    assert split.pool_wait.mean_ns > 5 * split.database.mean_ns
