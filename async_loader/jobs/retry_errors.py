"""
The rows of the error table, each applied once more in a transaction of its own.

Its line in the error table is the fence: it is locked, and goes in the transaction that
applies the row. A row that was applied has no line any more, whoever asks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, and_, delete, func, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncSession

from ..database.postgresql import first_line
from ..errors import JobError
from ..failures import sqlstate_of
from .chunks import ApplyFailed, Chunks, Retry, TakenOver, Watch, commit
from .definition import Chunk
from .reader import Reader
from .rows import read_rows
from .transient import Patience, is_transient


@dataclass(frozen=True, slots=True)
class Retried:
    """How many rows are repaired, and how many still fail."""

    repaired: int
    failing: int


async def retry_errors(chunks: Chunks, reader: Reader, patience: Patience) -> Retried:
    """Apply each row of the error table of a run; those that still fail stay there."""
    error = chunks.store.tables.error
    keys = select(error.c.key).where(error.c.run == chunks.run).order_by(error.c.key)
    repaired = failing = 0
    for (key,) in await reader.all(keys):
        outcome = await _retry_one(chunks, reader, key, patience)
        repaired, failing = repaired + outcome, failing + (not outcome)
    return Retried(repaired, failing)


async def _retry_one(chunks: Chunks, reader: Reader, key: str, patience: Patience) -> bool:
    while True:
        try:
            await _apply_one(chunks, key)
        except Retry as retry:  # the line, or its absence, tells what became of it
            await reader.sleep(patience.next_pause(retry.__cause__ or retry))
            continue
        except TakenOver:
            return True
        except Exception as error:
            cause = error.__cause__ if isinstance(error, ApplyFailed) else error
            assert cause is not None
            await reader.patiently(lambda e=cause: _note(chunks, key, e))  # type: ignore[misc]
            return False
        return True


async def _apply_one(chunks: Chunks, key: str) -> None:
    table = chunks.store.tables.error
    line = and_(table.c.run == chunks.run, table.c.key == key)
    assert chunks.keyset is not None
    async with chunks.sessions() as session:
        try:
            error = await _take(session, table, line)
            rows = await read_rows(session, chunks.keyset, chunks.keyset.at(key))
            watch = Watch(session)
            if rows:  # else it is gone, or not the select's any more
                await chunks.apply_rows(session, rows, _chunk_of(chunks, error))
                watch.check(session)
                await session.flush()
            watch.release()
            await commit(session)
        except (TakenOver, Retry):
            raise
        except Exception as failure:
            if is_transient(failure, applying=isinstance(failure, ApplyFailed)):
                raise Retry from failure
            raise


async def _take(session: AsyncSession, table: Table, line: Any) -> RowMapping:
    """Delete a line, which locks it: a second one that waited finds nothing to delete."""
    gone = await session.execute(delete(table).where(line).returning(table))
    error = gone.mappings().first()
    if error is None:
        raise TakenOver
    return error


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
