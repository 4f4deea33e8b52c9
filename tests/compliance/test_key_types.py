"""
Every type that PostgreSQL can order, as a job's key: each row once, or refused at the start.

    pytest tests/compliance/test_key_types.py            # a few examples, as in CI
    pytest -m soak tests/compliance/test_key_types.py    # a thousand, or $EXAMPLES
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, exists, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.types import NullType

from async_loader.database.embedded import EmbeddedServer
from async_loader.errors import ConfigurationError
from async_loader.jobs import BatchJob, list_runs
from async_loader.testing import Interrupted, interrupt_after

IN_CI, AT_FULL_COUNT = 15, int(os.environ.get("EXAMPLES", "1000"))

Values = st.SearchStrategy[str]


def _some(*special: str, more: Values | None = None) -> Values:
    return st.sampled_from(special) if more is None else st.sampled_from(special) | more


def _quoted(value: str) -> str:
    """Return a value as an array, range or row has it."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


SMALL = st.integers(-9, 9).map(str)
LETTERS = st.text("aAbBäÄßéz ~\\\"',{}()0_é", max_size=5)
DATES = _some(
    "-infinity", "infinity", "0044-03-15 BC", "0001-01-01", "9999-12-31", "5874897-12-31",
    "2000-02-29", more=st.dates().map(str),
)  # fmt: skip
CLOCKS = _some("00:00", "24:00:00", "23:59:59.999999", more=st.times().map(str))
OFFSETS = st.sampled_from(["+00", "+01", "-01", "+05:30", "-15:59", "+00:00:01"])
MOMENTS = _some(
    "-infinity", "infinity", "0044-03-15 04:05:06 BC", "294276-12-31 23:59:59.999999",
    "9999-12-31 23:59:59.999999", "0001-01-01 00:00:00", "2026-10-25 02:30:00",
    more=st.datetimes().map(str),
)  # fmt: skip
SPANS = _some(
    "1 month", "30 days", "29 days 24:00", "1 year", "365 days", "360 days", "-1 month", "-1 day",
    "-1 day +01:00", "1 mon -30 days", "0", "infinity", "-infinity", "178000000 years",
    more=st.tuples(st.integers(-40, 40), st.integers(-40, 40), st.integers(-10**7, 10**7)).map(
        lambda parts: "{} months {} days {} milliseconds".format(*parts)
    ),
)  # fmt: skip
NUMBERS = _some(
    "NaN", "Infinity", "-Infinity", "0", "1e-20", "1.0", "1.00", "0.1", "0.10000000000000000001",
    "1e100", more=st.decimals(allow_nan=False, allow_infinity=False, places=9).map(str),
)  # fmt: skip
FLOATS = _some(
    "NaN", "Infinity", "-Infinity", "0", "-0", "5e-324", "0.1", "0.30000000000000004",
    more=st.floats(allow_nan=False, allow_infinity=False).map(repr),
)  # fmt: skip
SINGLES = st.floats(width=32, allow_subnormal=False).map(repr)
BITS = st.text("01", min_size=5, max_size=5)
BYTES = st.binary(max_size=5).map(lambda value: "\\x" + value.hex())
NETS = st.ip_addresses().map(str)
WORDS = st.sampled_from(["sad", "ok", "happy", "Ω 'quoted'"])


def _arrays(of: Values) -> Values:
    return st.lists(of, max_size=3).map(lambda values: "{" + ",".join(map(_quoted, values)) + "}")


def _ranges(of: Values, order: Any = str) -> Values:
    ends = st.lists(of, min_size=2, max_size=2).map(lambda two: sorted(two, key=order))
    shapes = st.sampled_from(["[{},{})", "({},{}]", "[{},{}]", "empty", "(,{1})", "[{0},)", "(,)"])
    return st.builds(lambda shape, two: shape.format(*map(_quoted, two)), shapes, ends)


TYPES: dict[str, Values] = {
    "bool": st.sampled_from(["t", "f"]),
    "int2": st.integers(-(2**15), 2**15 - 1).map(str),
    "int4": st.integers(-(2**31), 2**31 - 1).map(str),
    "int8": st.integers(-(2**63), 2**63 - 1).map(str),
    "oid": st.integers(0, 2**32 - 1).map(str),
    "xid8": st.integers(0, 2**64 - 1).map(str),
    "pg_lsn": st.integers(0, 2**32 - 1).map("{0:X}/A".format),
    "tid": st.integers(0, 999).map("({0},1)".format),
    "numeric": NUMBERS,
    "numeric(12,3)": st.integers(-999, 999).map(lambda n: str(n / 1000)),
    "float4": _some("NaN", "Infinity", "0.1", "16777217", more=SINGLES),
    "float8": FLOATS,
    "money": SMALL,
    "text": LETTERS,
    "varchar(5)": LETTERS,
    "char(5)": LETTERS,
    '"char"': st.sampled_from([*"aAz~ ", "\\377", "\\200", ""]),
    "name": LETTERS,
    "citext": LETTERS,
    'text COLLATE "C"': LETTERS,
    'text COLLATE "POSIX"': LETTERS,
    "words": WORDS,
    "bytea": BYTES,
    "bit(5)": BITS,
    "varbit": st.text("01", max_size=5),
    "date": DATES,
    "time": CLOCKS,
    "timetz": st.builds(lambda clock, offset: clock + offset, CLOCKS, OFFSETS),
    "timestamp": MOMENTS,
    "timestamptz": MOMENTS,
    "interval": SPANS,
    "uuid": st.uuids().map(str),
    "inet": NETS,
    "cidr": NETS,
    "macaddr": st.binary(min_size=6, max_size=6).map(bytes.hex),
    "macaddr8": st.binary(min_size=8, max_size=8).map(bytes.hex),
    "jsonb": _some("1", "1.0", "1.10", "null", '"a"', "[1, 2]", '{"b": 1, "a": 2}', "[]", "true"),
    "tsvector": _some("a", "b:1", "a:1A b:2", "", "'x y'"),
    "tsquery": _some("a", "a & b", "!a", "a <-> b"),
    "hstore": _some("", "a=>1", "a=>NULL", '"x y"=>"1", b=>2'),
    "int4[]": _arrays(SMALL),
    "text[]": _arrays(LETTERS),
    "float8[]": _arrays(FLOATS),
    "timestamptz[]": _arrays(MOMENTS),
    "interval[]": _arrays(SPANS),
    "bytea[]": _arrays(BYTES),
    "words[]": _arrays(WORDS),
    "int4range": _ranges(SMALL, int),
    "numrange": _ranges(SMALL, int),
    "daterange": _ranges(st.dates().map(str)),
    "tstzrange": _ranges(st.datetimes().map(str)),
    "int4multirange": st.lists(_ranges(SMALL, int), max_size=2).map(
        lambda ranges: "{" + ",".join(r.replace('"', "") for r in ranges) + "}"
    ),
    "pair": st.builds(lambda n, word: f"({n},{_quoted(word)})", SMALL, LETTERS),
    "small": SMALL,
    "smaller": SMALL,
    "letters": LETTERS,
    "moments": MOMENTS,
    "spans": _arrays(SPANS),
}
MADE = (
    "CREATE EXTENSION citext", "CREATE EXTENSION hstore",
    "CREATE TYPE words AS ENUM ('sad', 'ok', 'happy', 'Ω ''quoted''')",
    "CREATE TYPE pair AS (a int, b text)",
    "CREATE DOMAIN small AS int CHECK (VALUE < 100)", "CREATE DOMAIN smaller AS small",
    'CREATE DOMAIN letters AS text COLLATE "C"', "CREATE DOMAIN moments AS timestamptz",
    "CREATE DOMAIN spans AS interval[]",
    "CREATE TABLE effect (n int NOT NULL)",
)  # fmt: skip
# A session's own settings are the application's business.
SESSIONS: tuple[dict[str, str], ...] = (
    {},
    {"DateStyle": "German", "IntervalStyle": "sql_standard", "extra_float_digits": "-5"},
    {"DateStyle": "SQL, DMY", "TimeZone": "Asia/Kolkata", "bytea_output": "escape"},
    {"DateStyle": "Postgres, MDY", "IntervalStyle": "postgres_verbose", "extra_float_digits": "0"},
)
_ISO = {"DateStyle": "ISO, DMY"}  # psycopg reads no other timestamptz, and nobody's with others


@dataclass(frozen=True)
class Example:
    """A table's key, what is in it, and how a job goes over it."""

    types: tuple[str, ...]
    directions: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    session: int
    chunk: int
    partitions: int
    until_empty: bool
    poison: frozenset[int]
    kills: tuple[tuple[int, Literal["before commit", "after commit"]], ...]


@st.composite
def examples(draw: st.DrawFn) -> Example:
    width = draw(st.sampled_from([1, 1, 1, 2]))
    types = tuple(draw(st.sampled_from(list(TYPES))) for _ in range(width))
    rows = draw(st.lists(st.tuples(*(TYPES[name] for name in types)), min_size=1, max_size=25))
    places = st.sampled_from(["before commit", "after commit"])
    return Example(
        types=types,
        directions=tuple(draw(st.sampled_from(["ASC", "DESC"])) for _ in types),
        rows=tuple(rows),
        session=draw(st.integers(0, len(SESSIONS) - 1)),
        chunk=draw(st.integers(1, 7)),
        partitions=draw(st.integers(1, 4)),
        until_empty=draw(st.booleans()),
        poison=frozenset(draw(st.lists(st.integers(0, 24), max_size=2))),
        kills=tuple(draw(st.lists(st.tuples(st.integers(0, 3), places), max_size=3))),
    )


_numbers = count()
EFFECT = Table("effect", MetaData(), Column("n", Integer))


async def fill(engine: AsyncEngine, example: Example) -> Table:
    """Make the table anew, with the rows that its types take."""
    columns = [f"k{n} {name} NOT NULL" for n, name in enumerate(example.types)]
    key = ", ".join(f"k{n} {way}" for n, way in enumerate(example.directions))
    names = ", ".join(f"k{n}" for n in range(len(example.types)))
    casts = [name.partition(" COLLATE")[0] for name in example.types]
    values = ", ".join(f"CAST(CAST(:k{n} AS text) AS {cast})" for n, cast in enumerate(casts))
    adding = text(f"INSERT INTO thing (n, {names}) VALUES (:n, {values}) ON CONFLICT DO NOTHING")
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS thing"))
        await connection.execute(text(f"CREATE TABLE thing (n int, {', '.join(columns)})"))
        await connection.execute(text(f"CREATE UNIQUE INDEX ON thing ({key})"))
        await connection.execute(text("TRUNCATE effect"))
        for n, row in enumerate(example.rows):
            with suppress(Exception):  # a range upside down, a date too far: not of this type
                async with connection.begin_nested():
                    await connection.execute(adding, {"n": n, **_named(row)})
    keys = (Column(f"k{n}", NullType(), nullable=False) for n in range(len(example.types)))
    return Table("thing", MetaData(), Column("n", Integer), *keys)


def _named(row: tuple[str, ...]) -> dict[str, str]:
    return {f"k{n}": value for n, value in enumerate(row)}


def job_over(table: Table, example: Example, name: str, poison: frozenset[int]) -> BatchJob:
    query: Any = select(table.c.n)
    if example.until_empty:
        query = query.where(~exists().where(EFFECT.c.n == table.c.n))
    key: Any = [column for column in table.c if column.name != "n"]
    job = BatchJob(
        name, select=query, key=key, chunk=example.chunk, partitions=example.partitions,
        until_empty=example.until_empty, skip_limit=99,
    )  # fmt: skip

    @job.apply
    async def apply(session: AsyncSession, rows: Sequence[Any]) -> None:
        for row in rows:
            if row.n in poison:
                raise ValueError("poison")
            await session.execute(insert(EFFECT).values(n=row.n))

    return job


async def reconcile(engine: AsyncEngine) -> tuple[list[int], list[int]]:
    """Return the numbers of the rows, and those that were applied, both in order."""
    async with engine.connect() as connection:
        rows = await connection.scalars(text("SELECT n FROM thing ORDER BY n"))
        effects = await connection.scalars(text("SELECT n FROM effect ORDER BY n"))
        return list(rows), list(effects)


async def failures(engine: AsyncEngine) -> list[str]:
    """Return what jobs have skipped, for whoever looks at a failing example."""
    query = "SELECT run || ' ' || key || ' ' || message FROM async_loader_jobs.error ORDER BY 1"
    async with engine.connect() as connection:
        return list(await connection.scalars(text(query)))[-5:]


async def hold(engine: AsyncEngine, example: Example) -> str:
    """Run an example, with its kills; return how it ended."""
    table = await fill(engine, example)
    sessions, name = async_sessionmaker(engine), f"types-{next(_numbers)}"
    job = job_over(table, example, name, example.poison)
    before = len(await list_runs(engine))
    try:
        for after, place in example.kills:
            with suppress(Interrupted), interrupt_after(after, place):
                if (await job.run(sessions, workers=2, idempotency_key=name)).state == "done":
                    break
        else:
            assert (await job.run(sessions, workers=2, idempotency_key=name)).state == "done"
    except ConfigurationError as error:
        note(str(error))
        assert (await reconcile(engine))[1] == []
        assert len(await list_runs(engine)) == before, "refused, but not at the start"
        return f"refused: {', '.join(example.types)}"
    rows, effects = await reconcile(engine)
    assert effects == [n for n in rows if n not in example.poison], await failures(engine)
    await job_over(table, example, name, frozenset()).retry_errors(sessions)
    rows, effects = await reconcile(engine)
    assert effects == rows
    return "each row once"


def engine_of(url: str, driver: str, session: dict[str, str]) -> AsyncEngine:
    arguments: dict[str, Any] = {"server_settings": session}
    if driver == "psycopg":
        session = {**session, **_ISO}
        options = (f"-c {name}={value.replace(' ', '')}" for name, value in session.items())
        arguments = {"options": " ".join(options)}
    return create_async_engine(
        make_url(url).set(drivername=f"postgresql+{driver}"), connect_args=arguments
    )


@pytest.fixture(scope="module")
def types_url(server: EmbeddedServer) -> str:
    """Return the URL of a database that has the types."""

    async def make() -> str:
        url = make_url(server.url).set(database="key_types")
        admin = create_async_engine(server.url, isolation_level="AUTOCOMMIT")
        async with admin.connect() as connection:
            await connection.execute(text("DROP DATABASE IF EXISTS key_types WITH (FORCE)"))
            await connection.execute(text("CREATE DATABASE key_types TEMPLATE template0"))
        await admin.dispose()
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            for statement in MADE:
                await connection.execute(text(statement))
        await engine.dispose()
        return url.render_as_string(hide_password=False)

    return asyncio.run(make())


def run(url: str, driver: str, example: Example) -> None:
    async def one() -> str:
        engine = engine_of(url, driver, SESSIONS[example.session])
        try:
            return await hold(engine, example)
        finally:
            await engine.dispose()

    event(asyncio.run(one()))


_LIMITS: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@settings(max_examples=IN_CI, **_LIMITS)
@given(example=examples())
def test_each_row_once_whatever_the_keys_type(
    types_url: str, driver: str, example: Example
) -> None:
    run(types_url, driver, example)


@pytest.mark.soak
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@settings(max_examples=AT_FULL_COUNT, **_LIMITS)
@given(example=examples())
def test_each_row_once_at_full_count(types_url: str, driver: str, example: Example) -> None:
    run(types_url, driver, example)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=2, **_LIMITS)
@given(data=st.data())
def test_most_types_are_keys(types_url: str, name: str, data: st.DataObject) -> None:
    """A refusal is for what cannot be had right, and not for whatever is rare."""
    rows = data.draw(st.lists(st.tuples(TYPES[name]), min_size=1, max_size=5))

    async def one() -> str:
        engine = engine_of(types_url, "asyncpg", {})
        try:
            return await hold(
                engine,
                Example((name,), ("ASC",), tuple(rows), 0, 2, 2, until_empty=False,
                        poison=frozenset(), kills=()),
            )  # fmt: skip
        finally:
            await engine.dispose()

    expected = f"refused: {name}" if name == "money" else "each row once"
    assert asyncio.run(one()) == expected
