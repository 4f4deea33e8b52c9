"""
Runs seen and steered from elsewhere: list, status, pause, cancel.

`state_schema`: where the state is. `patience`: seconds for which the server may be silent, before
it is a `DatabaseError`. To wait for the chunks under way is no silence.
"""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import JobError
from .connections import kind_of
from .definition import Arguments, canonical
from .reader import raise_denied
from .states import ACTIVE, SCHEMA, State
from .status import JobStatus, status_of, statuses
from .store import Store
from .tables import make_tables, tables_if_any
from .watchdog import watching

PATIENCE = 10.0


async def list_runs(
    engine: AsyncEngine, *, state_schema: str = SCHEMA, patience: float = PATIENCE
) -> list[JobStatus]:
    """Return all runs, the latest first; none where no job has ever run."""
    async with _watched(engine, patience):
        store = await _store_if_any(engine, state_schema)
        return [] if store is None else await statuses(store)


async def status(
    engine: AsyncEngine,
    name: str,
    arguments: Arguments | None = None,
    *,
    state_schema: str = SCHEMA,
    patience: float = PATIENCE,
) -> JobStatus:
    """
    Return the latest run of a job's name, or the run of that number.

    `arguments`: of these arguments only. Raises `JobError` if there is none.
    """
    async with _watched(engine, patience):
        store = await _store_if_any(engine, state_schema)
        runs = await _runs(store, name, arguments)
        if store is None or not runs:
            raise JobError(f"no run of {name!r} here: see `job list`")
        return await status_of(store, runs[0])


async def pause(
    engine: AsyncEngine,
    name: str,
    arguments: Arguments | None = None,
    *,
    state_schema: str = SCHEMA,
    patience: float = PATIENCE,
) -> JobStatus:
    """Pause the active run: once this returns no chunk of it is committed until it is resumed."""
    async with _watched(engine, patience, _NOT_KNOWN.format(state="paused")):
        return await _move(engine, state_schema, name, arguments, "paused")


async def cancel(
    engine: AsyncEngine,
    name: str,
    arguments: Arguments | None = None,
    *,
    state_schema: str = SCHEMA,
    patience: float = PATIENCE,
) -> JobStatus:
    """Give the active run up for good; what was committed stays."""
    async with _watched(engine, patience, _NOT_KNOWN.format(state="cancelled")):
        if await tables_if_any(engine, state_schema, unfinished=True) is not None:
            await make_tables(engine, state_schema, unfinished=True)
        return await _move(engine, state_schema, name, arguments, "cancelled")


_NOT_KNOWN = "; whether the run is {state} is not known: see `job status`"


@asynccontextmanager
async def _watched(engine: AsyncEngine, patience: float, rest: str = "") -> AsyncIterator[None]:
    async with watching(engine, patience, rest) as watchdog:
        if engine.dialect.name == "postgresql":
            async with engine.connect() as connection:
                watchdog.direct = (await kind_of(connection)).direct
        try:
            yield
        except DBAPIError as error:
            raise_denied(error, engine.url)
            raise


async def _move(
    engine: AsyncEngine, state_schema: str, name: str, arguments: Arguments | None, after: State
) -> JobStatus:
    store = await _store_if_any(engine, state_schema)
    runs = await _runs(store, name, arguments, ACTIVE)
    if store is None or not runs:
        raise JobError(f"no active run of {name!r} here: see `job list`")
    if len(runs) > 1:
        raise JobError(
            f"{name!r} has {len(runs)} active runs ({', '.join(map(str, runs))}): "
            "give one of these numbers"
        )
    await store.move(runs[0], after, message=await _who(engine))
    return await status_of(store, runs[0])


async def _who(engine: AsyncEngine) -> str:
    """Return who steers a run, for the others: the database's user, or the system's."""
    if engine.dialect.name != "postgresql":
        return f"user {getpass.getuser()}"
    async with engine.connect() as connection:
        return f"user {await connection.scalar(text('SELECT session_user'))}"


async def _store_if_any(engine: AsyncEngine, state_schema: str) -> Store | None:
    tables = await tables_if_any(engine, state_schema)
    return None if tables is None else Store(engine, tables)


async def _runs(
    store: Store | None, name: str, arguments: Arguments | None, states: Sequence[State] = ()
) -> list[int]:
    if store is None:
        return []
    run = store.tables.run
    query = select(run.c.id).order_by(run.c.id.desc())
    query = query.where(run.c.id == int(name) if name.isdigit() else run.c.job == name)
    if arguments:
        query = query.where(run.c.arguments == canonical(arguments))
    if states:
        query = query.where(run.c.state.in_(states))
    async with store.reading.connect() as connection:
        return list((await connection.execute(query)).scalars())
