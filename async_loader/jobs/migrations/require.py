"""
Whether a job is done, asked before what rests on it: a migration, a deployment, a start.

A name has a run for each of its arguments and targets, and the latest of each is what counts.
Whatever is not known to be done is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, func, select, text
from sqlalchemy.engine import RowMapping
from sqlalchemy.engine.mock import MockConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from ...database.postgresql import first_line, unreachable
from ...errors import ConfigurationError, JobNotDoneError
from .. import layout
from ..definition import LONGEST_NAME, Arguments, canonical, check_arguments, check_line
from ..identity import target_of
from ..job import BatchJob
from ..reader import raise_denied
from ..states import SCHEMA
from ..tables import Tables, check_schema, tables_of
from ..targets import SHIPPED, load_job
from .script import NOTED, check_of

# What is said of a run that is not done.
_GOES_ON = "`job run` goes on with it"
_STANDING = {
    "running": "is running, or was interrupted: wait for it, or `job run` goes on with it",
    "paused": f"is paused: {_GOES_ON}",
    "failed": f"has failed: mend that, and {_GOES_ON}",
    "cancelled": "was cancelled: run the job again",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    What has to be done, by what the tables of `state_schema` say.

    `arguments`: of these alone; None: of all that it was run with. `schema`: the tables' own;
    None: that of the connection, with the rest of its search path. `allow_errors`: rows that
    may be in the error table. `recheck`: the job whose select must find no row by now.
    """

    name: str
    arguments: Arguments | None = None
    schema: str | None = None
    allow_errors: int = 0
    recheck: BatchJob | None = None
    state_schema: str = SCHEMA

    def __post_init__(self) -> None:
        _check_kinds(self.allow_errors, self.arguments, self.schema)
        check_arguments(self.arguments or {})


def _check_kinds(allow_errors: object, arguments: object, schema: object) -> None:
    """Raise `ConfigurationError` for what is none of those: a migration is seldom type-checked."""
    if not isinstance(allow_errors, int) or allow_errors < 0:
        raise ConfigurationError("allow_errors is a number of rows, 0 or more")
    if not isinstance(arguments, Mapping | None):
        raise ConfigurationError("arguments are a mapping of names and values, both text")
    if not isinstance(schema, str | None) or schema == "" or not (schema or "x").isprintable():
        raise ConfigurationError("schema is the name of the schema of a job's tables")


def require_job(
    job: str | BatchJob,
    connection: Connection | MockConnection,
    *,
    arguments: Arguments | None = None,
    schema: str | None = None,
    allow_errors: int = 0,
    recheck: bool = False,
    state_schema: str = SCHEMA,
) -> None:
    """
    Raise `JobNotDoneError` unless a job is done in this connection's database and schema.

    For a migration, before NOT NULL or a column that goes: `require_job("prices",
    op.get_bind())`. The latest run of each of its arguments has to be done, with no more than
    `allow_errors` rows in the error table. `arguments`: of these alone. `schema`: that of a job
    whose sessions have another search path than this connection. `recheck`: that its select
    finds no row by now, either; the job is then a `BatchJob` or "module:name", and a select whose
    rows apply clears. In a script that Alembic writes (`--sql`) it is a check that raises.
    """
    asked = Wanted("", arguments, schema, allow_errors, None, state_schema)
    wanted = _wanted(job, asked, recheck=recheck)
    if isinstance(connection, MockConnection):
        if recheck:
            raise ConfigurationError(
                "recheck reads rows, which a script (`--sql`) cannot: leave it out there"
            )
        if connection.dialect.name != "postgresql":
            raise ConfigurationError(
                f"no check can be written for {connection.dialect.name}: migrate connected"
            )
        check_schema("postgresql", state_schema)
        check = check_of(wanted.name, arguments, schema, allow_errors, state_schema)
        connection.execute(text(check))
        return
    if not isinstance(connection, Connection):
        raise ConfigurationError(
            "require_job takes a connection, as op.get_bind() is: with an engine of asyncio "
            "say `await require_job_async(name, engine)`"
        )
    try:
        _check(connection, wanted)
    except DBAPIError as error:
        raise_denied(error, connection.engine.url)
        raise


async def require_job_async(
    job: str | BatchJob,
    engine: AsyncEngine,
    *,
    arguments: Arguments | None = None,
    schema: str | None = None,
    allow_errors: int = 0,
    recheck: bool = False,
    state_schema: str = SCHEMA,
) -> None:
    """Do what `require_job` does, on an engine: for an application that starts."""
    if not isinstance(engine, AsyncEngine):
        raise ConfigurationError("require_job_async takes an AsyncEngine")
    asked = Wanted("", arguments, schema, allow_errors, None, state_schema)
    wanted = _wanted(job, asked, recheck=recheck)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_check, wanted)
    except (DBAPIError, OSError) as error:
        raise unreachable(error, engine.url) from error


def _wanted(job: str | BatchJob, asked: Wanted, *, recheck: bool) -> Wanted:
    """Return what is asked of a job by its name."""
    if isinstance(job, str) and (recheck or ":" in job):
        if ":" not in job and job not in SHIPPED:
            raise ConfigurationError(
                f"recheck needs the select of {job!r}: give its BatchJob, or module:name"
            )
        job = load_job(job)
    name: object = job.name if isinstance(job, BatchJob) else job
    if not isinstance(name, str) or not name:
        raise ConfigurationError("what is to be done is a job's name, or its BatchJob")
    check_line("a job's name", name, LONGEST_NAME)
    return replace(asked, name=name, recheck=_selecting(job) if recheck else None)


def _selecting(job: str | BatchJob) -> BatchJob:
    assert isinstance(job, BatchJob)
    if job.definition.select is None:
        raise ConfigurationError(f"{job.name} reads no rows: leave recheck out")
    return job


def _check(connection: Connection, wanted: Wanted) -> None:
    """Raise for the first run that is not done, or the first row that is not."""
    tables = tables_of(connection.dialect.name, wanted.state_schema)
    version = layout.version_there(connection, tables.run, tables.layout)
    if version is None:
        raise JobNotDoneError(f"{wanted.name} is not done here: no job has ever run")
    layout.refuse_other(version)
    arguments: list[Mapping[str, str]] = []
    for run in _latest(connection, tables, wanted):
        _check_run(wanted, run)
        arguments.append(json.loads(run["arguments"]))
    if wanted.recheck is not None:
        for its in arguments:
            _check_rows(connection, wanted.recheck, its)


def _check_run(wanted: Wanted, run: RowMapping) -> None:
    which = f"{wanted.name} is not done: run {run['id']} of {run['target'] or 'no table'}"
    if run["state"] != "done":
        raise JobNotDoneError(f"{which} {_STANDING[run['state']]}")
    if run["errors"] > wanted.allow_errors:
        some = "row" if run["errors"] == 1 else "rows"
        raise JobNotDoneError(
            f"{which} left {run['errors']:,} {some} in its error table: mend them and say "
            f"`job retry-errors`, or allow so many (allow_errors, {wanted.allow_errors:,})"
        )


def _latest(connection: Connection, tables: Tables, wanted: Wanted) -> list[RowMapping]:
    """Return the latest run of each arguments and target, of those that are meant."""
    run, error = tables.run, tables.error
    errors = select(func.count()).where(error.c.run == run.c.id).scalar_subquery()
    query = select(run, errors.label("errors")).where(run.c.job == wanted.name)
    if wanted.arguments is not None:
        query = query.where(run.c.arguments == canonical(wanted.arguments))
    runs = connection.execute(query.order_by(run.c.id.desc())).mappings().all()
    if not runs:
        of = "" if wanted.arguments is None else f" with the arguments {dict(wanted.arguments)}"
        raise JobNotDoneError(f"{wanted.name} is not done here: it has never run{of}")
    here = _Here.of(connection, wanted.schema)
    latest: dict[tuple[str, str], RowMapping] = {}
    for one in runs:
        if here.has(one["target"]):
            latest.setdefault((one["arguments"], one["target"]), one)
    if not latest:
        others = _some(one["target"] for one in runs)
        advice = "" if wanted.schema else "; if that is meant, name the schema of its tables"
        raise JobNotDoneError(f"{wanted.name} is not done {here}: it has run of {others}{advice}")
    return list(latest.values())


@dataclass(frozen=True, slots=True)
class _Here:
    """Where a run's tables have to be: in a search path as a whole, or in its first schema."""

    place: str
    whole: bool

    @classmethod
    def of(cls, connection: Connection, schema: str | None) -> _Here:
        if schema is not None:
            return cls(f"in {schema}", whole=False)
        translate = connection.get_execution_options().get("schema_translate_map") or {}
        return cls(_bare(target_of(connection, (), translate).name), whole=True)

    def has(self, target: str) -> bool:
        """Return whether a run's target is here."""
        target = _bare(target)
        if self.whole:
            return f" {target}".endswith(f" {self.place}")
        return f" {self.place}, " in f" {target}, "

    def __str__(self) -> str:
        return self.place


def _bare(target: str) -> str:
    """Return a target without what SQLAlchemy notes in a map of schemas once it has used it."""
    return re.sub(NOTED, "", target)


def _some(targets: Iterator[str]) -> str:
    found = list(dict.fromkeys(map(repr, targets)))
    return ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")


def _check_rows(connection: Connection, job: BatchJob, arguments: Arguments) -> None:
    """Raise where a job's select finds a row, that came behind it or that it does not clear."""
    keyset = job.definition.keyset(arguments)
    assert keyset is not None
    try:
        found: Any = connection.execute(keyset.only_keys.limit(1)).first()
    except DBAPIError:
        raise
    except SQLAlchemyError as error:
        raise ConfigurationError(f"a job's select does not run: {first_line(error)}") from error
    if found is not None:
        key = ", ".join(f"{c.key}={v}" for c, v in zip(keyset.columns, found, strict=True))
        raise JobNotDoneError(
            f"{job.name} is not done any more: its select finds the row {key}; run it again, or "
            "leave recheck out where its select finds rows that are done, too"
        )
