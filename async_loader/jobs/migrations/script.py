"""
A check that a job is done, in a script that Alembic writes for somebody else to execute.

It says what `require.py` says of a connection, in one block of PL/pgSQL.
"""

from __future__ import annotations

import re

from ..definition import Arguments, canonical
from ..states import SCHEMA

_CHECK = """\
DO $async_loader$
DECLARE
    job CONSTANT text := {job};
    here CONSTANT text := {place};
    runs bigint;
    why text;
BEGIN
    IF to_regclass({schema} || '.run') IS NULL THEN
        RAISE EXCEPTION USING MESSAGE = job || ' is not done here' || chr(58)
            || ' no job has ever run';
    END IF;
    WITH latest AS (
        SELECT DISTINCT ON (r.arguments, r.target) r.id, r.state,
            (SELECT count(*) FROM {schema_name}.error e WHERE e.run = r.id) AS errors
        FROM {schema_name}.run r
        WHERE r.job = {job} AND {where}
        ORDER BY r.arguments, r.target, r.id DESC)
    SELECT count(*), min('run ' || id || ' is ' || state || ', with ' || errors
            || ' rows in its error table')
            FILTER (WHERE state <> 'done' OR errors > {allowed})
        INTO runs, why FROM latest;
    IF runs = 0 THEN
        why := 'it has never run ' || here;
    END IF;
    IF why IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = job || ' is not done' || chr(58) || ' ' || why;
    END IF;
END
$async_loader$"""

# Of a map's None: `_none as one`.
NOTED = ", _none as [^,]*"
_TARGET = f"regexp_replace(r.target, '{NOTED}', '')"
_PATH = "'in ' || array_to_string(current_schemas(false), ', ')"
# What Alembic, SQLAlchemy or a driver would take for a parameter, and what servers read otherwise.
_SPECIAL = re.compile(r"[^\w .,{}\"@/+=*-]")


def check_of(
    name: str,
    arguments: Arguments | None,
    schema: str | None,
    allow_errors: int,
    state_schema: str = SCHEMA,
) -> str:
    """Return a statement of PostgreSQL's that raises unless the job is done."""
    place = _PATH if schema is None else quoted(f"in {schema}")
    if schema is None:
        where = f"right(' ' || {_TARGET}, length(here) + 1) = ' ' || here"
    else:
        where = f"position(' ' || here || ', ' IN ' ' || {_TARGET} || ', ') > 0"
    if arguments is not None:
        where += f" AND r.arguments = {quoted(canonical(arguments))}"
    return _CHECK.format(
        job=quoted(name), place=place, where=where, allowed=int(allow_errors),
        schema=quoted(state_schema), schema_name=state_schema,
    )  # fmt: skip


def quoted(text: str) -> str:
    """Return a text as an expression that is the same to whoever reads the script."""
    parts = _SPECIAL.split(text)
    specials = [f"chr({ord(found)})" for found in _SPECIAL.findall(text)]
    pairs = [f"'{part}'" for part in parts]
    mixed = [one for pair in zip(pairs, [*specials, ""], strict=True) for one in pair if one]
    return " || ".join(mixed)
