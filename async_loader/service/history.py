"""Every statement to the history's tables."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from shutil import disk_usage
from typing import Any, Literal

from asyncpg.exceptions import InternalClientError
from sqlalchemy import Insert, Select, delete, func, insert, select, update
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from ..database.backends import backend_of
from ..database.postgresql import first_line
from ..errors import AsyncLoaderError
from .tables import audit, result, run, schedule

# running, stopping: a process works on it. error: it could not be run. interrupted: the service
# or its machine died. The others are the words of its verdict.
State = Literal[
    "running",
    "stopping",
    "passed",
    "not measured",
    "failed",
    "stopped",
    "error",
    "interrupted",
]
ACTIVE: tuple[State, ...] = ("running", "stopping")

# What a statement raises where the database is away, or its connections are.
NO_HISTORY = (SQLAlchemyError, InternalClientError, OSError)

# Of those, what passes by itself: a server that is away, a disk that is full.
AWAY = (OperationalError, InterfaceError, PoolTimeoutError, InternalClientError, OSError)

Row = Mapping[str, Any]


# What is written to see whether anything can be: the start of a scenario that has no name.
_NOBODY = ""
_WRITE_EVERY = 5.0
# A file that has less is full for the next result.
_ROOM = 1024 * 1024


class TargetBusyError(AsyncLoaderError):
    """A run is on the target already: `run` is its number."""

    def __init__(self, target: str, running: int) -> None:
        super().__init__(f"run {running} is on {target!r}; one run at a time to a target")
        self.run = running


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs: of a scenario, a target or a state, and older than a run; None: any."""

    scenario: str | None = None
    target: str | None = None
    state: State | None = None
    before: int | None = None
    limit: int = 50


class History:
    """Runs, their results, and who did what."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        writes, reads = backend_of(engine.url).session_factories(engine, reads_autocommit=True)
        self._writes, self._reads = writes, reads
        self._written = -math.inf
        self.held = True
        """Whether it is ours alone, as far as we know."""

    # --- runs -----------------------------------------------------------------------------

    async def add(self, values: Row) -> int:
        """Note a start and return the new run's number; raises `TargetBusyError` for a second."""
        target = values["target"]
        statement = insert(run).values(
            **values, state="running", active_on=target, started_at=time.time(), reasons=[]
        )
        while True:
            try:
                async with self._writes.begin() as session:
                    added = await session.execute(statement.returning(run.c.id))
                    number = int(added.scalar_one())
                    what = f"{values['scenario']} on {target}"
                    await session.execute(_noted(values["started_by"], "start", number, what))
                    if values["scheduled"]:
                        await _set_last_start(session, values["scenario"], time.time())
                    return number
            except IntegrityError:
                running = await self.running_on(target)
                if running is not None:  # else it has ended just now
                    raise TargetBusyError(target, running) from None

    async def running_on(self, target: str) -> int | None:
        """Return the run that is on a target."""
        async with self._reads() as session:
            found = await session.scalar(select(run.c.id).where(run.c.active_on == target))
            return None if found is None else int(found)

    async def change(self, number: int, **values: Any) -> None:
        """Set columns of a run."""
        async with self._writes.begin() as session:
            await session.execute(update(run).where(run.c.id == number).values(**values))

    async def stop(self, number: int, who: str) -> None:
        """Note who asked for a run's end; one that has ended meanwhile stays as it is."""
        async with self._writes.begin() as session:
            asked = update(run).where(run.c.id == number, run.c.state == "running")
            await session.execute(asked.values(state="stopping"))
            await session.execute(_noted(who, "stop", number))

    async def end(
        self,
        number: int,
        state: State,
        reasons: Sequence[str] = (),
        *,
        figures: Row | None = None,
        document: bytes | None = None,
        release: bool = True,
    ) -> None:
        """End a run, with its result where it has one, and let the next one onto its target."""
        free = {"active_on": None, "process": None} if release else {}
        async with self._writes.begin() as session:
            await session.execute(
                update(run)
                .where(run.c.id == number)
                .values(
                    state=state, reasons=list(reasons), figures=figures, phase=None,
                    ended_at=time.time(), **free,
                )
            )  # fmt: skip
            if document is not None:
                # Again, where nobody knows whether the first time was the last.
                await session.execute(delete(result).where(result.c.run == number))
                await session.execute(insert(result).values(run=number, document=document))

    async def release(self, number: int) -> None:
        """Let the next run onto the target."""
        await self.change(number, active_on=None, process=None)

    async def get(self, number: int) -> Row | None:
        """Return a run."""
        found = await self._all(select(run).where(run.c.id == number))
        return found[0] if found else None

    async def page(self, wanted: Filter) -> list[Row]:
        """Return runs, the latest first."""
        query = select(run).order_by(run.c.id.desc()).limit(wanted.limit)
        for column in ("scenario", "target", "state"):
            if (value := getattr(wanted, column)) is not None:
                query = query.where(run.c[column] == value)
        if wanted.before is not None:
            query = query.where(run.c.id < wanted.before)
        return await self._all(query)

    async def document(self, number: int) -> bytes | None:
        """Return a run's result, compressed; None where it has none."""
        async with self._reads() as session:
            return await session.scalar(select(result.c.document).where(result.c.run == number))

    async def unfinished(self) -> list[Row]:
        """Return the runs whose target is not free."""
        return await self._all(select(run).where(run.c.active_on.is_not(None)))

    async def last_starts(self) -> dict[str, float]:
        """Return when each scenario's schedule started it last, its run kept or not."""
        return {
            row["scenario"]: row["last_at"]
            for row in await self._all(select(schedule))
            if row["scenario"] != _NOBODY
        }

    async def set_last_start(self, scenario: str, at: float) -> None:
        """Say when a scenario's schedule started it last."""
        async with self._writes.begin() as session:
            await _set_last_start(session, scenario, at)

    async def count_by_state(self) -> dict[str, int]:
        """Return how many runs there are in each state."""
        query = select(run.c.state, func.count().label("runs")).group_by(run.c.state)
        return {row["state"]: row["runs"] for row in await self._all(query)}

    async def last_results(self) -> list[Row]:
        """Return of each scenario on each target the last run that ended, with a result or not."""
        query = select(func.max(run.c.id)).where(run.c.ended_at.is_not(None))
        latest = query.group_by(run.c.scenario, run.c.target)
        return await self._all(select(run).where(run.c.id.in_(latest)).order_by(run.c.id))

    async def prune(self, *, keep_runs: int, keep_for: float) -> int:
        """Forget the runs that are too old or too many, and what was done then; return how many."""
        ended = run.c.active_on.is_(None)
        since = time.time() - keep_for
        latest = select(run.c.id).order_by(run.c.id.desc()).offset(keep_runs).limit(1)
        async with self._writes.begin() as session:
            newest_of_too_many = await session.scalar(latest) or 0
            # Since its end: a long run is not forgotten with it.
            gone = (run.c.ended_at < since) | (run.c.id <= newest_of_too_many)
            numbers = select(run.c.id).where(ended, gone)
            await session.execute(delete(result).where(result.c.run.in_(numbers)))
            forgotten = await session.execute(delete(run).where(ended, gone))
            await session.execute(delete(audit).where(audit.c.at < since))
            return int(forgotten.rowcount)  # type: ignore[attr-defined]  # a DELETE's has one

    # --- who did what ---------------------------------------------------------------------

    async def note(
        self, who: str, action: str, number: int | None = None, detail: str = ""
    ) -> None:
        """Write down who did what."""
        async with self._writes.begin() as session:
            await session.execute(_noted(who, action, number, detail))

    async def notes(self, *, before: int | None, limit: int) -> list[Row]:
        """Return who did what, the latest first."""
        query = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.id < before)
        return await self._all(query)

    async def ping(self) -> None:
        """Ask the database for anything, and now and then to keep something."""
        await self._all(select(run.c.id).limit(1))
        await asyncio.to_thread(self._look_for_room)
        if time.monotonic() - self._written > _WRITE_EVERY:
            await self.set_last_start(_NOBODY, time.time())
            self._written = time.monotonic()

    def _look_for_room(self) -> None:
        """Raise `OSError` where a file has hardly any room to grow; blocks."""
        database = self._engine.url.database
        if self._engine.url.get_backend_name() != "sqlite" or not database:
            return
        if disk_usage(Path(database).absolute().parent).free < _ROOM:
            raise OSError(ENOSPC, "its disk is full")

    async def _all(self, query: Select[Any]) -> list[Row]:
        async with self._reads() as session:
            return [dict(row) for row in (await session.execute(query)).mappings()]


async def _set_last_start(session: AsyncSession, scenario: str, at: float) -> None:
    # Two statements that both databases have: one service writes at a time.
    await session.execute(delete(schedule).where(schedule.c.scenario == scenario))
    await session.execute(insert(schedule).values(scenario=scenario, last_at=at))


def _noted(who: str, action: str, number: int | None, detail: str = "") -> Insert:
    return insert(audit).values(at=time.time(), who=who, action=action, run=number, detail=detail)


def brief(error: BaseException) -> str:
    """Return why the history cannot be used, without a statement or its values."""
    if isinstance(error, DBAPIError):
        return first_line(error)
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
