"""Files into rows, on both kinds of database: once each, whatever happens."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from async_loader import Stop
from async_loader.database.backends import backend_of
from async_loader.database.postgresql import closing
from async_loader.database.urls import parse_url
from async_loader.errors import DatabaseError, JobError
from async_loader.ingest import File, Ingested, Progress, Track, ingest, listing, loading
from async_loader.ingest.demo import jpeg, make_pairs, mp3
from async_loader.ingest.strategies import measure_ways
from async_loader.ingest.tables import make_tables
from async_loader.testing import Interrupted, interrupt_after

Sessions = async_sessionmaker[AsyncSession]
SMALL = {"audio": 3_000, "side": 60}


@pytest.fixture(params=["postgresql", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/library.sqlite"
    found: str = request.getfixturevalue("database_url")
    return found


@pytest.fixture
async def sessions(url: str) -> AsyncIterator[Sessions]:
    parsed = parse_url(url)
    engine = backend_of(parsed).create_engine(parsed, pool_size=8)
    async with closing(engine):
        yield backend_of(parsed).session_factories(engine, reads_autocommit=False)[0]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with ten pairs."""
    make_pairs(tmp_path / "files", 10, **SMALL)
    return tmp_path / "files"


def add(folder: Path, name: str, number: int) -> None:
    """Add a pair by another name."""
    (folder / f"{name}.mp3").write_bytes(mp3(number, 3_000))
    (folder / f"{name}.jpg").write_bytes(jpeg(number, 60))


async def titles(sessions: Sessions) -> list[str]:
    async with sessions() as session:
        return sorted(await session.scalars(select(Track.title)))


def numbered(*numbers: int) -> list[str]:
    return sorted(f"Track {number}" for number in numbers)


def outcome(done: Ingested) -> tuple[int, int, int, int, int]:
    """Return pairs found, in before, read, added, and of the same content."""
    counts = done.counts
    return done.found, done.before, counts.read, counts.added, counts.same


async def test_each_pair_becomes_a_row(sessions: Sessions, files: Path) -> None:
    done = await ingest(files, sessions, chunk=3)
    assert (done.state, outcome(done), done.failed) == ("done", (10, 0, 10, 10, 0), ())
    async with sessions() as session:
        track = (await session.scalars(select(Track).where(Track.title == "Track 4"))).one()
        assert track.audio == (files / "Artist 4 - Track 00004.mp3").read_bytes()
        assert track.picture == (files / "Artist 4 - Track 00004.jpg").read_bytes()
        assert (track.artist, track.description) == ("Artist 4", "Made to try async_loader with.")
    assert await titles(sessions) == numbered(*range(1, 11))


async def test_run_again_it_reads_what_is_missing(sessions: Sessions, files: Path) -> None:
    await ingest(files, sessions)
    assert outcome(await ingest(files, sessions)) == (10, 10, 0, 0, 0)
    make_pairs(files, 2, first=11, **SMALL)
    assert outcome(await ingest(files, sessions)) == (12, 10, 2, 2, 0)


async def test_the_same_pair_twice_is_one_row(sessions: Sessions, files: Path) -> None:
    (files / "again").mkdir()
    for name in ("copy", "again/copy", "another copy"):
        add(files, name, 3)
    done = await ingest(files, sessions, chunk=4, concurrency=2)
    assert outcome(done) == (13, 0, 13, 10, 3)
    assert outcome(await ingest(files, sessions)) == (13, 13, 0, 0, 0)
    assert await titles(sessions) == numbered(*range(1, 11))


async def test_another_directory_with_the_same_content(sessions: Sessions, files: Path) -> None:
    await ingest(files, sessions)
    moved = files.rename(files.parent / "moved")
    assert outcome(await ingest(moved, sessions)) == (10, 0, 10, 0, 10)


async def test_a_row_that_was_deleted_comes_back(sessions: Sessions, files: Path) -> None:
    await ingest(files, sessions)
    async with sessions.begin() as session:
        await session.execute(delete(Track).where(Track.title == "Track 7"))
    assert outcome(await ingest(files, sessions)) == (10, 9, 1, 1, 0)


async def test_a_file_that_changed_is_read_again(sessions: Sessions, files: Path) -> None:
    await ingest(files, sessions)
    (files / "Artist 5 - Track 00005.mp3").write_bytes(mp3(50, 3_000))
    assert outcome(await ingest(files, sessions)) == (10, 9, 1, 1, 0)
    assert await titles(sessions) == numbered(*range(1, 11), 50)


async def test_originals_stay_as_they_are(sessions: Sessions, files: Path) -> None:
    def state() -> dict[str, tuple[str, int, int]]:
        return {
            path.name: (
                hashlib.sha256(path.read_bytes()).hexdigest(),
                path.stat().st_mtime_ns,
                path.stat().st_mode,
            )
            for path in files.iterdir()
        }

    (files / "Artist 1 - Track 00001.jpg").write_bytes(jpeg(1, 900))
    before = state()
    await ingest(files, sessions)
    assert state() == before


async def test_what_cannot_be_read_is_named_and_the_others_go_in(
    sessions: Sessions, files: Path
) -> None:
    (files.parent / "secret.mp3").write_bytes(mp3(99, 3_000))
    (files / "no picture.mp3").write_bytes(mp3(20, 3_000))
    add(files, "empty", 21)
    (files / "empty.mp3").write_bytes(b"")
    add(files, "empty picture", 22)
    (files / "empty picture.jpg").write_bytes(b"")
    add(files, "text", 23)
    (files / "text.jpg").write_bytes(b"text")
    add(files, "cut", 24)
    (files / "cut.jpg").write_bytes(jpeg(24, 60)[:400])
    add(files, "out", 25)
    (files / "out.mp3").unlink()
    (files / "out.mp3").symlink_to("../secret.mp3")
    (files / "outside").symlink_to("..")
    done = await ingest(files, sessions, chunk=4)
    assert {one.name: one.reason.split(": ")[:2] for one in done.failed} == {
        "no picture.mp3": ["its picture, no picture.jpg", "not there"],
        "empty.mp3": ["empty"],
        "empty picture.mp3": ["its picture, empty picture.jpg", "empty"],
        "text.mp3": ["its picture", "not a picture (JPEG, PNG, WEBP)"],
        "cut.mp3": ["its picture", "damaged"],
        "out.mp3": ["a symbolic link out of the directory"],
        "outside": ["a symbolic link out of the directory"],
    }
    assert done.counts.failed == 6
    assert await titles(sessions) == numbered(*range(1, 11))
    # Repaired, or taken away, it is read or forgotten; the rest is tried and named again.
    add(files, "empty", 21)
    for name in ("text.mp3", "cut.mp3", "outside"):
        (files / name).unlink()
    again = await ingest(files, sessions)
    assert outcome(again) == (14, 10, 4, 1, 0)
    assert [one.name for one in again.failed] == [
        "empty picture.mp3", "no picture.mp3", "out.mp3",
    ]  # fmt: skip


async def test_odd_names(sessions: Sessions, files: Path) -> None:
    names = ["ü - ♪", "new\nline", "n" * 251, "a\tb'\"%s:x", "  ", "-rf", "caf\udce9"]
    for number, name in enumerate(names, start=30):
        add(files, name, number)
    (files / "\udcff.mp3").write_bytes(b"no picture")
    done = await ingest(files, sessions)
    assert outcome(done)[3] == 10 + len(names)
    assert [(one.name, one.reason) for one in done.failed] == [
        ("\udcff.mp3", "its picture, \\udcff.jpg: not there")
    ]
    async with sessions() as session:
        kept = set(await session.scalars(select(File.name)))
    assert {f"{name}.mp3" for name in names} <= kept
    assert outcome(await ingest(files, sessions)) == (18, 17, 1, 0, 0)


async def test_files_that_vanish_in_between(
    sessions: Sessions, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = listing.find

    def find(directory: str) -> Any:
        yield from found(directory)
        (files / "Artist 2 - Track 00002.mp3").unlink()
        (files / "Artist 3 - Track 00003.jpg").unlink()

    monkeypatch.setattr(listing, "find", find)
    done = await ingest(files, sessions)
    # The one was gone before anything was read; the other's audio file is still there.
    assert [one.name for one in done.failed] == ["Artist 3 - Track 00003.mp3"]
    assert done.counts.added == 8


async def test_a_file_that_vanishes_before_it_is_opened(
    sessions: Sessions, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how_much = listing.Listing.how_much

    async def and_gone(self: listing.Listing) -> Any:
        (files / "Artist 2 - Track 00002.mp3").unlink(missing_ok=True)
        return await how_much(self)

    monkeypatch.setattr(listing.Listing, "how_much", and_gone)
    done = await ingest(files, sessions, concurrency=1)  # only the first is begun by then
    assert [(one.name, one.reason) for one in done.failed] == [
        ("Artist 2 - Track 00002.mp3", "not there")
    ]
    assert (await ingest(files, sessions)).failed == ()


@pytest.mark.parametrize("place", ["before commit", "after commit"])
async def test_cut_off_at_a_chunk_it_goes_on(sessions: Sessions, files: Path, place: Any) -> None:
    with pytest.raises(Interrupted), interrupt_after(2, place):
        await ingest(files, sessions, chunk=3, concurrency=1)  # one worker
    there = 6 if place == "before commit" else 9
    assert len(await titles(sessions)) == there
    make_pairs(files, 2, first=11, **SMALL)  # what a resumed run knows nothing of
    done = await ingest(files, sessions, chunk=3)
    assert outcome(done) == (12, there, 12 - there, 12 - there, 0)
    assert await titles(sessions) == numbered(*range(1, 13))


async def test_told_to_stop_it_pauses(sessions: Sessions, files: Path) -> None:
    stop = Stop()
    stop.request()
    done = await ingest(files, sessions, stop=stop)
    assert (done.state, done.counts.read) == ("paused", 0)
    assert (await ingest(files, sessions)).counts.added == 10


async def test_progress_in_pairs_and_bytes(sessions: Sessions, files: Path) -> None:
    seen: list[Progress] = []
    await ingest(files, sessions, on_progress=seen.append)
    size = sum(path.stat().st_size for path in files.iterdir())
    assert seen[0] == Progress(0, 10, 0, size)
    assert seen[-1] == Progress(10, 10, size, size)


async def test_a_row_that_the_database_refuses(sessions: Sessions, files: Path) -> None:
    await make_tables(sessions)
    async with sessions.begin() as session:
        if session.get_bind().dialect.name == "postgresql":
            rule = "ALTER TABLE track ADD CHECK (title <> 'Track 6')"
        else:
            rule = (
                "CREATE TRIGGER no_six BEFORE INSERT ON track WHEN NEW.title = 'Track 6'"
                " BEGIN SELECT RAISE(ABORT, 'no six'); END"
            )
        await session.execute(text(rule))
    done = await ingest(files, sessions, chunk=4)
    assert [one.name for one in done.failed] == ["Artist 6 - Track 00006.mp3"]
    assert await titles(sessions) == numbered(*(n for n in range(1, 11) if n != 6))


async def test_a_database_that_refuses_all(
    sessions: Sessions, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_REFUSED_AT_MOST", 2)
    await make_tables(sessions)
    async with sessions.begin() as session:
        await session.execute(text("ALTER TABLE track ADD more INTEGER"))
        if session.get_bind().dialect.name == "postgresql":
            await session.execute(text("ALTER TABLE track ALTER more SET NOT NULL"))
        else:
            await session.execute(
                text(
                    "CREATE TRIGGER none BEFORE INSERT ON track"
                    " BEGIN SELECT RAISE(ABORT, 'none'); END"
                )
            )
    with pytest.raises(JobError, match="skip_limit"):
        await ingest(files, sessions)


async def test_a_table_of_another_kind_is_left_alone(sessions: Sessions, files: Path) -> None:
    async with sessions.begin() as session:
        await session.execute(text("CREATE TABLE track (id INTEGER PRIMARY KEY, lap TEXT)"))
    with pytest.raises(DatabaseError, match="table 'track' of another kind, without title"):
        await ingest(files, sessions)


async def test_the_other_ways_leave_the_users_tables_alone(
    sessions: Sessions, url: str, files: Path, tmp_path: Path
) -> None:
    add(files, "copy", 3)
    (files / "no picture.mp3").write_bytes(mp3(20, 3_000))
    await ingest(files, sessions)
    measures = await measure_ways(
        os.path.realpath(files), parse_url(url), concurrency=4, chunk=4, rounds=1, stop=Stop()
    )
    assert [one.way for one in measures] == [
        "sequential", "threads", "add_one_by_one", "bulk_save_objects", "ours",
    ]  # fmt: skip
    assert {one.pairs for one in measures} == {10}
    assert all(one.seconds > 0 < one.database and one.computing > 0 for one in measures)
    async with sessions() as session:
        assert await session.scalar(select(func.count(Track.id))) == 10
        if session.get_bind().dialect.name == "postgresql":
            schemas = text(
                "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'async_loader_run%'"
            )
            assert await session.scalar(schemas) == 0
    assert not list(tmp_path.glob("ingest-*"))


async def test_two_processes_with_the_same_content(database_url: str, tmp_path: Path) -> None:
    """Two directories at once: who comes second finds the row, in a transaction under way too."""
    parsed = parse_url(database_url)
    for name in ("one", "two"):
        make_pairs(tmp_path / name, 30, **SMALL)
    engine = backend_of(parsed).create_engine(parsed, pool_size=12)
    async with closing(engine):
        sessions, _ = backend_of(parsed).session_factories(engine, reads_autocommit=False)
        both = await asyncio.gather(
            *(ingest(tmp_path / name, sessions, chunk=5) for name in ("one", "two"))
        )
        assert sum(done.counts.added for done in both) == 30
        assert [done.failed for done in both] == [(), ()]
        assert await titles(sessions) == numbered(*range(1, 31))


async def test_several_writers_share_the_files(
    database_url: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine with more CPUs than two."""
    monkeypatch.setitem(loading._SIZES, "postgresql", loading.Sizes(writers=4, chunk=2))
    parsed = parse_url(database_url)
    engine = backend_of(parsed).create_engine(parsed, pool_size=6)
    async with closing(engine):
        sessions, _ = backend_of(parsed).session_factories(engine, reads_autocommit=False)
        make_pairs(files, 20, first=11, **SMALL)
        done = await ingest(files, sessions)
        assert (done.state, outcome(done), done.failed) == ("done", (30, 0, 30, 30, 0), ())
        assert await titles(sessions) == numbered(*range(1, 31))


async def test_audio_is_not_compressed_once_more(database_url: str) -> None:
    parsed = parse_url(database_url)
    engine = backend_of(parsed).create_engine(parsed, pool_size=1)
    async with closing(engine):
        sessions, _ = backend_of(parsed).session_factories(engine, reads_autocommit=False)
        await make_tables(sessions)
        query = text(
            "SELECT attname, attstorage::text FROM pg_attribute"
            " WHERE attrelid = 'track'::regclass AND attname IN ('audio', 'picture')"
        )
        async with sessions() as session:
            assert {tuple(row) for row in await session.execute(query)} == {
                ("audio", "e"), ("picture", "e"),
            }  # fmt: skip
