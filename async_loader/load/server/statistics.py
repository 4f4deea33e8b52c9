"""
The server's own account of a run: what `pg_stat_database` and `pg_stat_statements` counted
meanwhile, and what `pg_stat_activity` showed connections waiting for.

Nothing that is waited for here outlasts `ANSWER` seconds, whatever has become of the server, and
nothing that fails is more than a note.
"""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from ...concurrency.tasks import holder, within
from ...database.postgresql import first_line
from ...results.findings import DatabaseCounts, ServerSide
from ..instruments import PoolWatch
from .queries import Look, Totals, difference

SAMPLE_EVERY = 0.25
"""Seconds between two looks at what connections wait for."""

ANSWER = 2.0
_KEPT = 20


@asynccontextmanager
async def server_watch(
    engine: object, pool: PoolWatch | None, *, wanted: bool
) -> AsyncIterator[ServerWatch]:
    """
    Yield the watch of an engine's server, which dies with the block.

    It does nothing where it is not wanted, or the engine is not PostgreSQL's.
    """
    watched = None
    if wanted and isinstance(engine, AsyncEngine) and engine.dialect.name == "postgresql":
        watched = engine
    watch = ServerWatch(watched, pool)
    try:
        yield watch
    finally:
        await watch.close()


@dataclass(frozen=True, slots=True)
class _Before:
    """What the server had counted when the run began."""

    database: DatabaseCounts
    totals: Totals | None


class ServerWatch:
    """
    Asks one server for its account of what happens between `begin` and `end`.

    A server that stops to answer makes the account incomplete, with a note, and nothing else.
    """

    def __init__(self, engine: AsyncEngine | None, pool: PoolWatch | None) -> None:
        self._engine = engine
        self._pool = pool
        self._look: Look | None = None
        self._before: _Before | None = None
        self._waits: Counter[str] = Counter()
        self._samples = 0
        self._failure: str | None = None
        self._over = asyncio.Event()
        self._sampler: Task[None] | None = None

    async def begin(self) -> None:
        """Note what the server has counted so far, and begin to sample."""
        if self._engine is not None:
            self._before = await self._answer(self._look_before(self._engine))
        if self._before is not None:
            self._sampler = asyncio.create_task(self._sample())

    async def end(self) -> ServerSide | None:
        """Return the account since `begin`; None where no server was asked."""
        self._over.set()
        account = None
        if self._sampler is not None:
            await self._sampler
        if self._before is not None and self._failure is None:
            account = await self._answer(self._look_after(self._before))
        if self._look is None and self._failure is None:
            return None
        return account or self._account()

    async def close(self) -> None:
        """Let go of the connection, without waiting for a server that is gone."""
        self._over.set()
        if self._sampler is not None and not self._sampler.done():
            self._break_off()  # the run was cancelled
            await asyncio.wait({self._sampler})
        if self._look is not None:
            await self._answer(self._look.close())
            self._break_off()

    async def _answer(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Return what the server answers in time, else None and the reason as a note."""
        try:
            return await within(work, ANSWER, self._break_off)
        except Exception as error:
            self._failure = f"no account of the server: {first_line(error)}"
            return None

    def _break_off(self) -> None:
        if self._look is not None:
            self._look.break_off()
        if self._pool is not None:
            self._pool.break_off(self)

    async def _look_before(self, engine: AsyncEngine) -> _Before:
        holder.set(self)  # of the pool's connections, which are flushed
        look = self._look = await Look.at(engine)
        await look.survey()
        await look.flush()
        look.asked = 0
        return _Before(await look.database(), await look.totals())

    async def _look_after(self, before: _Before) -> ServerSide:
        holder.set(self)
        look = self._look
        assert look is not None
        await look.flush()
        ours = look.asked
        database = _since(before.database, await look.database(), ours)
        after = await look.totals()
        if before.totals is None or after is None:
            return self._account(database=database)
        statements = await look.statements(difference(before.totals, after))
        return self._account(
            database=database,
            statements=tuple(statements[:_KEPT]),
            calls=sum(statement.calls for statement in statements),
            total_ms=sum(statement.total_ms for statement in statements),
            rows=sum(statement.rows for statement in statements),
        )

    def _account(self, **counted: Any) -> ServerSide:
        notes = tuple(self._look.notes) if self._look is not None else ()
        return ServerSide(
            waits=dict(self._waits.most_common()),
            samples=self._samples,
            notes=notes if self._failure is None else (*notes, self._failure),
            **counted,
        )

    async def _sample(self) -> None:
        """Look at what connections wait for, now and then, until it is over or goes wrong."""
        assert self._look is not None
        while not self._over.is_set():
            seen = await self._answer(self._look.waits())
            if seen is None:
                return
            self._waits.update(seen)
            self._samples += 1
            try:
                await asyncio.wait_for(self._over.wait(), SAMPLE_EVERY)
            except TimeoutError:
                continue


def _since(before: DatabaseCounts, after: DatabaseCounts, ours: int) -> DatabaseCounts:
    """Return the difference, without our own transactions; 0 for what was reset in between."""
    counted = {
        f.name: getattr(after, f.name) - getattr(before, f.name) for f in fields(DatabaseCounts)
    }
    counted["commits"] -= ours
    return DatabaseCounts(**{name: max(count, 0) for name, count in counted.items()})
