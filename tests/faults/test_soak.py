"""Twenty minutes of faults at random: nothing is lost, nothing hangs, nothing is leaked."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from async_loader import OperationContext, Stop
from async_loader.database.postgresql import closing, create_engine
from tests.faults.ledger import Ledger, make_table, under_load
from tests.faults.proxy import FaultProxy
from tests.faults.server import Server, new_server

SECONDS = float(os.environ.get("SOAK_SECONDS", "1200"))
WORKERS = 10
Fault = Callable[[], Awaitable[None]]

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS + 300)]


@pytest.fixture
def own_server() -> Iterator[Server]:
    with new_server() as server:
        yield server


class Faults:
    """What can happen; each fault ends with everything as it was."""

    def __init__(self, server: Server, proxy: FaultProxy, dice: random.Random) -> None:
        self._server = server
        self._proxy = proxy
        self._dice = dice

    async def reset(self) -> None:
        self._proxy.reset()

    async def lose_replies(self) -> None:
        self._proxy.lose_replies_to_commit(self._dice.randint(1, 2 * WORKERS))

    async def black_hole(self) -> None:
        self._proxy.black_hole(to_server=self._dice.random() < 0.7)
        await asyncio.sleep(self._dice.random() * 5)
        self._proxy.heal()

    async def refuse(self) -> None:
        self._proxy.refuse()
        self._proxy.reset()
        await asyncio.sleep(self._dice.random() * 3)
        await self._proxy.listen()

    async def slow(self) -> None:
        self._proxy.delay = self._dice.random() * 0.05
        await asyncio.sleep(self._dice.random() * 3)
        self._proxy.delay = 0.0

    async def terminate_backends(self) -> None:
        engine = create_async_engine(self._server.url)
        async with engine.connect() as connection:
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type"
                    " = 'client backend' AND pid <> pg_backend_pid() AND random() < 0.5"
                )
            )
        await engine.dispose()

    async def restart(self) -> None:
        await asyncio.to_thread(self._server.stop)
        await asyncio.to_thread(self._server.start)

    async def kill(self) -> None:
        await asyncio.to_thread(self._server.kill)
        await asyncio.to_thread(self._server.start)

    def all(self) -> list[Fault]:
        common = [self.reset, self.lose_replies, self.black_hole, self.refuse, self.slow]
        return [*common, *common, self.terminate_backends, self.restart, self.kill]


def footprint() -> Counter[str]:
    """What this process holds: memory, tasks, sockets."""
    gc.collect()
    process = psutil.Process()
    return Counter(
        rss=process.memory_info().rss,
        tasks=len(asyncio.all_tasks()),
        descriptors=process.num_fds(),
    )


async def test_faults_at_random(own_server: Server) -> None:
    dice = random.Random(4711)
    await make_table(own_server.url)
    stop = Stop()

    async def think(session: AsyncSession, op: OperationContext) -> None:
        await asyncio.sleep(0.01)

    ledger = Ledger(think)
    before = footprint()
    happened: Counter[str] = Counter()
    async with FaultProxy(own_server.url) as proxy:
        async with under_load(
            ledger.workload, proxy.url, workers=WORKERS, op_timeout=2, stop=stop
        ) as running:
            faults = Faults(own_server, proxy, dice).all()
            loop = asyncio.get_running_loop()
            end, early = loop.time() + SECONDS, None
            while loop.time() < end:
                fault = dice.choice(faults)
                happened[fault.__name__] += 1
                await fault()
                await asyncio.sleep(dice.random() * 3)
                assert not running.done()
                if early is None and loop.time() > end - SECONDS * 2 / 3:
                    early = footprint()
            await asyncio.sleep(8)  # the last fault's operations time out
            late = footprint()
            stop.request()
            result = await running
        own = create_engine(make_url(own_server.url), pool_size=1)
    async with closing(own):
        committed = await ledger.reconcile(own_server.url, result)
    after = footprint()
    print(
        f"{sum(happened.values())} faults in {result.seconds:.0f} s {dict(happened)}:"
        f" {result.completed} ok, {result.failed} failed, {result.indeterminate} indeterminate of"
        f" which {committed} committed; { ({n: e.count for n, e in result.errors.items()}) };"
        f" before {before}, early {early}, late {late}, after {after}"
    )
    assert early is not None
    assert late["rss"] - early["rss"] < 30 << 20
    assert late["tasks"] <= early["tasks"] + 4 * WORKERS  # those of the proxy's links
    assert after["tasks"] == before["tasks"]
    assert after["descriptors"] <= before["descriptors"] + 2
    assert all(throughput > 0 for throughput in result.series.throughput[-3:-1])
