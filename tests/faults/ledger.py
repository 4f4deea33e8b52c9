"""
What each operation was told, to be reconciled with what the database holds.

The runner counts; the ledger knows each operation by its number. An operation that writes one
row is explained when: it was told that it is done, and the row is there; it failed, and the
row is not there; or nobody told it, and it may be either.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from sqlalchemy import BigInteger, func, insert, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from async_loader import OperationContext, RunResult, Workload, run
from async_loader.database.postgresql import closing, create_engine, create_sessions
from async_loader.failures.classification import classify

Told = Literal["ok", "failed", "indeterminate"]
TOLD: tuple[Told | None, ...] = (None, "indeterminate", "failed", "ok")
Step = Callable[[AsyncSession, OperationContext], Awaitable[None]]


class Base(DeclarativeBase):
    pass


class Entry(Base):
    __tablename__ = "entry"

    operation: Mapped[int] = mapped_column(BigInteger, primary_key=True)


class Ledger:
    """The workload whose every operation writes its number, and what each was told."""

    def __init__(self, before: Step | None = None) -> None:
        # A byte for each operation: a soak has millions.
        self._told = bytearray()
        self.cancelled = 0
        self.workload = Workload("ledger")
        self._before = before
        self.workload.operation("write", kind="write")(self._write)

    @property
    def told(self) -> dict[int, Told]:
        """What each operation that began was told."""
        return {i: told for i, code in enumerate(self._told) if (told := TOLD[code]) is not None}

    def count(self, told: Told) -> int:
        return self._told.count(TOLD.index(told))

    def _note(self, index: int, told: Told) -> None:
        self._told.extend(bytes(max(0, index + 1 - len(self._told))))
        self._told[index] = TOLD.index(told)

    async def _write(self, session: AsyncSession, op: OperationContext) -> None:
        self._note(op.index, "indeterminate")  # until it is told otherwise
        try:
            if self._before is not None:
                await self._before(session, op)
            await session.execute(insert(Entry).values(operation=op.index))
            await session.commit()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        except Exception as error:
            if not classify(error).reply_lost:
                self._note(op.index, "failed")
            raise
        self._note(op.index, "ok")

    async def reconcile(self, url: str, result: RunResult | None = None) -> int:
        """
        Check every operation against the table; return how many indeterminate ones are there.

        And check the runner's counts against the ledger, where they are given.
        """
        found = await entries(url)
        told = self.told
        ok = {index for index, what in told.items() if what == "ok"}
        failed = {index for index, what in told.items() if what == "failed"}
        assert ok <= found, f"acknowledged and missing: {sorted(ok - found)[:10]}"
        assert not failed & found, f"failed and there: {sorted(failed & found)[:10]}"
        assert found <= set(told), "rows of operations that never ran"
        if result is not None:
            # A session may fail or be cancelled in its close, after its commit was told.
            assert result.completed <= len(ok)
            assert result.failed + result.indeterminate >= len(told) - len(ok)
            assert result.completed + result.failed + result.indeterminate == len(told)
        return len(found - ok)


def by_kind(result: RunResult) -> Counter[str]:
    """Return how many operations failed of what, at whatever line of theirs."""
    counts: Counter[str] = Counter()
    for error in result.errors.values():
        counts[error.kind] += error.count
    return counts


@asynccontextmanager
async def under_load(
    workload: Workload, url: str | URL, *, workers: int = 10, **options: Any
) -> AsyncIterator[asyncio.Task[RunResult]]:
    """Yield the run of a workload, which goes on until the block ends it; then close its pool."""
    async with closing(create_engine(make_url(url), pool_size=workers)) as engine:
        options = {"duration": 36_000, **options} if "ops" not in options else options
        yield asyncio.create_task(
            run(workload, sessions=create_sessions(engine), concurrency=workers, **options)
        )
    assert engine.pool.status().endswith("Current Checked out connections: 0")


async def make_table(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()


async def entries(url: str) -> set[int]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        numbers = (await connection.scalars(select(Entry.operation))).all()
        count = await connection.scalar(select(func.count()).select_from(Entry))
    await engine.dispose()
    assert len(numbers) == count
    return set(numbers)


async def backends(admin: AsyncEngine, database: str) -> int:
    """Return how many clients the server knows of in a database."""
    async with admin.connect() as connection:
        count = await connection.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = :name AND backend_type = 'client backend'"
            ),
            {"name": database},
        )
    return int(count or 0)


async def no_backend_is_left(admin: AsyncEngine, database: str, within: float = 5.0) -> None:
    """Wait until the server knows no client of a database any more; fail when it takes long."""
    async with asyncio.timeout(within):
        while await backends(admin, database):
            await asyncio.sleep(0.05)
