"""
A worker's sign of life: a lease that it renews, and a lock that ends with its process.

The lease is a row of its own that no chunk waits for, renewed on a connection of its own while
chunks run, however long. Whose lease runs out is taken for dead: a frozen process, or one that
blocks its event loop. The lock only makes a killed worker's partitions free at once; behind a
pooler, where a lock is nobody's, there is none.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy import (
    Integer,
    and_,
    cast,
    delete,
    func,
    insert,
    literal,
    literal_column,
    not_,
    select,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from ..concurrency.tasks import within
from ..database.postgresql import break_off
from ..errors import JobError
from .connections import driver_of, kind_of
from .links import GIVES_BACK
from .states import SCHEMA
from .store import Store

BEATS_A_LEASE = 3  # the default lease of 30 s gives a heartbeat every 10 s
_RECONNECT = 1.0
# A link that is dead alone is given up when the lease is over, or behind this.
_LEAST_ANSWER = 2.0


class Guard:
    """This process as a worker on a run; `me` is its number."""

    def __init__(
        self, store: Store, run: int, *, tasks: int, lease: float, heard: Callable[[], None]
    ) -> None:
        self.me = 0
        self.throttled = 0.0
        self.throttled_why: str | None = None
        self._store = store
        self._run = run
        self._tasks = tasks
        self._lease = lease
        self._heard = heard  # called with each answer of the server's
        self._connection: AsyncConnection | None = None
        self._locked = self._locks = False
        self._nudge = asyncio.Event()

    def waiting(self, why: str, *, shown: bool) -> None:
        """Note why a task waits; `shown`: tell others now, not with the next beat."""
        self.throttled_why = why
        if shown:
            self._nudge.set()

    def waited(self, seconds: float) -> None:
        """Note that a task has waited."""
        self.throttled += seconds
        self.throttled_why = None

    async def join(self) -> None:
        """Take a number, its lock, and remove what the dead have left."""
        await self._disconnect()  # where this is a second attempt
        await self._connect()
        assert self._connection is not None
        worker = self._store.tables.worker
        row = {
            "run": self._run, "tasks": self._tasks, "fresh_until": self._fresh_until(),
            "locks": self._locks,
        }  # fmt: skip
        # With its lock in the same statement: nobody sees the one without the other.
        locked = func.pg_try_advisory_lock(*self._lock_key(worker.c.id))
        joining = insert(worker).values(row).returning(
            worker.c.id, locked if self._locks else true()
        )  # fmt: skip
        found = (await self._connection.execute(joining)).one()
        self.me, self._locked = int(found[0]), bool(found[1])
        dead = [worker.c.run == self._run, worker.c.id != self.me]
        if self._store.has_advisory_locks:
            dead += [not_(self._store.lives()), worker.c.fresh_until < func.now()]
        await self._connection.execute(delete(worker).where(and_(*dead)))
        await self._connection.commit()

    async def beat_for_ever(self) -> None:
        """Beat; a connection that was lost is made anew, with the lock."""
        pause = self._lease / BEATS_A_LEASE
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):  # 3.11's wait_for may lose a cancellation
                    await self._nudge.wait()
            self._nudge.clear()
            try:
                await within(self.beat(), max(self._lease, _LEAST_ANSWER), self._break_off)
                self._heard()
                pause = self._lease / BEATS_A_LEASE
            except Exception:  # SQLAlchemy 2.0 passes some of asyncpg's on as they are
                await self._disconnect()
                pause = min(_RECONNECT, pause)

    async def beat(self) -> None:
        """Say that we live. Others may have taken us for dead and removed our row."""
        if self._connection is None:
            await self._connect()
        assert self._connection is not None
        if not self._locked:
            await self._lock()
        worker = self._store.tables.worker
        values: dict[str, Any] = {
            "fresh_until": self._fresh_until(),
            "throttled": self.throttled,
            "throttled_why": self.throttled_why,
            "locks": self._locks,
        }
        ours = update(worker).where(worker.c.id == self.me).values(values)
        result: Any = await self._connection.execute(ours)
        if result.rowcount == 0:
            row = {"id": self.me, "run": self._run, "tasks": self._tasks, **values}
            await self._connection.execute(insert(worker).values(row))
        await self._connection.commit()

    def _break_off(self) -> None:
        its = None if self._connection is None else self._connection.sync_connection
        with suppress(Exception):  # it may be closed by now
            if its is not None:
                break_off(driver_of(its))

    async def retire(self) -> None:
        """Let go of the lock in good order, and give its connection back."""
        if self._connection is None:
            return
        with suppress(Exception):  # whatever it is, `leave` lets go of it in its own way
            if not self._locks or await self._unlock():
                await self._connection.close()
                self._connection = None

    async def leave(self) -> None:
        """Let go of the lock, where we have not, by ending its connection."""
        await self._disconnect()

    async def _connect(self) -> None:
        connection = await self._store.engine.connect()
        # Bounded by itself, and kept: nobody else tells whether its COMMIT was answered.
        self._connection = await connection.execution_options(**{GIVES_BACK: False})
        if self._store.direct:
            await self._connection.execution_options(isolation_level="AUTOCOMMIT")
            self._locks = (await kind_of(self._connection)).direct

    async def _disconnect(self) -> None:
        connection, self._connection, self._locked = self._connection, None, False
        if connection is not None:
            with suppress(Exception):
                # Back in the pool it would keep the lock: session locks end with the session.
                await connection.invalidate()
            with suppress(Exception):
                await connection.close()

    async def _lock(self) -> None:
        if self._locks:
            assert self._connection is not None
            query = select(func.pg_try_advisory_lock(*self._lock_key(literal(self.me))))
            self._locked = bool(await self._connection.scalar(query))

    async def _unlock(self) -> bool:
        assert self._connection is not None
        query = select(func.pg_advisory_unlock(*self._lock_key(literal(self.me))))
        return bool(await self._connection.scalar(query))

    def _fresh_until(self) -> Any:
        if not self._store.has_advisory_locks:
            return func.now()
        return literal_column(f"now() + interval '{self._lease:f} seconds'")

    def _lock_key(self, worker: Any) -> tuple[Any, Any]:
        """Return the two halves of the key of a worker's lock: ours, and its number's low bits."""
        ours = literal(self._store.tables.lock_class)
        return ours, cast(worker.bitwise_and(0x7FFFFFFF), Integer)


@asynccontextmanager
async def alone(store: Store) -> AsyncIterator[None]:
    """Hold a SQLite file's one lock of all jobs; raises `JobError` while another does."""
    if store.has_advisory_locks:
        yield
        return
    path = f"{store.engine.url.database}.{SCHEMA}.lock"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JobError(
                f"another worker has {store.engine.url.database}: SQLite takes one at a time"
            ) from None
        yield
    finally:
        os.close(descriptor)
