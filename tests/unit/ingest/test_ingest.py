"""What a pair of files becomes, and which files are refused, without a database."""

from __future__ import annotations

import asyncio
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from async_loader.errors import ConfigurationError
from async_loader.ingest import preparing
from async_loader.ingest.demo import jpeg, make_pairs, mp3
from async_loader.ingest.listing import Missing, Pair, Problem, find
from async_loader.ingest.loading import real_directory
from async_loader.ingest.pictures import fit
from async_loader.ingest.pipeline import Ahead
from async_loader.ingest.preparing import CHANGED, Prepared, read_pair, row_of, unless_changed
from async_loader.ingest.reading import UnreadableError, read_within
from async_loader.ingest.report import comparison, progress_line, shown, summary
from async_loader.ingest.strategies import Measure
from async_loader.ingest.tables import FileName
from async_loader.ingest.tags import Tags, tags_of
from async_loader.ingest.tally import Counts, Ingested, Progress, Tally

ORIENTATION = 0x0112


def picture(size: tuple[int, int], form: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    """Return a picture whose left half is dark."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 2, size[1]), fill="black")
    out = BytesIO()
    image.convert(mode).save(out, form, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def dark(image: Image.Image, place: tuple[int, int]) -> bool:
    return image.convert("L").tobytes()[place[1] * image.width + place[0]] < 100


# --- pictures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "wanted"), [((1000, 800), (500, 400)), ((300, 1200), (125, 500)), ((501, 1), (500, 1))]
)
def test_a_picture_fits_and_keeps_its_proportions(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert opened(fit(picture(size))).size == wanted


def test_a_small_picture_stays_as_it_is() -> None:
    small = picture((500, 300))
    assert fit(small) is small


@pytest.mark.parametrize("size", [(1000, 800), (100, 80)])
def test_orientation_is_honoured(size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned clockwise: the left half comes to the top
    done = opened(fit(picture(size, exif=exif)))
    assert done.size[0] < done.size[1]
    assert dark(done, (done.size[0] // 2, 2))
    assert not dark(done, (2, done.size[1] - 3))
    assert done.getexif().get(ORIENTATION, 1) == 1


@pytest.mark.parametrize(
    ("form", "mode"),
    [("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("PNG", "1")],
)
def test_other_pictures_become_jpeg(form: str, mode: str) -> None:
    done = opened(fit(picture((800, 600), form, mode)))
    assert (done.format, done.size) == ("JPEG", (500, 375))
    assert dark(done, (5, 100))
    assert not dark(done, (490, 100))


def test_what_was_transparent_is_white() -> None:
    out = BytesIO()
    Image.new("RGBA", (600, 600), (0, 0, 0, 0)).save(out, "PNG")
    assert not dark(opened(fit(out.getvalue())), (10, 10))


@pytest.mark.parametrize("cut", [20, 300, -100])
def test_a_damaged_picture_is_refused(cut: int) -> None:
    for size in ((900, 700), (400, 300)):
        with pytest.raises(UnreadableError):
            fit(picture(size)[:cut])


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(UnreadableError, match="not a picture"):
        fit(b"%PDF-1.7 is no picture")


@pytest.mark.parametrize("side", [9_500, 13_500])  # Pillow's warning, and its error
def test_a_bomb_is_refused(side: int) -> None:
    bomb = BytesIO()
    Image.new("1", (side, side)).save(bomb, "PNG")
    assert len(bomb.getvalue()) < 100_000
    with pytest.raises(UnreadableError, match="more than 89,478,485 pixels"):
        fit(bomb.getvalue())


# --- tags ------------------------------------------------------------------------------------


def test_tags_of_an_mp3() -> None:
    assert tags_of(mp3(13), "x.mp3") == Tags(
        "Track 13", "Artist 3", "Made to try async_loader with."
    )


@pytest.mark.parametrize("audio", [b"no tags", b"ID3\x04\x00\x00\x00\x00\x01\x00" + b"\xff" * 300])
@pytest.mark.parametrize(
    ("name", "artist", "title"),
    [
        ("album/Björk - Jóga.mp3", "Björk", "Jóga"),
        ("Jóga.mp3", None, "Jóga"),
        (" - .mp3", None, " - "),
        ("a - b - c.mp3", "a - b", "c"),
        ("caf\udce9.mp3", None, "caf?"),
    ],
)
def test_without_tags_the_name_says_it(
    audio: bytes, name: str, artist: str | None, title: str
) -> None:
    tags = tags_of(audio, name)
    assert (tags.artist, tags.title.strip()) == (artist, title.strip() or tags.title.strip())
    assert tags.description is None


def test_a_flac_has_vorbis_comments() -> None:
    import mutagen.flac

    info = bytes([0, 16, 0, 16]) + bytes(6) + b"\x0a\xc4\x42\xf0" + bytes(4) + bytes(16)
    file = BytesIO(b"fLaC" + b"\x80\x00\x00\x22" + info)
    flac: Any = mutagen.flac.FLAC(file)  # type: ignore[no-untyped-call]
    flac["title"], flac["artist"], flac["description"] = "T", ["A", "B"], "D"
    file.seek(0)
    flac.save(file)
    assert tags_of(file.getvalue(), "n.flac") == Tags("T", "A, B", "D")


# --- reading ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.mp3").write_bytes(b"secret")
    (inside / "a.mp3").write_bytes(b"music")
    return inside


def reason(folder: Path, name: str, most: int = 1000) -> str:
    with pytest.raises(UnreadableError) as raised:
        read_within(os.path.realpath(folder), name, most)
    return str(raised.value)


def test_files_that_cannot_be_read(folder: Path) -> None:
    (folder / "empty.mp3").touch()
    (folder / "folder.mp3").mkdir()
    (folder / "long.mp3").write_bytes(bytes(1001))
    os.mkfifo(folder / "pipe.mp3")
    assert reason(folder, "empty.mp3") == "empty"
    assert reason(folder, "gone.mp3") == "not there"
    assert reason(folder, "folder.mp3") in ("no regular file", "Is a directory")
    assert reason(folder, "long.mp3") == "longer than 0 MiB"
    assert reason(folder, "pipe.mp3") == "no regular file"
    assert reason(folder, "n" * 300 + ".mp3") == "File name too long"


def test_a_pair_of_two_times_does_not_go_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files are replaced between the reading of the one and of the other."""
    (folder / "a.jpg").write_bytes(b"picture")
    real = read_within

    def replaced(directory: str, name: str, *most: int) -> Any:
        found = real(directory, name, *most)
        if name == "a.mp3":
            for each in ("a.mp3", "a.jpg"):
                (folder / "new").write_bytes(b"other!")
                (folder / "new").rename(folder / each)
        return found

    monkeypatch.setattr(preparing, "read_within", replaced)
    with pytest.raises(UnreadableError, match="changed while they were read"):
        read_pair(os.path.realpath(folder), "a.mp3", "a.jpg")


def test_a_file_that_changes_before_its_row_is_written(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"picture")
    directory = os.path.realpath(folder)
    contents = read_pair(directory, "a.mp3", "a.jpg")
    batch = [Prepared(1, 5, {"title": "a"}, states=contents.states)]
    assert unless_changed(directory, batch) == batch
    (folder / "a.jpg").write_bytes(b"painting")
    (one,) = unless_changed(directory, batch)
    assert (one.row, one.error) == (None, CHANGED)


def test_links_lead_out_in_or_nowhere(folder: Path) -> None:
    (folder / "out.mp3").symlink_to("../outside.mp3")
    (folder / "in.mp3").symlink_to(folder / "a.mp3")
    (folder / "nowhere.mp3").symlink_to("nothing")
    (folder / "round.mp3").symlink_to("round.mp3")
    (folder / "up").symlink_to("..")
    assert reason(folder, "out.mp3") == "a symbolic link out of the directory"
    assert reason(folder, "up/outside.mp3") == "a symbolic link out of the directory"
    assert reason(folder, "nowhere.mp3") == "a symbolic link to nothing"
    assert "symbolic links" in reason(folder, "round.mp3")
    assert read_within(os.path.realpath(folder), "in.mp3")[0] == b"music"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(folder: Path) -> None:
    (folder / "a.mp3").chmod(0)
    assert reason(folder, "a.mp3") == "Permission denied"


def test_the_reason_names_the_picture(folder: Path) -> None:
    with pytest.raises(UnreadableError, match=r"^its picture, a\.jpg: not there$"):
        read_pair(str(folder), "a.mp3", "a.jpg")
    (folder / "a.jpg").write_bytes(b"text")
    with pytest.raises(UnreadableError, match=r"^its picture: not a picture"):
        row_of(read_pair(str(folder), "a.mp3", "a.jpg"))


def test_the_hash_is_of_both_files(folder: Path) -> None:
    def hash_of(audio: bytes, image: bytes) -> bytes:
        (folder / "a.mp3").write_bytes(audio)
        (folder / "a.jpg").write_bytes(image)
        row, _ = row_of(read_pair(str(folder), "a.mp3", "a.jpg"))
        found = row["content_hash"]
        assert isinstance(found, bytes)
        return found

    one, two = jpeg(1, 60), jpeg(2, 60)
    hashes = [hash_of(*pair) for pair in ((b"a", one), (b"b", one), (b"a", two), (b"a", one))]
    assert len(set(hashes)) == 3
    assert hashes[0] == hashes[3]


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        real_directory(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="Not a directory"):
        real_directory(tmp_path / "file")


# --- finding ---------------------------------------------------------------------------------


def found(folder: Path) -> list[tuple[str, str]]:
    listed = find(os.path.realpath(folder))
    return [
        (one.name, one.picture if isinstance(one, Pair) else one.reason) for one in listed
    ]  # fmt: skip


def test_pairs_are_found_by_name(folder: Path) -> None:
    for name in ("b.MP3", "b.PNG", "b.jpg", "c.flac", "notes.txt", "cover.jpg", ".mp3"):
        (folder / name).touch()
    (folder / "disc 2").mkdir()
    (folder / "disc 2" / "d\n.opus").touch()
    assert found(folder) == [
        ("a.mp3", "a.jpg"),
        ("b.MP3", "b.jpg"),
        ("c.flac", "c.jpg"),
        ("disc 2/d\n.opus", "disc 2/d\n.jpg"),
    ]


def test_folders_behind_links_are_not_entered(folder: Path) -> None:
    (folder / "out").symlink_to("..")
    (folder / "again").symlink_to(".")
    assert found(folder) == [("out", "a symbolic link out of the directory"), ("a.mp3", "a.jpg")]


def test_a_stamp_tells_changes(folder: Path) -> None:
    def stamp() -> str:
        (one,) = find(str(folder))
        assert isinstance(one, Pair)
        return one.stamp

    before = stamp()
    assert stamp() == before
    (folder / "a.jpg").touch()
    with_picture = stamp()
    os.utime(folder / "a.mp3", ns=(0, 0))
    assert len({before, with_picture, stamp()}) == 3


@pytest.mark.parametrize("name", ["plain.mp3", "ü\n.mp3", "\udcff\udc80.mp3", "a/\udce4b.mp3"])
def test_names_survive_the_database(name: str) -> None:
    kind = FileName()
    kept = kind.process_bind_param(name, None)
    assert kept is not None
    kept.encode()  # any database takes it
    assert kind.process_result_value(kept, None) == name


# --- side by side ----------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 3, 8])
async def test_memory_is_bounded(most: int) -> None:
    """Count what is in work, ready, or in a list that was yielded and is not empty."""
    alive: set[int] = set()
    peak = 0

    async def work(item: int) -> int:
        nonlocal peak
        alive.add(item)
        peak = max(peak, len(alive) + len(held))
        await asyncio.sleep(0)
        return item

    done: list[int] = []
    held: list[int] = []
    async with Ahead(work, most) as ahead:
        for chunk in (range(20), range(20, 50)):
            ahead.expect(range(chunk.start, 50))
            async for batch in ahead.take(chunk):
                held = batch  # the list itself: it is emptied when the next is asked for
                alive -= set(batch)
                done += batch
                assert len(batch) <= max(1, most // 2)
            assert sorted(done) == list(range(chunk.stop))
    assert peak == most


async def test_others_work_while_a_list_is_taken() -> None:
    begun: list[int] = []

    async def work(item: int) -> int:
        begun.append(item)
        if item:
            await asyncio.Event().wait()
        return item

    async with Ahead(work, 2) as ahead:
        ahead.expect(range(9))
        batches = ahead.take(range(9))
        assert await anext(batches) == [0]
        assert begun == [0, 1]
        await batches.aclose()


async def test_what_is_behind_a_chunk_is_begun_with_its_end() -> None:
    begun: list[int] = []

    async def work(item: int) -> int:
        begun.append(item)
        return item

    async with Ahead(work, 3) as ahead:
        ahead.expect(range(9))
        taken = [item async for batch in ahead.take(range(2)) for item in batch]
        assert taken == [0, 1]
        ahead.expect(range(2, 9))
        rest = [item async for batch in ahead.take(range(2, 9)) for item in batch]
    assert rest == list(range(2, 9))
    assert begun == list(range(9))  # each once


async def test_what_is_expected_no_more_makes_room() -> None:
    """A chunk that is another than was thought waits for nothing that nobody takes."""
    cancelled: list[int] = []

    async def work(item: int) -> int:
        if item < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(item)
                raise
        return item

    async with Ahead(work, 3) as ahead:
        ahead.expect(range(3))
        await asyncio.sleep(0)
        ahead.expect([7, 8, 0])
        taken = [item async for batch in ahead.take([7, 8]) for item in batch]
        assert taken == [7, 8]
        assert cancelled == [1, 2]
    assert cancelled == [1, 2, 0]


async def test_an_error_is_raised_and_the_end_ends_the_rest() -> None:
    cancelled: list[int] = []

    async def work(item: int) -> int:
        if item == 1:
            raise ValueError(item)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(item)
            raise
        return item

    async def take() -> None:
        async with Ahead(work, 3) as ahead:
            ahead.expect(range(3))
            await anext(ahead.take(range(3)))

    with pytest.raises(ValueError, match="1"):
        await take()
    assert sorted(cancelled) == [0, 2]


# --- words -----------------------------------------------------------------------------------


def test_a_chunk_that_is_tried_again_counts_once() -> None:
    tally = Tally(Missing(10, 1000))
    tally.begin(1, 0, 1).read = 5
    tally.begin(1, 0, 1).read = 2
    tally.begin(1, 1, 1).read = 1
    assert tally.counts.read == 3
    tally.begin(1, 0, 2).read = 4
    tally.begin(2, 0, 2).read = 1
    assert tally.counts.read == 8
    assert tally.progress == Progress(8, 10, 0, 1000)


def test_names_move_no_cursor() -> None:
    assert shown("a\nb\x1b[2J\udcffü") == "a\\nb\\x1b[2J\\xffü"


def test_the_summary_names_what_failed() -> None:
    counts = Counts(read=4, size=2_500_000, added=2, same=1, failed=1)
    done = Ingested("done", 5, 1, counts, (Problem("x\n.mp3", "empty"),), 2.0, 1.0)
    assert summary(done, "here.sqlite") == (
        "done  5 pairs of files: 2 added, 1 were in before, 1 of the same content, 1 failed\n"
        "read      4 pairs, 2.5 MB in 2.00 s: 2.0 pairs/s\n"
        "database  here.sqlite\n"
        "failed\n"
        "  x\\n.mp3: empty\n"
    )
    assert progress_line(Progress(3, 7_000, 1_500_000, 7e9)) == (  # type: ignore[arg-type]
        "3 of 7,000 files  1.5 MB of 7,000.0 MB"
    )


def test_the_comparison_splits_the_seconds() -> None:
    text = comparison([Measure("sequential", 70, 2.0, 1.0, 0.25, 0.75, 1.0)])
    assert "sequential" in text
    assert all(figure in text for figure in ("2.00", "1.00", "0.25", "0.75", "35.0"))


def test_the_demo_is_the_same_every_time(tmp_path: Path) -> None:
    make_pairs(tmp_path / "one", 2)
    make_pairs(tmp_path / "two", 2)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert jpeg(1) != jpeg(2)
    assert opened(jpeg(7)).getexif()[ORIENTATION] == 6


def test_the_demo_makes_real_mp3s() -> None:
    import mutagen

    file = mutagen.File(BytesIO(mp3(1, 64_000)))
    assert not file.info.sketchy
    assert file.info.bitrate == 128_000
    assert 3.9 < file.info.length < 4.1
