"""
What is said to the tables of jobs.

Locks are taken in one order, run before partition, so that no two of us wait for each other.
Whoever takes a partition's `owner` away has fenced its worker: the next chunk of that worker
matches no row. Taking it waits for the chunk under way, which holds the row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import and_, delete, func, insert, literal_column, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from .fence import Advance, Fence, advancing, partition_fence, values_of
from .plan import Plan
from .reader import reading, writing
from .states import ACTIVE, State, check
from .tables import Tables, lock_key

Executor = AsyncConnection | AsyncSession
Ended = Callable[[AsyncConnection], Awaitable[None]]
Names = Mapping[str, str | None]
"""What a run is found by: job, arguments, target, key, selected and idempotency_key."""


class Store:
    """The statements of one database; those of each chunk are built once."""

    def __init__(self, engine: AsyncEngine, tables: Tables, *, direct: bool = False) -> None:
        self.engine = writing(engine)
        self.reading = reading(engine, direct=direct)
        self.direct = direct  # whether a session's lock is its worker's
        self.tables = tables
        self.has_advisory_locks = engine.dialect.name == "postgresql"
        self.fence = partition_fence(tables, Fence)

    # --- runs --------------------------------------------------------------------------

    async def active_run(self, job: str, arguments: str, target: str) -> RowMapping | None:
        """Return the run to resume, if there is one; also one of an earlier version."""
        run = self.tables.run
        query = select(run).where(
            run.c.job == job, run.c.arguments == arguments, run.c.state.in_(ACTIVE),
            (run.c.target == target) | run.c.selected.is_(None),
        )  # fmt: skip
        async with self.reading.connect() as connection:
            return (await connection.execute(query)).mappings().first()

    async def start_run(self, names: Names, plan: Plan, *, total_known: bool) -> RowMapping | None:
        """
        Add a run with its partitions and return it; None if somebody else was faster.

        `names`: its job, arguments, target, key, select and idempotency key.
        """
        flavour = postgresql if self.has_advisory_locks else sqlite
        run = self.tables.run
        statement = flavour.insert(run).values(
            **names, state="running", round=1,
            total=plan.total if total_known else None,
        ).on_conflict_do_nothing().returning(run)  # fmt: skip
        async with self.engine.begin() as connection:
            added = (await connection.execute(statement)).mappings().first()
            if added is not None:
                await self._add_partitions(connection, added["id"], 1, 0, plan.uppers)
            return added

    async def _add_partitions(
        self, at: Executor, run: int, round_: int, first: int, uppers: Sequence[str | None]
    ) -> None:
        lowers = [None, *uppers][: len(uppers)]
        rows = [
            {"run": run, "number": first + n, "round": round_, "lower": lower, "upper": upper,
             "cursor": lower, "chunk": 0, "done": False}
            for n, (lower, upper) in enumerate(zip(lowers, uppers, strict=True))
        ]  # fmt: skip
        if rows:
            await at.execute(insert(self.tables.partition), rows)

    async def run_of(self, run: int) -> RowMapping:
        """Return a run as it is now."""
        async with self.reading.connect() as connection:
            return (
                await connection.execute(select(self.tables.run).where(self.tables.run.c.id == run))
            ).mappings().one()  # fmt: skip

    async def run_with_key(self, names: Names) -> RowMapping | None:
        """Return the run of a job that has an idempotency key."""
        run = self.tables.run
        query = select(run).where(
            run.c.job == names["job"], run.c.target == names["target"],
            run.c.idempotency_key == names["idempotency_key"],
        )  # fmt: skip
        async with self.reading.connect() as connection:
            return (await connection.execute(query)).mappings().first()

    async def give_key(self, run: int, key: str) -> bool:
        """Give a run an idempotency key; False where it has one by now."""
        table = self.tables.run
        here = and_(table.c.id == run, table.c.idempotency_key.is_(None))
        async with self.engine.begin() as connection:
            giving = update(table).where(here).values(idempotency_key=key).returning(table.c.id)
            return (await connection.execute(giving)).first() is not None

    async def runs_of(self, job: str, arguments: str | None) -> Sequence[RowMapping]:
        """Return all runs of a job, or those of these arguments, the latest first."""
        run = self.tables.run
        query = select(run).where(run.c.job == job).order_by(run.c.id.desc())
        if arguments is not None:
            query = query.where(run.c.arguments == arguments)
        async with self.reading.connect() as connection:
            return (await connection.execute(query)).mappings().all()

    async def select_now(self, run: int, selected: str) -> None:
        """Write down that a run goes on with another select."""
        table = self.tables.run
        async with self.engine.begin() as connection:
            await connection.execute(
                update(table).where(table.c.id == run).values(selected=selected)
            )

    async def move(self, run: int, after: State, *, message: str | None = None) -> None:
        """
        Put a run into a state; once this returns, no chunk of it commits unless it runs.

        It waits for the chunks under way. Raises `JobError` for a way that does not exist.
        """
        async with self.engine.begin() as connection:
            now = await self._lock_run(connection, run)
            await self._move(connection, now, after, message)

    async def _move(
        self, at: Executor, locked: RowMapping, after: State, message: str | None = None
    ) -> None:
        table, partition, run = self.tables.run, self.tables.partition, locked["id"]
        check(locked["state"], after)
        ended = func.now() if after in ("done", "cancelled") else None
        values = {"state": after, "message": message, "ended_at": ended}
        await at.execute(update(table).where(table.c.id == run).values(values))
        if after != "running":
            owned = and_(partition.c.run == run, partition.c.owner.is_not(None))
            await at.execute(update(partition).where(owned).values(owner=None))

    async def _lock_run(self, at: Executor, run: int) -> RowMapping:
        table = self.tables.run
        if not self.has_advisory_locks:  # a write is what locks SQLite
            await at.execute(update(table).where(table.c.id == run).values(round=table.c.round))
        # NO KEY: a chunk that corrects its counters has its foreign key checked, which takes
        # the run's key while it holds the partition.
        query = select(table).where(table.c.id == run).with_for_update(key_share=True)
        return (await at.execute(query)).mappings().one()

    async def resume(self, run: int) -> None:
        """Let a run go on that stands still; a run that is over stays so."""
        async with self.engine.begin() as connection:
            now = await self._lock_run(connection, run)
            if now["state"] in ACTIVE:
                await self._move(connection, now, "running")

    # --- rounds ------------------------------------------------------------------------

    async def open_partitions(self, run: int) -> int:
        """Return how many partitions are not at their end."""
        partition = self.tables.partition
        query = select(func.count()).where(partition.c.run == run, ~partition.c.done)
        async with self.reading.connect() as connection:
            return int(await connection.scalar(query) or 0)

    async def rows_read(self, run: int, round_: int) -> int:
        """Return how many rows a round has read."""
        partition = self.tables.partition
        query = select(func.coalesce(func.sum(partition.c.rows_read), 0)).where(
            partition.c.run == run, partition.c.round == round_
        )
        async with self.reading.connect() as connection:
            return int(await connection.scalar(query) or 0)

    async def end_round(self, run: int, round_: int, following: Plan | None, ended: Ended) -> bool:
        """
        End a run whose round is at its end, or add the next round; once, whoever comes.

        False once the run is over: `ended` was called in the transaction that saw to it.
        """
        table, partition = self.tables.run, self.tables.partition
        async with self.engine.begin() as connection:
            now = await self._lock_run(connection, run)
            if now["state"] == "running" and now["round"] != round_:
                return True
            if now["state"] == "running" and (following is None or not following.uppers):
                await self._move(connection, now, "done", await self._difference(connection, now))
                now = await self._lock_run(connection, run)
            if now["state"] != "running":
                await ended(connection)
                return False
            assert following is not None
            first = await connection.scalar(
                select(func.count()).select_from(partition).where(partition.c.run == run)
            )
            await connection.execute(
                update(table).where(table.c.id == run).values(round=round_ + 1)
            )
            await self._add_partitions(
                connection, run, round_ + 1, int(first or 0), following.uppers
            )
            return True

    async def _difference(self, at: Executor, run: RowMapping) -> str | None:
        """Return why a run that is done has not come to the rows that were counted first."""
        p = self.tables.partition.c
        query = select(func.sum(p.rows_read + p.rows_skipped)).where(p.run == run["id"])
        rows = int(await at.scalar(query) or 0)
        if run["total"] is None or rows == run["total"]:
            return None
        why = "more matched" if rows > run["total"] else "the others had gone or matched no more"
        return (
            f"{rows:,} rows were read or skipped and {run['total']:,} were counted at the start: "
            f"{why} when their range was read"
        )

    # --- partitions --------------------------------------------------------------------

    async def claim(self, run: int, me: int, claimed: Sequence[int]) -> RowMapping | None:
        """
        Make an open partition ours and return it; None if the others have them all.

        Free are those of nobody, of the dead, and those of ours whose claim's reply was lost
        (`held` are the ones that we know of).
        """
        partition = self.tables.partition
        mine = and_(partition.c.owner == me, partition.c.number.not_in(claimed))
        free = or_(partition.c.owner.is_(None), mine, self._owner_is_dead())
        first = (
            select(partition.c.number)
            .where(partition.c.run == run, ~partition.c.done, free)
            .order_by(partition.c.number)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()  # of nothing around it: evaluated once, so that one row is locked
        )
        at = and_(partition.c.run == run, partition.c.number == first)
        claiming = update(partition).where(at).values(owner=me).returning(partition)
        async with self.engine.begin() as connection:
            if await self._state_for_claim(connection, run) != "running":
                return None
            found: RowMapping | None = (await connection.execute(claiming)).mappings().first()
            return found

    async def _state_for_claim(self, at: Executor, run: int) -> str:
        # Shared with other claims, but not with somebody who is stopping the run.
        query = select(self.tables.run.c.state).where(self.tables.run.c.id == run)
        if not self.has_advisory_locks:
            return str((await self._lock_run(at, run))["state"])
        return str((await at.execute(query.with_for_update(read=True))).scalar_one())

    def _owner_is_dead(self) -> Any:
        """
        Return the condition that the owner does not live.

        A killed worker's lock is free at once; a frozen one's heartbeat grows old. On SQLite
        whoever gets here holds the file's one lock: nobody else lives.
        """
        if not self.has_advisory_locks:
            return self.tables.partition.c.owner.is_not(None)
        living = select(self.tables.worker.c.id).where(self.lives())
        return self.tables.partition.c.owner.not_in(living)

    def lives(self) -> Any:
        """Return the condition that a worker's lease lasts, and its lock, where it has one."""
        worker = self.tables.worker
        if not self.has_advisory_locks:
            return literal_column("1") == 1
        claimed = text(
            "EXISTS (SELECT 1 FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted"
            f" AND l.classid = {self.tables.lock_class} AND l.objsubid = 2"
            f" AND l.objid::bigint = {worker.fullname}.id & 2147483647"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
        )
        return and_(worker.c.fresh_until > func.now(), or_(~worker.c.locks, claimed))

    async def end_chunks_of_the_dead(self, run: int) -> None:
        """
        End the transactions of workers whose lease has run out, which hold their partitions.

        A process that stands still, or whose network is gone, does not end its own. Where the
        role may not, they end with their connection.
        """
        partition, worker = self.tables.partition, self.tables.worker
        leased = select(worker.c.id).where(worker.c.fresh_until > func.now())
        chunks = (
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE l.locktype = 'advisory'"
            f" AND l.granted AND l.classid = {self.tables.chunk_lock_class} AND l.objsubid = 2"
            " AND l.objid::bigint = :lock AND l.pid <> pg_backend_pid()"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        query = select(partition.c.owner).distinct().where(
            partition.c.run == run, ~partition.c.done, partition.c.owner.not_in(leased)
        )  # fmt: skip
        async with self.reading.connect() as connection:
            for (owner,) in (await connection.execute(query)).all():
                with suppress(ProgrammingError):  # insufficient_privilege
                    await connection.execute(text(chunks), {"lock": lock_key(owner)})

    async def fix_first_chunk(self, run: int, number: int, me: int, ahead: str | None) -> None:
        """Fix the end of a partition's first chunk before it is tried."""
        partition = self.tables.partition
        mine = and_(
            partition.c.run == run, partition.c.number == number, partition.c.owner == me,
            partition.c.ahead.is_(None),
        )  # fmt: skip
        async with self.engine.begin() as connection:
            await connection.execute(update(partition).where(mine).values(ahead=ahead))

    async def position(self, run: int, number: int, me: int) -> RowMapping:
        """Return a partition as it is once whatever of ours is under way there has ended."""
        partition = self.tables.partition
        query = select(partition).where(partition.c.run == run, partition.c.number == number)
        async with self.reading.connect() as connection:
            now = (await connection.execute(query)).mappings().one()
        if now["owner"] != me:  # what is under way is not ours
            return now
        async with self.engine.begin() as connection:
            return (await connection.execute(query.with_for_update())).mappings().one()

    async def release(self, run: int, me: int) -> None:
        """Give back what is ours."""
        partition, worker = self.tables.partition, self.tables.worker
        async with self.engine.begin() as connection:
            mine = and_(partition.c.run == run, partition.c.owner == me)
            await connection.execute(update(partition).where(mine).values(owner=None))
            await connection.execute(delete(worker).where(worker.c.id == me))

    async def leave_if_last(
        self, run: int, me: int, after: State, message: str | None = None
    ) -> None:
        """Put a run that nobody but us works on into a state."""
        worker = self.tables.worker
        others = select(func.count()).where(
            worker.c.run == run, worker.c.id != me, self.lives()
        )  # fmt: skip
        async with self.engine.begin() as connection:
            run_now = await self._lock_run(connection, run)
            alone = self.has_advisory_locks is False or not await connection.scalar(others)
            if run_now["state"] == "running" and alone:
                await self._move(connection, run_now, after, message)

    # --- errors ------------------------------------------------------------------------

    async def known_errors(self, at: Executor, run: int, keys: Sequence[str]) -> set[str]:
        """Return which of these keys are in the error table."""
        error = self.tables.error
        query = select(error.c.key).where(error.c.run == run, error.c.key.in_(keys))
        return set((await at.execute(query)).scalars())

    async def skip(
        self, at: Executor, place: dict[str, int], limit: int, error: dict[str, Any]
    ) -> bool:
        """Add a row to the error table; False if the run has as many as it may."""
        table, run = self.tables.error, place["in_run"]
        await self._lock_run(at, run)  # the others count too
        count = await at.scalar(select(func.count()).where(table.c.run == run))
        if (count or 0) >= limit:
            return False
        await at.execute(insert(table).values(run=run, **error))
        return True

    async def pass_by(self, at: Executor, place: dict[str, int], by: Advance) -> bool:
        """Move a partition behind a row that is skipped; False if it is not ours any more."""
        partition = self.tables.partition
        ours = and_(
            partition.c.run == place["in_run"], partition.c.number == place["in_number"],
            partition.c.owner == place["in_owner"], partition.c.chunk == place["in_chunk"],
        )  # fmt: skip
        moving = advancing(self.tables).where(ours).returning(partition.c.chunk)
        return (await at.execute(moving, values_of(by))).first() is not None
