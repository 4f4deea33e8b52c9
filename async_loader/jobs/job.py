"""The public face of a job: what it reads, what it does with it, and running it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar, Unpack, cast

from sqlalchemy.orm import InstrumentedAttribute

from ..concurrency.clock import SYSTEM_CLOCK, Clock
from ..concurrency.stop import Stop
from ..errors import ConfigurationError
from .connections import check_transactions, engine_of
from .definition import (
    Apply,
    Arguments,
    Definition,
    SelectOf,
    Sessions,
    Setup,
    bound_apply,
    check_apply,
)
from .dry_run import DryRun, Selection, try_out
from .prepare_policy import PrepareOptions, PreparePolicy, policy_of, with_context
from .reader import Reader
from .retry_errors import Retried, require_select, retry_errors
from .run import JobSession, OnProgress, taking_part
from .states import SCHEMA
from .status import JobStatus
from .store import Store
from .tables import check_schema, make_tables
from .throttles import ThrottleHook
from .transaction import listening
from .transient import RetryBudget
from .watchdog import watching

F = TypeVar("F", bound=Callable[..., Awaitable[None]])
P = TypeVar("P", bound=Callable[..., Awaitable[Any]])
NO_ARGUMENTS: Arguments = MappingProxyType({})
EVERYTHING = Selection()


class JobOptions(PrepareOptions, total=False):
    """What else a job may be told: what is done before any row is applied."""

    setup: Setup | None


class BatchJob:
    """
    A resumable job: `select` read in chunks, each applied in one transaction.

    Database effects in the job's database are exactly-once across kill -9, connection loss
    and competing workers. Effects outside it are at-least-once, with a stable key (run,
    partition, chunk).

    `select`: of one mapped class or of columns, without an order; or a function of the run's
    arguments; None for a job of one transaction. `key`: the columns to page by, unique
    together; the primary key by default. `chunk`: rows a transaction. `partitions`: ranges at
    most, by default four for each worker. `until_empty`: again until a pass finds no rows, for
    a select whose rows apply clears. `skip_limit`: rows that may fail. `throttles`: hooks asked
    before each chunk.
    In seconds: `lease`, which a chunk must not exceed; `grace`, for a chunk after a request to
    stop; `patience`, for a server that is gone or silent. `setup` runs before anything is read.
    For a job with `@job.prepare`: `prepare_concurrency`, calls at once of each worker task;
    `prepare_rate`, calls of each process, as "10/s"; `prepare_retries`, how often again by class
    of exception, with growing pauses; `prepare_changed`, whether a row that was changed meanwhile
    is prepared "again" or fails ("skip", see `skip_limit`); `prepare_compare`, whether that is
    told by `version_id_col` where there is one ("version"), by the "columns" that are read or by
    PostgreSQL's "xmin".

    Raises `ConfigurationError` for what cannot be run so.
    """

    def __init__(
        self,
        name: str,
        *,
        select: SelectOf = None,
        key: Sequence[InstrumentedAttribute[Any]] = (),
        chunk: int = 500,
        partitions: int = 0,
        until_empty: bool = False,
        skip_limit: int = 0,
        throttles: Sequence[ThrottleHook] = (),
        lease: float = 30.0,
        grace: float = 30.0,
        patience: float = 300.0,
        **options: Unpack[JobOptions],
    ) -> None:
        self.definition = Definition(
            name=name,
            select=select,
            key=tuple(key),
            chunk=chunk,
            partitions=partitions,
            until_empty=until_empty,
            skip_limit=skip_limit,
            throttles=tuple(throttles),
            lease=lease,
            grace=grace,
            patience=patience,
            setup=options.pop("setup", None),
        )
        self._policy = policy_of(**cast(PrepareOptions, options))
        self._apply: Callable[..., Awaitable[None]] | None = None
        if not callable(select):
            self.definition.keyset(NO_ARGUMENTS)  # a mistake shows where it is made

    @property
    def name(self) -> str:
        """The name that runs are found by."""
        return self.definition.name

    def apply(self, function: F) -> F:
        """
        Take `async def function(session, rows)` or `(session, rows, chunk)` as what is done.

        With `@job.prepare` it has what was prepared of each row, in their order, as its third
        parameter: `(session, rows, prepared)`.
        The rows are the session's; what is changed is committed with the job's position, and
        must not be committed by the function.
        """
        if self._apply is not None:
            raise ConfigurationError(f"{self.name} has an apply already")
        check_apply(function)
        self._apply = function
        return function

    def prepare(self, function: P) -> P:
        """
        Take `async def function(row)` or `(row, context)` as what is done before the transaction.

        It is called for each row, several at once, and may take minutes: no transaction is open
        meanwhile. What it returns is a row's in the third parameter of apply, `(session, rows,
        prepared)`. Rows belong to no session there. It is called at least once for each version
        of a row, with the same `context.key` for each.
        """
        if self.definition.preparing is not None:
            raise ConfigurationError(f"{self.name} has a prepare already")
        policy = replace(self._policy, function=with_context(function))
        self.definition = replace(self.definition, preparing=policy)
        return function

    async def run(
        self,
        sessions: Sessions,
        *,
        workers: int = 1,
        arguments: Mapping[str, str] = NO_ARGUMENTS,
        resume_changed: bool = False,
        idempotency_key: str | None = None,
        state_schema: str = SCHEMA,
        stop: Stop | None = None,
        on_progress: OnProgress | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> JobStatus:
        """
        Start a run, or take part in the one that there is, and return how it stands.

        `resume_changed`: go on, too, with a run that was begun with other conditions.
        `idempotency_key`: one run for each key, whoever starts it how often: one that is done
        is returned as it is, one with other arguments is refused. `state_schema`: where the
        state is, which is nobody's of another schema.
        `workers` tasks, each with a connection, and one more connection for the heartbeat.
        Raises `JobError` for a row that fails beyond `skip_limit`, `DatabaseError` when the
        server stays away for longer than `patience`.
        """
        stop = stop or Stop()
        stop.heeded = True
        async with self.taking_part(
            sessions, workers=workers, state_schema=state_schema, clock=clock
        ) as part:
            run = await part.begin(
                arguments, resume_changed=resume_changed, idempotency_key=idempotency_key
            )
            return await part.work_on(run, workers=workers, stop=stop, on_progress=on_progress)

    async def dry_run(
        self,
        sessions: Sessions,
        *,
        arguments: Mapping[str, str] = NO_ARGUMENTS,
        selection: Selection = EVERYTHING,
        prepare: bool = False,
        state_schema: str = SCHEMA,
        stop: Stop | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> DryRun:
        """
        Try the job on rows, each chunk in a transaction that is rolled back; return what it did.

        `selection`: on which. `prepare`: call prepare, too; without, of a job that has one, rows
        are read and nothing is applied to them. `setup` is not called. Rows that fail are noted,
        up to `skip_limit`; the one behind that ends it (`stopped_at`).
        """
        stop = stop or Stop()
        stop.heeded = True
        async with self.taking_part(
            sessions, workers=1, state_schema=state_schema, clock=clock
        ) as part:
            return await try_out(part, arguments, selection, stop, prepare=prepare)

    def taking_part(
        self,
        sessions: Sessions,
        *,
        workers: int,
        tasks: int = 0,
        state_schema: str = SCHEMA,
        clock: Clock = SYSTEM_CLOCK,
    ) -> AbstractAsyncContextManager[JobSession]:
        """
        Return a block in which runs are begun and worked on, each step by itself.

        For a run that several processes share: one begins it, for `tasks` in all of them, and
        all work on its number. A process that did both after the others' end would begin a
        run of its own.
        """
        definition = self.definition.for_workers(tasks or workers)
        return taking_part(
            definition, self._required_apply(), sessions, clock,
            workers=workers, state_schema=state_schema,
        )  # fmt: skip

    async def retry_errors(
        self,
        sessions: Sessions,
        *,
        arguments: Mapping[str, str] = NO_ARGUMENTS,
        state_schema: str = SCHEMA,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Retried:
        """Apply the rows of the latest run's error table again, each in its own transaction."""
        definition, engine = self.definition, await engine_of(sessions)
        check_schema(engine.dialect.name, state_schema)
        async with watching(engine, definition.patience) as watchdog:
            reader = Reader(engine, clock, watchdog)
            kind = await reader.retry_transient(lambda: check_transactions(sessions))
            watchdog.direct = kind.direct
            reader = Reader(engine, clock, watchdog, limit=kind.limit)
            tables = await reader.retry_transient(lambda: make_tables(engine, state_schema))
            store = Store(engine, tables)
            part = JobSession(definition, self._required_apply(), sessions, clock, store, reader)
            chunks = await part.latest(arguments)
            require_select(chunks)
            with listening():
                return await retry_errors(chunks, reader, RetryBudget(clock, definition.patience))

    def _required_apply(self) -> Apply:
        if self._apply is None:
            raise ConfigurationError(f"{self.name} has no @job.apply")
        prepared = self.definition.preparing is not None
        if not prepared and self._policy != PreparePolicy():
            raise ConfigurationError(
                f"{self.name} says how rows are prepared: no @job.prepare does"
            )
        return bound_apply(self._apply, prepared=prepared)
