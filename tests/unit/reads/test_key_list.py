"""`KeyList` as each database is told it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Integer, column, not_, select
from sqlalchemy.dialects import mssql, mysql, oracle, postgresql, sqlite
from sqlalchemy.dialects.postgresql import asyncpg, pg8000, psycopg, psycopg2

from async_loader.reads.key_list import KeyList

ARRAYS = {
    "asyncpg": (asyncpg.PGDialect_asyncpg, "x = ANY ($1::INTEGER[])"),
    "psycopg": (psycopg.PGDialect_psycopg, "x = ANY (%(primary_keys)s::INTEGER[])"),
    "psycopg_async": (psycopg.PGDialectAsync_psycopg, "x = ANY (%(primary_keys)s::INTEGER[])"),
}
LISTS = {
    "psycopg2": psycopg2.PGDialect_psycopg2, "pg8000": pg8000.PGDialect_pg8000,
    "sqlite": sqlite.dialect, "mysql": mysql.dialect, "oracle": oracle.dialect,
    "mssql": mssql.dialect,
}  # fmt: skip
KEYS: Any = KeyList(column("x", Integer), Integer())


def _where(dialect: Any, condition: Any) -> str:
    return str(select(1).where(condition).compile(dialect=dialect())).partition("WHERE ")[2]


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array(name: str) -> None:
    dialect, written = ARRAYS[name]
    assert _where(dialect, KEYS) == written


@pytest.mark.parametrize("name", LISTS)
def test_a_list(name: str) -> None:
    """Without `= 1`, also where there are no booleans."""
    assert _where(LISTS[name], KEYS) == "x IN (__[POSTCOMPILE_primary_keys])"


def test_it_prints_as_a_list() -> None:
    assert str(KEYS) == "x IN (__[POSTCOMPILE_primary_keys])"
    assert "NOT" in _where(postgresql.dialect, not_(KEYS))


def test_of_other_keys_it_is_another() -> None:
    """What is compiled is found by this."""
    other = KeyList(column("y", Integer), Integer())
    assert KEYS._generate_cache_key() == KeyList(KEYS.column, Integer())._generate_cache_key()
    assert KEYS._generate_cache_key() != other._generate_cache_key()
