"""
The rows of the error table, each applied once more in a transaction of its own.

Its line in the error table is the fence: it is locked, and goes with the last act of the
transaction that applies the row. A row that was applied has no line any more, whoever asks again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, and_, func, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncSession

from ..database.postgresql import first_line
from ..errors import JobError
from ..failures.classification import sqlstate_of
from .applying import Fenced
from .chunks import Chunks
from .definition import Chunk
from .fence import error_fence
from .outcomes import ApplyFailed, ApplyRefusedError, Retry, TakenOver, again_elsewhere
from .preparing import PrepareAgain, Prepared
from .reader import Reader
from .rows import our_settings, read_rows, read_with_versions
from .transaction import ChunkTransaction
from .transient import RetryBudget


@dataclass(frozen=True, slots=True)
class Retried:
    """How many rows are repaired, and how many still fail."""

    repaired: int
    failing: int


async def retry_errors(chunks: Chunks, reader: Reader, patience: RetryBudget) -> Retried:
    """Apply each row of the error table of a run; those that still fail stay there."""
    error = chunks.store.tables.error
    keys = select(error.c.key).where(error.c.run == chunks.run).order_by(error.c.key)
    repaired = failing = 0
    for (key,) in await reader.all(keys):
        outcome = await _retry_one(chunks, reader, key, patience)
        repaired, failing = repaired + outcome, failing + (not outcome)
    return Retried(repaired, failing)


async def _retry_one(chunks: Chunks, reader: Reader, key: str, patience: RetryBudget) -> bool:
    prepared = Prepared()
    while True:
        try:
            await _apply_one(chunks, key, prepared)
        except PrepareAgain:
            continue
        except Retry as retry:  # the line, or its absence, tells what became of it
            await reader.sleep(patience.next_pause(retry.__cause__ or retry))
            continue
        except TakenOver:
            return True
        except JobError:
            raise
        except Exception as error:
            if isinstance(error, ApplyRefusedError) and error.loose:
                raise
            cause = error.__cause__ if isinstance(error, ApplyFailed) else error
            assert cause is not None
            await reader.retry_transient(lambda e=cause: _note(chunks, key, e))  # type: ignore[misc]
            return False
        return True


async def _apply_one(chunks: Chunks, key: str, prepared: Prepared) -> None:
    keyset, store = chunks.keyset, chunks.store
    assert keyset is not None
    if chunks.preparer is not None:
        page = keyset.at(key, keys=True)
        await chunks.preparer.prepare(page, prepared)
    place = {"in_run": chunks.run, "in_key": key}
    fence = error_fence(store.tables)
    fenced = Fenced(chunks.sessions, fence, place, 0, lambda: f"the row {keyset.describe(key)}")

    def read(session: AsyncSession) -> Sequence[Any]:
        return () if chunks.preparer else read_rows(session, keyset, keyset.at(key))

    async def within(
        session: AsyncSession, transaction: ChunkTransaction, rows: Sequence[Any]
    ) -> None:
        error = await _line(session, store.tables.error, place)
        values: Sequence[Any] = ()
        if chunks.preparer is not None:
            async with our_settings(session, keyset):
                found = await read_with_versions(session, keyset, keyset.at(key, keys=True))
            rows = [row for _, row in found.values()]
            values = prepared.values(found, chunks.preparer.policy)
        if rows:  # else it is gone, or not the select's any more
            chunk = _chunk_of(chunks, error)
            await fenced.call(chunks.apply, session, transaction, rows, chunk, prepared=values)

    try:
        await fenced.run(within, lambda _written: {}, read)
    except Retry as retry:
        if fenced.elsewhere:
            raise again_elsewhere(chunks.definition.name, fenced.rows(), retry) from retry
        raise


async def _line(session: AsyncSession, table: Table, place: Mapping[str, Any]) -> RowMapping:
    line = and_(table.c.run == place["in_run"], table.c.key == place["in_key"])
    return (await session.execute(select(table).where(line))).mappings().one()


def _chunk_of(chunks: Chunks, error: RowMapping) -> Chunk:
    return Chunk(chunks.run, error["partition"], error["chunk"], chunks.arguments)


async def _note(chunks: Chunks, key: str, cause: BaseException) -> None:
    """Write down how the row failed this time."""
    table = chunks.store.tables.error
    line = and_(table.c.run == chunks.run, table.c.key == key)
    values: Mapping[str, Any] = {**told(cause), "failed_at": func.now()}
    async with chunks.store.engine.begin() as connection:
        await connection.execute(update(table).where(line).values(values))


def told(cause: BaseException) -> dict[str, Any]:
    """Return an exception as the error table keeps it: the driver's own, where it is one's."""
    name = type(cause).__name__
    link: BaseException | None = cause
    while link is not None:
        if getattr(link, "sqlstate", None) is not None:
            name = type(link).__name__
        link = getattr(link, "orig", None) or link.__cause__
    return {"exception": name, "sqlstate": sqlstate_of(cause), "message": first_line(cause)}


def require_select(chunks: Chunks) -> None:
    """Raise `JobError` for a job of one transaction, which has no rows to retry."""
    if chunks.keyset is None:
        raise JobError(f"{chunks.definition.name} reads no rows: run it again")
