"""
A directory's pairs of files, found and kept as rows: what is missing is a query.

Finding opens nothing. It goes through folders but not through links to folders, which might
lead anywhere, or in circles.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, exists, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from ..jobs.reader import Reader
from .tables import File, Track

AUDIO = (".mp3", ".m4a", ".flac", ".ogg", ".opus", ".wav")
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Pair:
    """An audio file and the picture beside it, by their names in the directory."""

    name: str
    picture: str
    size: int
    stamp: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What cannot be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Missing:
    """How much there is to read."""

    pairs: int
    size: int


def find(directory: str) -> Iterator[Pair | Problem]:
    """Yield the pairs below a directory, given as its real path, in the order of their names."""
    problems: list[Problem] = []

    def unreadable(error: OSError) -> None:
        name = os.path.relpath(error.filename, directory)
        problems.append(Problem(name, error.strerror or str(error)))

    for folder, folders, files in os.walk(directory, onerror=unreadable):
        yield from problems
        problems.clear()
        folders.sort()
        within = os.path.relpath(folder, directory)
        for name in folders:
            if _leads_out(os.path.join(folder, name), directory):  # noqa: PTH118  names as given
                yield Problem(os.path.normpath(os.path.join(within, name)), _OUT)  # noqa: PTH118
        yield from _pairs(folder, "" if within == "." else f"{within}/", sorted(files))
    yield from problems


_OUT = "a symbolic link out of the directory"


def _leads_out(path: str, directory: str) -> bool:
    real = os.path.realpath(path)
    return os.path.islink(path) and os.path.commonpath((real, directory)) != directory  # noqa: PTH114


def _pairs(folder: str, prefix: str, files: Sequence[str]) -> Iterator[Pair]:
    """Yield the pairs of one folder; where there is no picture, its usual name is tried."""
    pictures: dict[str, str] = {}
    parts = [(name, *os.path.splitext(name)) for name in files]  # noqa: PTH122  see above
    for ending in PICTURES:
        for name, stem, end in parts:
            if end.lower() == ending:
                pictures.setdefault(stem, name)
    for name, stem, end in parts:
        if end.lower() in AUDIO:
            picture = pictures.get(stem, f"{stem}{PICTURES[0]}")
            sizes, stamps = zip(*(_look(f"{folder}/{n}") for n in (name, picture)), strict=True)
            yield Pair(prefix + name, prefix + picture, sum(sizes), " ".join(stamps))


def _look(path: str) -> tuple[int, str]:
    """Return a file's size and what changes when it does; opening it tells what is wrong."""
    try:
        found = os.stat(path)  # noqa: PTH116  see above
    except OSError:
        return 0, "-"
    return found.st_size, f"{found.st_size}:{found.st_mtime_ns}"


class Listing:
    """The files of one directory in one database."""

    def __init__(
        self, sessions: async_sessionmaker[Any], engine: AsyncEngine, reader: Reader, directory: str
    ) -> None:
        self.directory = directory
        self._sessions = sessions
        self._insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        self._reader = reader

    @property
    def missing(self) -> ColumnElement[bool]:
        """The condition that a pair has no row yet and was not found unreadable."""
        return File.error.is_(None) & self._without_track

    @property
    def _without_track(self) -> ColumnElement[bool]:
        track = exists().where(Track.content_hash == File.content_hash)
        return (File.directory == self.directory) & ~track

    async def update(self) -> tuple[int, list[Problem]]:
        """
        Look through the directory, and return how many pairs it has and what cannot be entered.

        What has changed, or could not be read before, is missing again.
        """
        found, count, problems = find(self.directory), 0, list[Problem]()
        while page := await asyncio.to_thread(lambda: list(islice(found, _PAGE))):
            problems += [one for one in page if isinstance(one, Problem)]
            pairs = [one for one in page if isinstance(one, Pair)]
            count += len(pairs)
            if pairs:
                await self._transaction(lambda session, p=pairs: self._note(session, p))
        return count, problems

    def next_missing(self, number: int, count: int) -> Select[Any]:
        """Return the select of number, name, picture and size of what is next behind a file."""
        columns = (File.id, File.name, File.picture, File.size)
        query: Select[Any] = select(*columns)  # type: ignore[assignment]  # in 2.1 of each column
        return query.where(self.missing, File.id > number).order_by(File.id).limit(count)

    async def how_much(self) -> Missing:
        """Return how much is missing."""
        query = select(func.count(), func.coalesce(func.sum(File.size), 0)).where(self.missing)
        ((pairs, size),) = await self._reader.all(query)
        return Missing(pairs, int(size))

    async def failures(self) -> list[Problem]:
        """Return what could not be read, by name."""
        query = select(File.name, File.error).where(
            File.directory == self.directory, File.error.is_not(None)
        )
        return sorted((Problem(*row) for row in await self._reader.all(query)), key=_name)

    async def names(self, numbers: Sequence[int]) -> dict[int, str]:
        """Return the names of files by their numbers."""
        rows = await self._reader.all(select(File.id, File.name).where(File.id.in_(numbers)))
        return {row.id: row.name for row in rows}

    async def _note(self, session: AsyncSession, pairs: Sequence[Pair]) -> None:
        rows = [
            {"digest": self._digest(pair.name), "directory": self.directory, "name": pair.name,
             "picture": pair.picture, "size": pair.size, "stamp": pair.stamp}
            for pair in pairs
        ]  # fmt: skip
        statement = self._insert(File)
        new = statement.excluded
        changed = or_(File.stamp != new.stamp, File.picture != new.picture, File.error.is_not(None))
        await session.execute(
            statement.on_conflict_do_update(
                index_elements=[File.digest],
                set_={"picture": new.picture, "size": new.size, "stamp": new.stamp,
                      "content_hash": None, "error": None},
                where=changed,
            ),
            rows,
        )  # fmt: skip

    def _digest(self, name: str) -> bytes:
        return hashlib.sha256(os.fsencode(f"{self.directory}\0{name}")).digest()

    async def forget(self) -> None:
        """Forget the files that have no row and are not there any more."""
        last, page = 0, None
        while page is None or len(page) == _PAGE:
            page = await self._reader.all(
                select(File.id, File.name)
                .where(self._without_track, File.id > last)
                .order_by(File.id)
                .limit(_PAGE)
            )
            last = page[-1].id if page else last
            gone = await asyncio.to_thread(self._gone, page)
            if gone:
                statement = delete(File).where(File.id.in_(gone))
                await self._transaction(lambda session, s=statement: session.execute(s))

    def _gone(self, page: Sequence[Any]) -> list[int]:
        return [row.id for row in page if not os.path.lexists(f"{self.directory}/{row.name}")]

    async def _transaction(self, work: Any) -> None:
        """Do a small piece of work, again when a failure passes by itself."""

        async def attempt() -> None:
            async with self._sessions.begin() as session:
                await work(session)

        await self._reader.retry_transient(attempt)


def _name(problem: Problem) -> str:
    return problem.name
