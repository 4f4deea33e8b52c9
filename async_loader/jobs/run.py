"""One process's part in a run, from the tables to the last chunk."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import DBAPIError

from ..concurrency.clock import Clock
from ..concurrency.stop import Stop
from ..concurrency.tasks import to_the_end
from ..errors import AsyncLoaderError, DatabaseError, JobError
from ..failures.tracebacks import source_of
from .checks import Examined, examine
from .chunks import Chunks
from .connections import check_binds, check_room, check_transactions, engine_of
from .definition import Apply, Arguments, Definition, Sessions, canonical, check_arguments
from .elsewhere import ours
from .guard import Guard, alone
from .idempotency import adopt, check_key, run_of_key
from .identity import refuse_another
from .keyset import Keyset
from .outcomes import LeaseLostError, ends_told, written
from .plan import Plan, plan
from .preparing import preparer_of
from .reader import Reader, keys_reader, raise_denied
from .states import SCHEMA
from .status import JobStatus, status_of
from .store import Names, Store
from .tables import check_schema, make_tables
from .transaction import break_off_chunks, listening
from .watchdog import watching
from .worker import Worker, WorkerGroup

OnProgress = Callable[[JobStatus], None]

PROGRESS_EVERY = 1.0
# Behind a cancelled chunk: a driver that waits for a dead network does not keep us.
_ABANDON = 5.0
# Where all is broken off, nothing has to be waited for.
_ABANDON_GONE = 1.0
# Drivers and functions may lose a cancellation, so it is repeated.
_CANCEL_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class JobSession:
    """What a process takes part in runs of a job with; `taking_part` makes one."""

    definition: Definition
    apply: Apply
    sessions: Sessions
    clock: Clock
    store: Store
    reader: Reader
    examined: dict[str, Examined] = field(default_factory=dict, init=False)
    """What the job is in this database, by its arguments: asked once, it lives for a run."""

    async def begin(
        self,
        arguments: Arguments,
        *,
        resume_changed: bool = False,
        idempotency_key: str | None = None,
    ) -> int:
        """
        Make the run of these arguments, or let the one that there is go on; its number.

        `resume_changed`: also where it was begun with other conditions. `idempotency_key`: or
        the run that has it, also where it is done.
        """
        check_key(idempotency_key)
        check_arguments(arguments)
        if self.definition.setup is not None:
            with ends_told("setup"):
                await self.definition.setup(self.sessions, arguments)
        examined = await self.examine(arguments)
        with ends_told():
            return await self.reader.retry_transient(
                lambda: _open_run(
                    self, examined, arguments,
                    resume_changed=resume_changed, idempotency_key=idempotency_key,
                )
            )  # fmt: skip

    async def examine(self, arguments: Arguments) -> Examined:
        """Return what the job is in this database with these arguments."""
        known = canonical(arguments)
        if known not in self.examined:
            keyset = self.definition.keyset(arguments)
            if keyset is not None:
                await check_binds(self.sessions, keyset.select)
            with ends_told():
                policy = self.definition.preparing
                found = await self.reader.retry_transient(
                    lambda: examine(self.sessions, keyset, named=bool(arguments), preparing=policy)
                )
            self.examined[known] = found
        return self.examined[known]

    async def first_plan(self, keyset: Keyset | None) -> Plan:
        """Return the partitions of a new run."""
        if keyset is None:
            return Plan((None,), 0)
        definition = self.definition
        return await plan(
            keys_reader(self.reader, self.sessions, keyset), keyset,
            chunk=definition.chunk, partitions=definition.partitions,
        )  # fmt: skip

    async def status(self, run: int) -> JobStatus:
        """Return how far a run is."""
        return await self.reader.retry_transient(lambda: status_of(self.store, run))

    async def work_on(
        self, run: int, *, workers: int, stop: Stop, on_progress: OnProgress | None
    ) -> JobStatus:
        """Work on a run to its end; on one that does not go on, do nothing."""
        now = await self.reader.retry_transient(lambda: self.store.run_of(run))
        known: JobStatus | None = None
        if now["job"] != self.definition.name:
            raise JobError(f"run {run} is one of {now['job']!r}, not of {self.definition.name!r}")
        if now["state"] == "running":
            arguments = json.loads(now["arguments"])
            examined = await self.examine(arguments)
            refuse_another(now, examined.keyset, examined.selected)
            guard = Guard(
                self.store, run, tasks=workers, lease=self.definition.lease,
                heard=self.reader.watchdog.heard,
            )  # fmt: skip
            async with _joined(guard, self.reader):
                chunks = self.chunks_of(run, guard.me, examined, arguments)
                group = WorkerGroup(chunks, guard, self.reader, stop, self.clock)
                await _take_part(group, workers, on_progress)
                known = group.done
        try:
            status = await self.status(run)
        except DatabaseError:
            if known is None:
                raise
            status = known
        return replace(status, done_already=now["state"] == "done")

    async def leave(self, run: int, by: str | None = None) -> JobStatus:
        """Pause a run that nobody works on any more; `by`: who wanted that, for people."""
        await self.reader.retry_transient(lambda: self.store.leave_if_last(run, 0, "paused", by))
        return await self.status(run)

    async def latest(self, arguments: Arguments) -> Chunks:
        """Return the latest run of these arguments, or of any where there are none, to redo."""
        name, wanted = self.definition.name, canonical(arguments) if arguments else None
        for run in await self.reader.retry_transient(lambda: self.store.runs_of(name, wanted)):
            its = json.loads(run["arguments"])
            examined = await self.examine(its)
            if run["target"] == examined.target.name:
                refuse_another(run, examined.keyset, examined.selected)
                return self.chunks_of(run["id"], 0, examined, its)
        raise JobError(f"no run of {name!r} here: see `job list`")

    def chunks_of(self, run: int, me: int, examined: Examined, arguments: Arguments) -> Chunks:
        """Return what the chunks of a run have in common, for a worker's number."""
        preparer = preparer_of(self.definition, examined, arguments, self.sessions, self.reader)
        return Chunks(
            self.store, self.sessions, self.definition, self.apply, examined.keyset, run, me,
            dict(arguments), preparer,
        )  # fmt: skip


@asynccontextmanager
async def taking_part(
    definition: Definition,
    apply: Apply,
    sessions: Sessions,
    clock: Clock,
    *,
    workers: int,
    state_schema: str = SCHEMA,
) -> AsyncIterator[JobSession]:
    """Yield this process's part, for so many tasks; raises `ConfigurationError` without room."""
    engine = await engine_of(sessions)
    check_room(engine, workers)
    check_schema(engine.dialect.name, state_schema)
    async with ours(), watching(engine, definition.patience) as watchdog:
        reader = Reader(engine, clock, watchdog)
        kind = await reader.retry_transient(lambda: check_transactions(sessions))
        watchdog.direct = kind.direct
        reader = Reader(engine, clock, watchdog, direct=kind.direct, limit=kind.limit)
        tables = await reader.retry_transient(lambda: make_tables(engine, state_schema))
        store = Store(engine, tables, direct=kind.direct)
        async with alone(store):
            with listening():
                yield JobSession(definition, apply, sessions, clock, store, reader)


async def _open_run(
    part: JobSession,
    examined: Examined,
    arguments: Arguments,
    *,
    resume_changed: bool,
    idempotency_key: str | None,
) -> int:
    """Return the run to take part in: the one that is there, or a new one."""
    store, keyset = part.store, examined.keyset
    names = {
        "job": part.definition.name, "arguments": canonical(arguments),
        "target": examined.target.name, "key": keyset.key if keyset else "",
        "selected": examined.selected, "idempotency_key": idempotency_key,
    }  # fmt: skip
    run = await _run_there(store, names)
    former = examined.target.former
    if run is None and former != examined.target.name:  # else it may be one begun this moment
        await _refuse_former(store, {**names, "target": former})
    while run is None:
        first = await part.first_plan(keyset)
        run = await store.start_run(
            names, first, total_known=keyset is not None and not part.definition.until_empty
        ) or await _run_there(store, names)
    if run["state"] == "done":
        return int(run["id"])
    await adopt(store, run, names)
    if resume_changed and run["selected"] is not None:
        await store.select_now(run["id"], examined.selected)
        run = await store.run_of(run["id"])
    refuse_another(run, keyset, examined.selected)
    if run["state"] != "running":
        await store.resume(run["id"])
    return int(run["id"])


async def _refuse_former(store: Store, names: Names) -> None:
    """Raise `JobError` where an earlier version's run may be this work: it lost the path."""
    run = await _run_there(store, names)
    if run is not None and run["state"] != "done" and run["target"] == names["target"]:
        raise JobError(
            f"run {run['id']} was begun by an earlier version of async_loader, which did not tell "
            f"search paths apart: cancel it (`job cancel {run['id']}`) to start anew"
        )


async def _run_there(store: Store, names: Names) -> RowMapping | None:
    """Return the run to go on with, or the one that has done the work of this key already."""
    active = str(names["job"]), str(names["arguments"]), str(names["target"])
    return await run_of_key(store, names) or await store.active_run(*active)


@asynccontextmanager
async def _joined(guard: Guard, reader: Reader) -> AsyncIterator[None]:
    """Be a living worker for a block."""
    try:
        await reader.retry_transient(guard.join)
        beating = asyncio.create_task(guard.beat_for_ever())
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.wait({beating})
        await guard.retire()
    finally:
        await guard.leave()


async def _take_part(group: WorkerGroup, workers: int, on_progress: OnProgress | None) -> None:
    """Run the tasks to their end, and leave the run as it should be found."""
    tasks = {asyncio.create_task(_work(group)) for _ in range(workers)}
    reporting = asyncio.create_task(_report(group, on_progress))
    cancelled = False
    try:
        await _until_done(tasks, group)
        cancelled = any(task.cancelled() for task in tasks)  # by whom, if not by us?
    except asyncio.CancelledError:
        await to_the_end(_leave_with_the_loop(group, {reporting, *tasks}))
        raise
    finally:
        await _end({reporting, *tasks}, _abandon(group))
    error = _first_error(tasks) or _first_error({reporting})
    if isinstance(error, DatabaseError) and group.done is not None:
        error = None  # silent since: what is done is done
    if error is None and cancelled:
        error = JobError("a task of the job was cancelled from within apply, select or a throttle")
    if not isinstance(error, DatabaseError) and (error is None or isinstance(error, Exception)):
        try:
            await group.reader.retry_transient(lambda: _leave(group, error))  # else as after a kill
        except DatabaseError:
            if error is None and group.done is None:
                raise
    if error is not None:
        raise error


async def _work(group: WorkerGroup) -> None:
    with ends_told():
        try:
            await Worker(group).work()
        except DBAPIError as error:  # ours: what apply raises is a row's failure
            raise_denied(error, group.reader.engine.url)
            raise


async def _leave_with_the_loop(group: WorkerGroup, tasks: set[asyncio.Task[None]]) -> None:
    """
    Say by what the event loop is ended, where it is known; else the run is as after a kill.

    `asyncio.run` cancels all tasks while it handles what came out of one of them, or out of a
    callback: who is begun meanwhile sees that.
    """
    ending = sys.exception()
    await _end(tasks, _abandon(group))
    error = _first_error(tasks)
    if group.reader.watchdog.gone or isinstance(error, DatabaseError):
        return
    with suppress(Exception):  # the program ends, and that it is told
        async with asyncio.timeout(_ABANDON):
            if isinstance(error, Exception):
                await _leave(group, error)
            elif isinstance(ending, SystemExit | KeyboardInterrupt):
                where = source_of(ending)
                by = f"{written(ending)}{f' at {where}' if where else ''}, which ended its program"
                group.stop.request(by)
                await _leave(group, None)


def _abandon(group: WorkerGroup) -> float:
    return _ABANDON_GONE if group.reader.watchdog.gone else _ABANDON


async def _end(tasks: set[asyncio.Task[None]], seconds: float) -> None:
    """Cancel tasks until they end; those that will not must hold no rows that others wait for."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    left = {task for task in tasks if not task.done()}
    try:
        while left and loop.time() < until:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=min(_CANCEL_AGAIN, until - loop.time()))
    finally:
        break_off_chunks(task for task in left if not task.done())


async def _until_done(tasks: set[asyncio.Task[None]], group: WorkerGroup) -> None:
    """Wait for the tasks: after a request to stop for the grace, after a second one no more."""
    stop = group.stop
    ended = asyncio.ensure_future(asyncio.wait(tasks))
    asked, at_once = (asyncio.ensure_future(e.wait()) for e in (stop.requested, stop.at_once))
    try:
        await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            grace = group.chunks.definition.grace
            await asyncio.wait(
                {ended, at_once}, timeout=grace, return_when=asyncio.FIRST_COMPLETED
            )  # fmt: skip
    finally:
        for future in (ended, asked, at_once):
            future.cancel()


def _first_error(tasks: set[asyncio.Task[None]]) -> BaseException | None:
    errors = [t.exception() for t in tasks if t.done() and not t.cancelled()]
    return next((error for error in errors if error is not None), None)


async def _leave(group: WorkerGroup, error: Exception | None) -> None:
    """Say what became of the run, and give back what we hold; may be repeated."""
    chunks = group.chunks
    if isinstance(error, LeaseLostError):
        await chunks.store.leave_if_last(chunks.run, chunks.me, "failed", str(error))
    elif error is not None:
        with suppress(JobError):  # somebody else has said what became of it
            message = str(error) if isinstance(error, AsyncLoaderError) else written(error)
            await chunks.store.move(chunks.run, "failed", message=message)
    elif group.stop.requested.is_set():
        by = group.stop.by or "its own program"
        await chunks.store.leave_if_last(chunks.run, chunks.me, "paused", by)
    await chunks.store.release(chunks.run, chunks.me)


async def _report(group: WorkerGroup, on_progress: OnProgress | None) -> None:
    """Tell how far the run is; what `on_progress` raises ends it, behind the chunks under way."""
    while on_progress is not None:
        status = None
        with suppress(Exception):  # SQLAlchemy 2.0 passes some of asyncpg's on as they are
            status = await status_of(group.chunks.store, group.chunks.run)
        if status is not None:
            try:
                with ends_told("on_progress"):
                    on_progress(status)
            except Exception as error:
                group.halt.set()
                if isinstance(error, AsyncLoaderError):
                    raise
                raise JobError(f"on_progress raised {written(error)}") from error
        await asyncio.sleep(PROGRESS_EVERY)
