"""
What is asked of a PostgreSQL server about itself, on a connection outside of any pool.

Each look-up is one statement and, in AUTOCOMMIT, one transaction; `Look.asked` counts them, so
that they can be taken out of what the server counted. Nothing is created, and no right is needed:
what this role may not see is noted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, Pool, QueuePool
from sqlalchemy.util import greenlet_spawn

from ...database.postgresql import first_line
from ...database.sqlalchemy_private import creator_of
from ...failures.redaction import shortened
from ...results.findings import DatabaseCounts, ServerStatement
from ..effects.statements import OURS as _MARK
from ..instruments.pools import leave_out

_DATABASE = f"""
    SELECT {_MARK} xact_commit AS commits, xact_rollback AS rollbacks, blks_hit AS blocks_hit,
           blks_read AS blocks_read, deadlocks, temp_files, temp_bytes
    FROM pg_catalog.pg_stat_database WHERE datname = current_database()"""
# A backend_type that is null belongs to a session that this role may not see.
_ACTIVITY = f"""
    SELECT {_MARK} CASE WHEN backend_type IS NULL THEN 'hidden'
           WHEN state LIKE 'idle in transaction%%' THEN 'idle in transaction'
           ELSE coalesce(wait_event_type || ':' || wait_event, 'running') END, count(*)
    FROM pg_catalog.pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND (backend_type IS NULL OR backend_type = 'client backend'
           AND state NOT IN ('idle', 'disabled'))
    GROUP BY 1"""
_EXTENSION = f"""
    SELECT {_MARK} quote_ident(n.nspname) FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_stat_statements'"""
_TOTALS = """
    SELECT {mark} s.userid, s.queryid, s.calls, s.total_exec_time, s.rows
    FROM {schema}.pg_stat_statements(false) s
    JOIN pg_catalog.pg_database d ON d.oid = s.dbid
    WHERE d.datname = current_database()"""
_TEXTS = """
    SELECT {mark} s.queryid, max(s.query) FROM {schema}.pg_stat_statements(true) s
    JOIN pg_catalog.pg_database d ON d.oid = s.dbid
    WHERE d.datname = current_database() AND s.queryid IN ({ids}) GROUP BY 1"""
_VERSION = f"SELECT {_MARK} current_setting('server_version_num')::int"
# A server process tells what it counted once a second, or now; and not that it has committed
# unless it has read something as well.
_FLUSH = f"""
    SELECT {_MARK} pg_stat_force_next_flush() FROM pg_catalog.pg_database
    WHERE datname = current_database()"""
_FLUSH_SINCE = 150_000

LATE = "counts may lack the last second: this server or driver does not tell at once"
HIDDEN = "what other roles do is hidden: GRANT pg_read_all_stats shows it"
NO_EXTENSION = "no statements: CREATE EXTENSION pg_stat_statements in this database shows them"

# (calls, milliseconds, rows) by role and query, or by query.
Totals = Mapping[tuple[int, int], tuple[int, float, int]]
Differences = Mapping[int, tuple[int, float, int]]
_NONE = (0, 0.0, 0)


def _let_go(engine: AsyncEngine, raw: Any) -> None:
    if engine.dialect.has_terminate:
        engine.dialect.do_terminate(raw)
    elif (libpq := getattr(raw.driver_connection, "pgconn", None)) is not None:
        libpq.finish()  # psycopg's


class Look:
    """One connection that looks at the server of an engine; `notes` says what it cannot see."""

    def __init__(self, engine: AsyncEngine, connection: AsyncConnection, raw: Any) -> None:
        self._engine = engine
        self._connection = connection
        self._raw = raw
        self._schema: str | None = None
        self._flushes = False
        self.asked = 0
        self.notes: dict[str, None] = {}

    @classmethod
    async def at(cls, engine: AsyncEngine) -> Look:
        """Connect as the engine's pool does, with its arguments, but outside of it."""
        create = creator_of(engine.sync_engine.pool)
        no_record = cast(ConnectionPoolEntry, None)  # of a pool: there is none
        made: list[Any] = []

        def connect() -> Any:
            made.append(create(no_record))
            return made[-1]

        own = create_async_engine(
            engine.url, creator=connect, poolclass=NullPool, isolation_level="AUTOCOMMIT"
        )
        leave_out(own.sync_engine.pool)
        try:
            connection = await own.connect()
        except BaseException:  # SQLAlchemy 2.0 leaves what is cancelled in its first statements
            for raw in made:
                _let_go(engine, raw)
            raise
        return cls(engine, connection, (await connection.get_raw_connection()).dbapi_connection)

    async def survey(self) -> None:
        """See what can be seen; all other methods need it."""
        (number,) = (await self._ask(_VERSION))[0]
        self._flushes = number >= _FLUSH_SINCE and self._engine.dialect.driver == "asyncpg"
        if not self._flushes:
            self.notes[LATE] = None
        self._schema = await self._extension()
        # Once for nothing: a statement's first execution is more than one transaction.
        await self.flush()
        await self.waits()
        await self.database()
        await self.totals()

    async def close(self) -> None:
        """Say goodbye to the server."""
        await self._connection.close()

    def break_off(self) -> None:
        """Let go of the connection without a word to the server."""
        _let_go(self._engine, self._raw)

    async def flush(self) -> None:
        """Let the pool's idle connections, and this one, tell the server what they counted."""
        if self._flushes:
            self.asked += await _flush_idle(self._engine.sync_engine.pool)
            await self._ask(_FLUSH)

    async def waits(self) -> dict[str, int]:
        """Return how many connections of this database wait for what, now."""
        seen = {str(name): int(count) for name, count in await self._ask(_ACTIVITY)}
        if seen.pop("hidden", 0):
            self.notes[HIDDEN] = None
        return seen

    async def database(self) -> DatabaseCounts:
        """Return what the server has counted in this database so far."""
        (row,) = await self._ask(_DATABASE)
        return DatabaseCounts(*(int(getattr(row, f.name)) for f in fields(DatabaseCounts)))

    async def totals(self) -> Totals | None:
        """Return what it has counted of statements so far; None where they cannot be seen."""
        if self._schema is None:
            return None
        found: dict[tuple[int, int], tuple[int, float, int]] = {}
        statement = _TOTALS.format(mark=_MARK, schema=self._schema)
        for role, query, *counts in await self._ask(statement):
            if query is None:
                self.notes[HIDDEN] = None
            else:  # twice: called by a client, and within a function
                found[role, query] = _sum(found.get((role, query), _NONE), counts)
        return found

    async def statements(self, differences: Differences) -> list[ServerStatement]:
        """Return the statements with their texts, most time first, our own left out."""
        if not differences:
            return []
        ids = ", ".join(str(query) for query in differences)
        rows = await self._ask(_TEXTS.format(mark=_MARK, schema=self._schema, ids=ids))
        found = (
            ServerStatement(shortened(text), *differences[query])
            for query, text in rows
            if text is not None and _MARK not in text
        )
        return sorted(found, key=lambda statement: (-statement.total_ms, statement.statement))

    async def _extension(self) -> str | None:
        """Return the schema of pg_stat_statements, None where it cannot be used."""
        rows = await self._ask(_EXTENSION)
        if not rows:
            self.notes[NO_EXTENSION] = None
            return None
        schema = str(rows[0][0])
        try:
            await self._ask(_TOTALS.format(mark=_MARK, schema=schema))
        except Exception as error:  # not preloaded, say, or no EXECUTE for this role
            self.notes[f"no statements: {first_line(error)}"] = None
            return None
        return schema

    async def _ask(self, statement: str) -> Sequence[Any]:
        self.asked += 1
        return (await self._connection.exec_driver_sql(statement)).all()


def difference(before: Totals, after: Totals) -> Differences:
    """Return what was counted since, by query; from zero where it was reset in between."""
    found: dict[int, tuple[int, float, int]] = {}
    for (role, query), now in after.items():
        was = before.get((role, query), _NONE)
        if was[0] > now[0]:
            was = _NONE
        if now[0] > was[0]:
            since = (now[0] - was[0], now[1] - was[1], now[2] - was[2])
            found[query] = _sum(found.get(query, _NONE), since)
    return found


def _sum(one: tuple[int, float, int], other: Sequence[Any]) -> tuple[int, float, int]:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


async def _flush_idle(pool: Pool) -> int:
    """Execute the flush on every idle connection of the pool; return how many there were."""
    taken: list[Any] = []
    try:
        for _ in range(pool.checkedin() if isinstance(pool, QueuePool) else 0):
            # The class's: what waits for the pool is a run's, and counted.
            taken += [await greenlet_spawn(Pool.connect, pool)]
        # The driver's own: one simple query, and no transaction around it.
        work = (connection.driver_connection.execute(_FLUSH) for connection in taken)
        for done in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(done, BaseException):
                raise done
    finally:
        for connection in taken:
            await greenlet_spawn(connection.close)
    return len(taken)
