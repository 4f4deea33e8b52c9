"""How far a run is: what its tables say, from whichever process asks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import and_, case, func, select
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from .states import State
from .store import Store


@dataclass(frozen=True, slots=True)
class JobStatus:
    """
    A run and how far it is.

    `total` and `eta_seconds` are None where nobody can know. `busy_seconds` is the time in
    chunks, of all tasks together; pauses and throttles are none of it, and `rate` and
    `eta_seconds` go by it. `done_already`: whoever asked for it to be run found it done.
    `rows_prepared`: calls of prepare that returned, of rows that were passed since; more than
    rows where some changed meanwhile. `started_at`, `ended_at`: by the database's clock, in UTC;
    None for what has not ended, a run that failed or is paused included.
    """

    run: int
    job: str
    arguments: Mapping[str, str]
    state: State
    message: str | None
    total: int | None
    rows_read: int
    rows_written: int
    rows_skipped: int
    retried: int
    chunks: int
    partitions: int
    partitions_done: int
    busy_seconds: float
    tasks: int
    throttled_seconds: float
    throttled_why: str | None
    done_already: bool = False
    rows_prepared: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def rate(self) -> float | None:
        """Rows a second of busy time, all living tasks together."""
        if not self.busy_seconds:
            return None
        return (self.rows_read + self.rows_skipped) / self.busy_seconds * max(self.tasks, 1)

    @property
    def eta_seconds(self) -> float | None:
        """The busy time to go at the pace so far."""
        if self.total is None or not self.rate or self.state == "done":
            return None
        return max(self.total - self.rows_read - self.rows_skipped, 0) / self.rate


async def status_of(store: Store, run: int) -> JobStatus:
    """Return how far a run is."""
    return (await statuses(store, [run]))[0]


async def statuses(store: Store, runs: Sequence[int] | None = None) -> list[JobStatus]:
    """Return how far runs are, the latest first; None: all of them."""
    async with store.reading.connect() as connection:
        return await statuses_on(connection, store, runs)


async def statuses_on(
    connection: AsyncConnection, store: Store, runs: Sequence[int] | None = None
) -> list[JobStatus]:
    """Return the same as a connection sees it, within its transaction."""
    tables = store.tables
    query = select(tables.run).order_by(tables.run.c.id.desc())
    if runs is not None:
        query = query.where(tables.run.c.id.in_(runs))
    found = (await connection.execute(query)).mappings().all()
    numbers = [row["id"] for row in found]
    sums = await connection.execute(_sums(store).where(tables.partition.c.run.in_(numbers)))
    workers = await connection.execute(_workers(store).where(tables.worker.c.run.in_(numbers)))
    by_run = {row["run"]: row for row in sums.mappings()}
    workers_by_run = {row["run"]: row for row in workers.mappings()}
    return [_status(row, by_run.get(row["id"]), workers_by_run.get(row["id"])) for row in found]


def _sums(store: Store) -> Any:
    p = store.tables.partition
    counters = ("rows_read", "rows_written", "rows_skipped", "rows_prepared", "retried", "busy")
    return select(
        p.c.run,
        func.count().label("partitions"),
        func.sum(case((p.c.done, 1), else_=0)).label("partitions_done"),
        func.sum(p.c.chunk).label("chunks"),
        *(func.sum(p.c[name]).label(name) for name in counters),
    ).group_by(p.c.run)


def _workers(store: Store) -> Any:
    w = store.tables.worker
    return (
        select(
            w.c.run,
            func.sum(w.c.tasks).label("tasks"),
            func.sum(w.c.throttled).label("throttled"),
            func.max(w.c.throttled_why).label("why"),
        )
        .where(and_(store.lives()))
        .group_by(w.c.run)
    )


def _status(run: RowMapping, sums: RowMapping | None, workers: RowMapping | None) -> JobStatus:
    count: dict[str, Any] = dict(sums) if sums else {}
    return JobStatus(
        run=run["id"],
        job=run["job"],
        arguments=json.loads(run["arguments"]),
        state=run["state"],
        message=run["message"],
        total=run["total"],
        rows_read=int(count.get("rows_read", 0)),
        rows_written=int(count.get("rows_written", 0)),
        rows_skipped=int(count.get("rows_skipped", 0)),
        rows_prepared=int(count.get("rows_prepared", 0)),
        retried=int(count.get("retried", 0)),
        chunks=int(count.get("chunks", 0)),
        partitions=int(count.get("partitions", 0)),
        partitions_done=int(count.get("partitions_done", 0)),
        busy_seconds=float(count.get("busy", 0.0)),
        tasks=int(workers["tasks"]) if workers else 0,
        throttled_seconds=float(workers["throttled"]) if workers else 0.0,
        throttled_why=workers["why"] if workers else None,
        started_at=_utc(run["started_at"]),
        ended_at=_utc(run["ended_at"]),
    )


def _utc(at: datetime | None) -> datetime | None:
    """Return a time as UTC; SQLite's own are, and do not say so."""
    if at is None:
        return None
    return at.astimezone(UTC) if at.tzinfo is not None else at.replace(tzinfo=UTC)
