"""Jobs behind PgBouncer in transaction mode, where each transaction has another session."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import NullPool, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from async_loader.database.embedded import EmbeddedServer
from async_loader.jobs import BatchJob
from tests.counting import Counter, counting, fill, tally
from tests.folders import in_memory, short_folder

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer here")

CONFIGURATION = """
[databases]
* = host={host} port={port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 6
server_idle_timeout = 1
server_lifetime = 2
"""


@pytest.fixture(scope="module")
def pooler(server: EmbeddedServer) -> Iterator[int]:
    """The port of a PgBouncer before the server; its sessions live for two seconds at most."""
    url = make_url(server.url)
    host = str(url.query.get("host") or url.host)
    port = url.query.get("port") or url.port or 5432
    owner = Path(host).stat() if host.startswith("/") else None
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder(in_memory()))
        folder.chmod(0o755)
        listen = free_port()
        path = folder / "pgbouncer.ini"
        path.write_text(CONFIGURATION.format(host=host, port=port, listen=listen))
        path.chmod(0o644)
        user: dict[str, Any] = {} if owner is None else {"user": owner.st_uid}
        assert PGBOUNCER is not None
        process = stack.enter_context(
            subprocess.Popen([PGBOUNCER, str(path)], stderr=subprocess.DEVNULL, **user)
        )
        stack.callback(process.terminate)
        while True:
            assert process.poll() is None, "pgbouncer has ended"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", listen)) == 0:
                    break
        yield listen


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(params=["asyncpg", "psycopg"])
async def pooled(
    request: pytest.FixtureRequest, pooler: int, engine: AsyncEngine
) -> AsyncIterator[AsyncEngine]:
    """An engine as one is made for a pooler: no pool of its own, no statements that are kept."""
    options: dict[str, Any] = {"prepare_threshold": None}
    if request.param == "asyncpg":
        options = {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"s_{uuid4().hex}",
        }
    pooled = create_async_engine(
        f"postgresql+{request.param}://postgres@127.0.0.1:{pooler}/{engine.url.database}",
        poolclass=NullPool,
        connect_args=options,
    )
    yield pooled
    await pooled.dispose()


async def test_every_row_once_and_no_lock_is_left(pooled: AsyncEngine, engine: AsyncEngine) -> None:
    await fill(engine, 3_000)
    jobs = [counting(lease=3.0).run(async_sessionmaker(pooled), workers=2) for _ in range(2)]
    for done in await asyncio.gather(*jobs):
        assert done.state == "done"
    assert set(await tally(engine)) <= {1, 2}  # a second run, where one came when all was done
    assert len(await tally(engine)) == 1
    locks = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    async with engine.connect() as connection:
        assert await connection.scalar(locks) == 0


async def test_a_worker_outlives_its_sessions(pooled: AsyncEngine, engine: AsyncEngine) -> None:
    """PgBouncer closes a session that was idle: whose lock had been there would seem dead."""
    await fill(engine, 200)
    job = BatchJob("counting", select=select(Counter), chunk=100, partitions=1, lease=9.0)
    calls: list[int] = []
    begun = asyncio.Event()

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        calls.append(counters[0].id)
        for counter in counters:
            counter.n += 1
        begun.set()
        await asyncio.sleep(2.5)  # longer than a session of the pooler's lives

    running = asyncio.create_task(job.run(async_sessionmaker(pooled)))
    await begun.wait()
    other = asyncio.create_task(counting(lease=9.0).run(async_sessionmaker(engine)))
    assert (await running).state == (await other).state == "done"
    assert len(calls) == len(set(calls))
    assert await tally(engine) == {1: 200}


async def test_who_dies_behind_a_pooler_is_followed_when_the_lease_is_over(
    pooled: AsyncEngine, engine: AsyncEngine
) -> None:
    await fill(engine, 300)
    begun = asyncio.Event()
    job = BatchJob("counting", select=select(Counter), chunk=100, partitions=1, lease=1.0)

    @job.apply
    async def apply(session: AsyncSession, counters: Sequence[Counter]) -> None:
        counters[0].n += 1
        await session.flush()
        begun.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(job.run(async_sessionmaker(pooled)))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    done = await counting(partitions=1, lease=1.0).run(async_sessionmaker(engine))
    assert done.rows_read == 300
    assert await tally(engine) == {1: 300}
