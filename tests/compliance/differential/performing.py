"""One example, performed stock and batched in two databases of one server, and compared."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import create_mock_engine, event
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.util import await_only

from async_loader.inserts import enable_batching
from async_loader.inserts.changes import children, deletes, flush, post_updates, updates
from tests.compliance.differential import library
from tests.compliance.differential.comparing import DifferenceError, Numbers, Observed, compare
from tests.compliance.differential.conditions import LOG_TABLE, ROLE, SCHEMAS
from tests.compliance.differential.models import Example, World
from tests.compliance.differential.observation import Lens, described, in_order, listen
from tests.compliance.differential.ordering import install, start_run

T = TypeVar("T")

SIDES = ("stock", "batched")
_AFRESH_AFTER = 60  # examples, whose tables lie about till then
_STOCK_RUNS = 16
# Where rows do not come back, or in another form than they were sent; till it notices, objects
# have got the keys of others.
_STOCK_CANNOT = ("did not produce the correct number", "Can't match sentinel values")
# What only statements of ours have.
_OURS = ("unnest(", "\n, $", "\nRETURNING $", "generate_series(", "MERGE INTO")


class InvalidModelError(Exception):
    """A model that SQLAlchemy or the server does not take."""


class UnstableError(Exception):
    """Stock and stock are not the same."""


@dataclass
class Side:
    """One database, with its engines."""

    batching: bool
    changes: bool
    url: str
    driver: str
    admin: Any
    engines: dict[bool, AsyncEngine] = field(default_factory=dict)
    count: int = 0  # statements of ours
    mixed_up: bool = False  # SQLAlchemy's sorting gave an object the key of another
    refused: bool = False  # a statement whose keys it would have sorted

    def engine(self, heard: bool) -> AsyncEngine:
        """Return the engine that somebody listens to, or the other one."""
        if heard not in self.engines:
            url = make_url(self.url).set(drivername=f"postgresql+{self.driver}")
            engine = create_async_engine(url, pool_size=1, max_overflow=1)
            if heard:
                event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: None)
            self._watch(engine.dialect)
            self.engines[heard] = engine
        return self.engines[heard]

    def _watch(self, dialect: Any) -> None:
        """See statements where all go through: count ours, look whose keys came back."""
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            original = getattr(dialect, name)

            def count(cursor: Any, sql: str, *rest: Any, original: Any = original) -> Any:
                self.count += any(mark in sql for mark in _OURS)
                try:
                    result = original(cursor, sql, *rest)
                except Exception:
                    self.refused |= "sen_counter" in sql
                    raise
                # Rows come back as they went in; SQLAlchemy sorts them by the key, their last.
                if "sen_counter" in sql:
                    keys = [row[-1] for row in cursor._rows]
                    self.mixed_up |= keys != sorted(keys)
                return result

            setattr(dialect, name, count)

    async def execute(self, sql: list[str]) -> None:
        """Execute beside the sessions."""
        await self.admin.execute(";\n".join(sql))


def _batch_few() -> None:
    """Have few rows go the ways of many: examples have few."""
    modules: list[Any] = [children, deletes, flush, post_updates, updates]
    for module in modules:
        module.SMALLEST = 1
    modules[-1]._WORTHWHILE = 1


class Performer:
    """Keeps one server's databases and engines of one driver for many examples."""

    def __init__(
        self,
        url: str,
        driver: str,
        suffix: str = "",
        *,
        control: bool = False,
        changes: bool = False,
    ) -> None:
        self.url = url
        self.changes = changes  # updates and deletes are batched, too, however few
        if changes:
            _batch_few()
        self.control = control
        self.driver = driver
        self.suffix = suffix
        self.sides: list[Side] = []
        self.number = 0
        install()
        self._loop = asyncio.new_event_loop()
        self.run(self._open())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run in the one loop that the engines belong to."""
        return self._loop.run_until_complete(coroutine)

    async def _open(self) -> None:
        plain = make_url(self.url).set(drivername="postgresql")
        admin = await asyncpg.connect(plain.render_as_string(hide_password=False))
        try:
            for name in SIDES:
                database = f"differential_{self.driver}_{name}{self.suffix}"
                await admin.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
                await admin.execute(f"CREATE DATABASE {database} TEMPLATE template0")
                for setting in _SETTINGS:
                    await admin.execute(f"ALTER DATABASE {database} SET {setting}")
                url = plain.set(database=database).render_as_string(hide_password=False)
                batching = name == "batched" and not self.control
                side = Side(batching, self.changes, url, self.driver, await asyncpg.connect(url))
                self.sides.append(side)
                await side.execute(_SERVER)
        finally:
            await admin.close()

    def close(self) -> None:
        """Close connections and drop the databases."""
        self.run(self._close())
        self._loop.close()

    async def _close(self) -> None:
        for side in self.sides:
            for engine in side.engines.values():
                await engine.dispose()
            await side.admin.close()
        plain = make_url(self.url).set(drivername="postgresql")
        admin = await asyncpg.connect(plain.render_as_string(hide_password=False))
        for side in self.sides:
            name = make_url(side.url).database
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.close()

    def check(self, example: Example) -> tuple[Observed, Observed]:
        """Perform on both sides; raise DifferenceError for the first difference.

        SQLAlchemy itself takes objects from sets here and there, so in some units of work two
        stock runs differ: these say nothing about batching.
        """
        stock, batched = self._perform(example, self.sides)
        try:
            compare(stock, batched)
        except DifferenceError:
            if stock.tied:
                raise UnstableError("new objects of the same number") from None
            if stock.mixed_up:
                raise UnstableError("stock gives objects the keys of others") from None
            for _ in range(_STOCK_RUNS):
                (again,) = self._perform(example, self.sides[:1])
                try:
                    compare(stock, again)
                except DifferenceError as error:
                    raise UnstableError(str(error)) from error
            raise
        return stock, batched

    def _perform(self, example: Example, sides: list[Side]) -> list[Observed]:
        self.number += 1
        prefix = f"x{self.number}_"
        namespace = {name: getattr(library, name) for name in library.__all__}
        namespace["prefix"] = prefix
        try:
            sql = _made(example.world, prefix, namespace)
            return self.run(self._on(sides, example, sql, namespace))
        finally:
            if "Base" in namespace:
                namespace["Base"].registry.dispose()
            if self.number % _AFRESH_AFTER == 0:
                self.run(self._afresh())
                gc.collect()

    async def _on(
        self, sides: list[Side], example: Example, sql: list[str], namespace: dict[str, Any]
    ) -> list[Observed]:
        """Perform on one side after the other; their tables are made at the same time."""
        making = [asyncio.ensure_future(side.execute(sql)) for side in sides]
        try:
            found: list[Observed] = []
            for side, made in zip(sides, making, strict=True):
                try:
                    await made
                except asyncpg.PostgresError as error:
                    raise InvalidModelError(f"{type(error).__name__}: {error}") from error
                known = found[0].numbers if found else {}
                start_run(self.number)
                found.append(await _observe(side, example, dict(namespace), known))
            return found
        finally:
            await asyncio.gather(*making, return_exceptions=True)

    async def _afresh(self) -> None:
        """Drop the tables that have come together."""
        await asyncio.gather(*(side.execute(_AFRESH) for side in self.sides))


# Nobody asks whether a row survives a crash, and a plan is not worth compiling.
_SETTINGS = ("synchronous_commit = off", "jit = off")
_EXTENSIONS = [
    f"CREATE EXTENSION IF NOT EXISTS {name} SCHEMA pg_catalog" for name in ("citext", "hstore")
]
_SERVER = [
    *_EXTENSIONS,
    *(f"CREATE SCHEMA {name}" for name in SCHEMAS),
    f"DO $$ BEGIN CREATE ROLE {ROLE}; "
    "EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$",
    f"GRANT USAGE ON SCHEMA public, {', '.join(SCHEMAS)} TO {ROLE}",
]
_AFRESH = [
    # A recursion that ends in the middle of a driver's work leaves a transaction to nobody.
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'",
    f"DROP SCHEMA public, {', '.join(SCHEMAS)} CASCADE",
    "CREATE SCHEMA public",
    *_SERVER[len(_EXTENSIONS) :],
]


def _made(world: World, prefix: str, namespace: dict[str, Any]) -> list[str]:
    """Define the classes; return the SQL that makes their tables."""
    statements: list[str] = [f"CREATE SEQUENCE {prefix}numbers", LOG_TABLE]
    namespace["__name__"] = "example"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(world.source.replace("@", prefix), namespace)
            base = namespace["Base"]
            base.registry.configure()
            dialect: Any = PGDialect_asyncpg()  # type: ignore[no-untyped-call]  # SQLAlchemy's

            def remember(statement: Any, *_: Any, **__: Any) -> None:
                compiled = statement.compile(dialect=dialect, schema_translate_map=_map(world))
                statements.append(_rendered(compiled))

            mock: Any = create_mock_engine("postgresql+asyncpg://", remember)
            base.metadata.create_all(mock, checkfirst=False)
    except Exception as error:
        raise InvalidModelError(f"{type(error).__name__}: {error}") from error
    for entity in world.entities:
        if entity.partitioned:
            table, name = world.table(entity), f'"@{entity.name.lower()}_part'
            for part in range(2):
                statements.append(
                    f'CREATE TABLE {name}{part}" PARTITION OF {table} '
                    f"FOR VALUES WITH (MODULUS 2, REMAINDER {part})"
                )
        for sql in entity.keys.sql if entity.base is None else ():
            filled = sql.replace("{lower}", entity.name.lower())
            statements.append(filled.replace("{table}", world.table(entity)))
    statements += world.conditions
    return [statement.replace("@", prefix) for statement in statements]


def _map(world: World) -> dict[Any, Any] | None:
    return {"home": "tenant"} if world.options.get("translate") else None


def _rendered(compiled: Any) -> str:
    text = str(compiled)
    return text.replace("__[SCHEMA_home]", "tenant").replace("__[SCHEMA__none]", "public")


async def _observe(
    side: Side, example: Example, namespace: dict[str, Any], known: dict[int, Numbers]
) -> Observed:
    options = example.world.options
    engine = side.engine(bool(options.get("cursor_listener")))
    bound = engine
    if options.get("translate"):
        bound = bound.execution_options(schema_translate_map=_map(example.world))
    if options.get("autocommit"):
        bound = bound.execution_options(isolation_level="AUTOCOMMIT")
    sessions = async_sessionmaker(
        bound,
        expire_on_commit=bool(options.get("expire_on_commit")),
        autoflush=not options.get("no_autoflush"),
    )
    if side.batching:
        reserve: Any = options.get("reserve", 0)
        enable_batching(sessions, updates=side.changes, deletes=side.changes, reserve=reserve)
    observed, lens = Observed(stock=known), Lens(namespace)
    side.count, side.mixed_up, side.refused = 0, False, False
    library.memory.reset()
    async with sessions() as session:
        if options.get("role"):
            event.listen(session.sync_session, "after_begin", _take_role)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await session.run_sync(_steps, side, example, lens, observed)
            observed.warnings = [
                lens.mask(f"{one.category.__name__} {one.message}") for one in caught
            ]
    observed.events = in_order(observed.events)
    observed.calls = library.memory.calls
    observed.ours = side.count
    await _read(side, namespace["prefix"], lens, observed)
    # Where rows have to go one by one for their keys, it is another error that comes first.
    flawed = any(entity.keys.stock_mixes_up for entity in example.world.entities)
    observed.mixed_up |= side.mixed_up or (side.refused and flawed)
    return observed


def _take_role(_session: Session, _transaction: Any, connection: Any) -> None:
    connection.exec_driver_sql(f"SET LOCAL ROLE {ROLE}")


def _steps(
    session: Session,
    side: Side,
    example: Example,
    lens: Lens,
    observed: Observed,
) -> None:
    namespace, prefix = lens.namespace, lens.namespace["prefix"]

    def read(one: Any) -> None:
        for key in type(one).__mapper__.attrs.keys():  # noqa: SIM118 - no dictionary
            values.append(f"{key} {lens.show(getattr(one, key))}")

    values: list[str] = []
    pending = 0
    namespace.update(session=session, read=read)
    kind = str(example.world.options.get("listeners", ""))
    classes = [namespace[entity.name] for entity in example.world.entities]
    observed.events = listen(kind, session, classes, lens)
    finish = ["session.commit()", *(f"read({name})" for name, _ in _names(example))]
    for line in [*example.steps, *finish]:
        values.clear()
        error = None
        try:
            exec(line.replace("@", prefix), namespace)
        except Exception as raised:
            error = described(raised)
            observed.failed = True
            observed.mixed_up |= any(words in str(raised) for words in _STOCK_CANNOT)
            step = len(observed.steps)
            observed.numbers[step] = await_only(
                _count_as_stock(side, prefix, observed.stock.get(step))
            )
            observed.jumped |= (
                observed.stock.get(step, observed.numbers[step]) != observed.numbers[step]
            )
        seen: dict[str, Any] = {"error": error, "read": [lens.mask(value) for value in values]}
        if line[0] != "o" or error is not None or len(session.new) < pending:
            seen |= {"session": lens.session(session), **lens.states()}
        pending = len(session.new)
        observed.tied |= len({instance_state(one).insert_order for one in session.new}) < pending
        observed.steps.append((line, seen))
        if error is not None and not session.is_active:
            session.rollback()
            observed.steps.append(
                ("(rollback)", {"session": lens.session(session), **lens.states()})
            )


async def _count_as_stock(side: Side, prefix: str, stock: Numbers | None) -> Numbers:
    """Return how far everything has counted; let it go on from where stock has come to.

    A flush that fails has called as many defaults and drawn as many numbers as it came to.
    """
    memory = library.memory
    rows = await side.admin.fetch(_SEQUENCES, _like(prefix))
    sequences = tuple((row[0][len(prefix) :], row[1] or row[2], row[1] is not None) for row in rows)
    found = Numbers(tuple(memory.calls), dict(memory.counters), sequences)
    if stock is not None and stock != found:
        memory.calls[:], memory.counters = stock.calls, dict(stock.counters)
        schemas = {row[0][len(prefix) :]: row[3] for row in rows}
        for name, value, is_called in stock.sequences:
            quoted = f'{schemas[name]}."{prefix}{name}"'
            await side.admin.execute(
                "SELECT setval($1::regclass, $2, $3)", quoted, value, is_called
            )
    return found


def _names(example: Example) -> list[tuple[str, str]]:
    return [
        (line.split(" = ")[0], line)
        for line in example.steps
        if line[0] == "o" and line.split(" = ")[0][1:].isdigit()
    ]


_TABLES = """
SELECT format('SELECT %L AS t, (%s)::text AS v FROM %s%s', c.relname,
       (SELECT 'ROW(' || string_agg(CASE WHEN t.typname IN ('timestamptz') THEN
                  quote_ident(attname) || ' IS NULL' ELSE quote_ident(attname) END,
                  ',' ORDER BY attnum) || ')'
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
       c.oid::regclass, CASE WHEN c.relname LIKE '%\\_log' THEN ' ORDER BY n' END)
FROM pg_class c WHERE relkind IN ('r', 'p') AND NOT relispartition AND relname LIKE $1
"""
_SEQUENCES = """
SELECT sequencename, last_value, start_value, schemaname FROM pg_sequences
WHERE sequencename LIKE $1 ORDER BY 1
"""


def _like(prefix: str) -> str:
    return prefix.replace("_", "\\_") + "%"


async def _read(side: Side, prefix: str, lens: Lens, observed: Observed) -> None:
    like = _like(prefix)
    queries = [f"({row[0]})" for row in await side.admin.fetch(_TABLES, like)]
    for table, value in await side.admin.fetch("\nUNION ALL\n".join(queries)):
        observed.rows.setdefault(table[len(prefix) :], []).append(lens.mask(value))
    for table, rows in observed.rows.items():
        if table != "log":
            rows.sort()
    for name, value, *_ in await side.admin.fetch(_SEQUENCES, like):
        observed.sequences[name[len(prefix) :]] = value
