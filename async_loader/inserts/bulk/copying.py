"""
COPY through either driver, with the errors of a statement that SQLAlchemy had executed.

What is private to asyncpg is used here only: its codecs, and COPY with columns asked for anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import length_hint
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.util.concurrency import await_only

from .._sqlalchemy import raise_as_executed
from .catalogue import quoted

Records = Sequence[Sequence[Any]]


def copy(connection: Connection, table: str, columns: Sequence[str], records: Records) -> None:
    """Copy records into columns of a table, both as SQL names them, in its transaction."""
    driver: Any = connection.connection.driver_connection
    names = ", ".join(map(quoted, columns))
    statement = f"COPY {table} ({names}) FROM STDIN"
    try:
        if connection.dialect.driver == "asyncpg":
            await_only(_by_asyncpg(driver, statement, f"SELECT {names} FROM {table}", records))
        elif connection.dialect.is_async:
            await_only(_by_psycopg_async(driver, statement, records))
        else:
            _by_psycopg(driver, statement, records)
    except BaseException as error:
        raise_as_executed(connection, error, statement)


def binary_codecs(connection: Connection) -> Callable[[int], bool]:
    """Return what tells whether a connection writes a type as binary, by its object id."""
    if connection.dialect.driver != "asyncpg":
        return lambda _oid: True
    driver: Any = connection.connection.driver_connection
    settings = driver._protocol.get_settings()

    def has_codec(oid: int) -> bool:
        # asyncpg looks up what it does not know yet, and then it is not a codec of somebody's.
        return settings.get_data_codec(oid) is None or settings.get_data_codec(oid, 1) is not None

    return has_codec


async def _by_asyncpg(driver: Any, statement: str, columns: str, records: Records) -> None:
    """
    Do what `copy_records_to_table` does, but ask anew what the columns are.

    Its own question is answered from a cache, and after ALTER COLUMN TYPE values would be
    encoded for the old type: an integer's four bytes may pass for a real's.
    """
    import asyncpg  # noqa: PLC0415  # psycopg's users need not have it loaded

    described = await driver.prepare(columns, name="")  # no name that a pooler could know
    rows = iter(records)
    try:
        await driver._protocol.copy_in(
            f"{statement} (FORMAT binary)", None, None, rows, described._state, None
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        raise
    except (AssertionError, TimeoutError):
        raise
    except Exception as error:
        # What a codec raises, in the class that it has in the parameters of a statement.
        row = len(records) - length_hint(rows)
        raise asyncpg.DataError(f"invalid input in row {row} of a COPY ({error})") from error


async def _by_psycopg_async(driver: Any, statement: str, records: Records) -> None:
    async with driver.cursor() as cursor, cursor.copy(statement) as copying:
        for record in records:
            await copying.write_row(record)


def _by_psycopg(driver: Any, statement: str, records: Records) -> None:
    with driver.cursor() as cursor, cursor.copy(statement) as copying:
        for record in records:
            copying.write_row(record)
