"""
The rows that files become, and the list of the files.

Both tables lie in the user's own schema, are made when they are missing, and never dropped.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Integer,
    LargeBinary,
    Text,
    event,
    false,
    func,
    inspect,
    select,
)
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from ..errors import DatabaseError

_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up in INTEGER only
_MAKING = 0x54524143  # "TRAC"
_SURROGATE = re.compile("[\udc80-\udcff]")
_ESCAPED = re.compile("//([89a-f][0-9a-f])")


class FileName(TypeDecorator[str]):
    """
    A file's name as text, whatever its bytes are.

    A byte that is no UTF-8 is `//ff` in the database, which no other name contains: Python
    has it as a surrogate, and databases take none.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Any) -> str | None:
        """Return the name for the database."""
        if value is None:
            return None
        return _SURROGATE.sub(lambda match: f"//{ord(match[0]) - 0xDC00:02x}", value)

    def process_result_value(self, value: str | None, _dialect: Any) -> str | None:
        """Return the name as the file system has it."""
        if value is None:
            return None
        return _ESCAPED.sub(lambda match: chr(0xDC00 + int(match[1], 16)), value)


class Base(DeclarativeBase):
    """The tables of one machine's library of files."""


class Track(Base):
    """An audio file with its picture; the same content is one row, whatever its name."""

    __tablename__ = "track"

    id: Mapped[int] = mapped_column(_Number, primary_key=True)
    title: Mapped[str]
    artist: Mapped[str | None]
    description: Mapped[str | None]
    picture: Mapped[bytes]  # JPEG, at most 500 x 500
    audio: Mapped[bytes]
    content_hash: Mapped[bytes] = mapped_column(unique=True)  # SHA-256 of both files


class File(Base):
    """
    A pair of files that was found, and what became of it.

    `content_hash` is its track's once it was read, `error` why it could not be. `stamp` tells
    whether the files have changed since.
    """

    __tablename__ = "track_file"

    id: Mapped[int] = mapped_column(_Number, primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)  # a path is too long for it
    directory: Mapped[str] = mapped_column(FileName, index=True)
    name: Mapped[str] = mapped_column(FileName)  # of the audio file, in the directory
    picture: Mapped[str] = mapped_column(FileName)
    size: Mapped[int] = mapped_column(_Number)  # bytes, both files
    stamp: Mapped[str]
    content_hash: Mapped[bytes | None]
    error: Mapped[str | None]


# MP3 and JPEG are compressed already: to try it once more takes as long as the insert itself.
event.listen(
    Track.__table__,
    "after_create",
    DDL(  # type: ignore[no-untyped-call]  # SQLAlchemy's own lack
        "ALTER TABLE %(fullname)s ALTER COLUMN audio SET STORAGE EXTERNAL,"
        " ALTER COLUMN picture SET STORAGE EXTERNAL"
    ).execute_if(dialect="postgresql"),
)


async def make_tables(sessions: async_sessionmaker[Any]) -> None:
    """Make the tables that are missing; raises `DatabaseError` where others have their names."""
    if await _are_there(sessions):
        return
    async with sessions.begin() as session:
        connection = await session.connection()
        if connection.dialect.name == "postgresql":  # a second one waits until they are made
            await session.execute(select(func.pg_advisory_xact_lock(_MAKING)))
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(_refuse_others)


async def _are_there(sessions: async_sessionmaker[Any]) -> bool:
    """Return whether both tables have all their columns: one query, as a rule all there is."""
    async with sessions() as session:
        try:
            await session.execute(select(Track, File).join(File, false()).limit(0))
        except DBAPIError:
            return False  # what is amiss is looked at in peace
    return True


def _refuse_others(connection: Connection) -> None:
    inspector = inspect(connection)
    for table in Base.metadata.sorted_tables:
        schema = connection.schema_for_object(table)
        there = {column["name"] for column in inspector.get_columns(table.name, schema)}
        missing = [column.name for column in table.columns if column.name not in there]
        if missing:
            raise DatabaseError(
                f"this database has a table {table.name!r} of another kind, without "
                f"{', '.join(missing)}: give a database or a search_path without it"
            )
