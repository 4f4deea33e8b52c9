"""
Real small files to try it with: MP3s that play (silence) with tags, and JPEGs.

File i depends on i and the sizes alone.
"""

from __future__ import annotations

import random
from io import BytesIO
from pathlib import Path
from typing import Any

from mutagen import id3
from PIL import Image

# MPEG-1 layer III, 128 kbit/s, 44.1 kHz, stereo, no CRC.
_HEADER = b"\xff\xfb\x90\x00"
_FRAME = 417  # bytes: 144 * 128,000 // 44,100
_SIDE_INFORMATION = bytes(32)  # no main data at all: silence
_TURNED = 7  # every seventh picture lies on its side, and its EXIF says so
_ORIENTATION = 0x0112
_ROTATE_90 = 6


def make_pairs(
    directory: Path, count: int, *, audio: int = 64_000, side: int = 640, first: int = 1
) -> None:
    """
    Make pairs `first` and on in a directory, which is made if it is missing.

    `audio` is bytes, roughly; `side` is pixels, of which a picture has 4/3 by 1.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        name = f"Artist {number % 10} - Track {number:05}"
        (directory / f"{name}.mp3").write_bytes(mp3(number, audio))
        (directory / f"{name}.jpg").write_bytes(jpeg(number, side))


def mp3(number: int, size: int = 64_000) -> bytes:
    """
    Return an MP3 of so many bytes, roughly.

    Its frames are silent; the bytes that a decoder skips are noise, as music is to a database.
    """
    tags: Any = id3.ID3()  # type: ignore[no-untyped-call]  # mutagen's types end here
    for frame, text in (
        ("TIT2", f"Track {number}"),
        ("TPE1", f"Artist {number % 10}"),
        ("COMM", "Made to try async_loader with."),
    ):
        tags.add(getattr(id3, frame)(encoding=3, lang="eng", text=text))
    start = BytesIO()
    tags.save(start)
    frames = max(4, (size - len(start.getvalue())) // _FRAME)
    rng = random.Random(number)  # noqa: S311  no secret
    noise = _FRAME - len(_HEADER) - len(_SIDE_INFORMATION)
    head = _HEADER + _SIDE_INFORMATION
    # No 0xff in the noise: it might look like the start of a frame.
    body = b"".join(head + rng.randbytes(noise).replace(b"\xff", b"\x00") for _ in range(frames))
    return start.getvalue() + body


def jpeg(number: int, side: int = 640) -> bytes:
    """Return a picture of noise in large and small grains."""
    rng = random.Random(number)  # noqa: S311  no secret
    size = (side * 4 // 3, side)
    coarse = Image.frombytes("RGB", (8, 6), rng.randbytes(8 * 6 * 3)).resize(size)
    grain = (size[0] // 2, size[1] // 2)
    fine = Image.frombytes("RGB", grain, rng.randbytes(grain[0] * grain[1] * 3)).resize(size)
    image = Image.blend(coarse, fine, 0.3)
    exif = image.getexif()
    if number % _TURNED == 0:
        exif[_ORIENTATION] = _ROTATE_90
    out = BytesIO()
    image.save(out, "JPEG", quality=90, exif=exif)
    return out.getvalue()
