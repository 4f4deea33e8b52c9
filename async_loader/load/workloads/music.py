"""
Songs with plays and a score, and the two jobs that ship.

`top20` is a job of one transaction: a week's playlist with its 20 entries, once for each week
(`--arg week=2026-W07`). `derive-chords` derives two columns of every song from its score. Both
make the tables, and the songs (`--arg songs=100000`), where there are none.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ForeignKey, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncAttrs, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from async_loader.errors import ConfigurationError
from async_loader.inserts import insert_rows
from async_loader.jobs import BatchJob, Chunk
from async_loader.jobs.definition import Arguments

SONGS = 100_000
NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_BAR = 4  # notes
_BARS = 4
_AT_ONCE = 5_000


class Base(AsyncAttrs, DeclarativeBase):
    """Tables whose names say whose they are."""


class Song(Base):
    """A song: its score is notes, bar by bar; the chords and the key are derived from it."""

    __tablename__ = "async_loader_song"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    plays: Mapped[int] = mapped_column(index=True)
    score: Mapped[str]
    chords: Mapped[str | None]
    tonic: Mapped[str | None]


class Playlist(Base):
    """A week's songs, the most played first."""

    __tablename__ = "async_loader_playlist"

    id: Mapped[int] = mapped_column(primary_key=True)
    week: Mapped[str] = mapped_column(unique=True)
    entries: Mapped[list[Entry]] = relationship(back_populates="playlist")


class Entry(Base):
    """A song's place in a playlist."""

    __tablename__ = "async_loader_entry"

    playlist_id: Mapped[int] = mapped_column(ForeignKey(Playlist.id), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    song_id: Mapped[int] = mapped_column(ForeignKey(Song.id))
    playlist: Mapped[Playlist] = relationship(back_populates="entries")
    song: Mapped[Song] = relationship()


async def make_songs(sessions: async_sessionmaker[Any], arguments: Arguments) -> None:
    """Make the tables, and the songs if there are none; all of them or none."""
    songs = arguments.get("songs", str(SONGS))
    if not songs.isdigit():
        raise ConfigurationError("--arg songs=N: a number of songs")
    async with sessions.begin() as session:
        connection = await session.connection()
        await connection.run_sync(Base.metadata.create_all)
        if connection.dialect.name == "postgresql":
            await session.execute(select(func.pg_advisory_xact_lock(0x534F4E47)))  # "SONG"
        if await session.scalar(select(Song.id).limit(1)) is None:
            await insert_songs(session, int(songs))


async def insert_songs(session: AsyncSession, count: int) -> None:
    """Insert songs 1 to `count`; song i depends on i alone."""
    if session.get_bind().dialect.name == "postgresql":
        await insert_rows(session, Song, map(song, range(1, count + 1)))
        return
    for start in range(1, count + 1, _AT_ONCE):
        rows = [song(i) for i in range(start, min(start + _AT_ONCE, count + 1))]
        await session.execute(insert(Song), rows)


def song(number: int) -> dict[str, Any]:
    """Return the columns of a song."""
    rng = random.Random(number)  # noqa: S311  no secret
    bars = (" ".join(rng.choices(NOTES, k=_BAR)) for _ in range(_BARS))
    return {
        "id": number,
        "title": f"Song {number}",
        "plays": int(rng.paretovariate(1.2) * 100) % 10_000_000,
        "score": " | ".join(bars),
    }


def chords_of(score: str) -> str:
    """Return a triad for each bar: on its lowest note, minor where its minor third sounds."""
    return " ".join(_triad(bar.split()) for bar in score.split(" | "))


def tonic_of(score: str) -> str:
    """Return the note that sounds most often; the lower one of two."""
    counts = Counter(score.replace("|", "").split())
    return min(counts, key=lambda note: (-counts[note], NOTES.index(note)))


def _triad(bar: Sequence[str]) -> str:
    sounding = {NOTES.index(note) for note in bar}
    root = min(sounding)
    return NOTES[root] + ("m" if (root + 3) % 12 in sounding else "")


derive_chords = BatchJob(
    "derive-chords", select=select(Song).where(Song.chords.is_(None)), chunk=500, setup=make_songs
)


@derive_chords.apply
async def _derive(_session: AsyncSession, songs: Sequence[Song]) -> None:
    for song in songs:
        song.chords = chords_of(song.score)
        song.tonic = tonic_of(song.score)


top20 = BatchJob("top20", setup=make_songs)


@top20.apply
async def _top20(session: AsyncSession, _rows: Sequence[None], chunk: Chunk) -> None:
    week = chunk.arguments.get("week", _this_week())
    flavour = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    # Who inserts the week has it: a second one waits here, and finds it made.
    made = flavour.insert(Playlist).values(week=week).on_conflict_do_nothing()
    found = await session.scalars(made.returning(Playlist))
    playlist = found.one_or_none()
    if playlist is None:
        return
    best = await session.scalars(select(Song).order_by(Song.plays.desc(), Song.id).limit(20))
    entries = [Entry(place=n, song=song) for n, song in enumerate(best, start=1)]
    (await playlist.awaitable_attrs.entries).extend(entries)


def _this_week() -> str:
    return "{}-W{:02}".format(*datetime.now(UTC).isocalendar()[:2])
