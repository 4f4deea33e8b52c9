"""What a file says of itself: its tags, and where it has none its name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any

import mutagen

# The same thing in ID3 (MP3), MP4 (M4A) and Vorbis comments (FLAC, Ogg, Opus).
_TITLE = ("TIT2", "\xa9nam", "title")
_ARTIST = ("TPE1", "\xa9ART", "artist")
_DESCRIPTION = ("COMM", "\xa9cmt", "desc", "description", "comment")


@dataclass(frozen=True, slots=True)
class Tags:
    """Title, artist and description; None where nobody says."""

    title: str
    artist: str | None
    description: str | None


def tags_of(audio: bytes, name: str) -> Tags:
    """Return a file's tags; title and artist from the name, `Artist - Title`, in their place."""
    tags = _read(audio, name)
    artist, _, title = _printable(PurePosixPath(name).stem).rpartition(" - ")
    return Tags(
        title=_first(tags, _TITLE) or title.strip(),
        artist=_first(tags, _ARTIST) or artist.strip() or None,
        description=_first(tags, _DESCRIPTION),
    )


class _Named(BytesIO):
    """A file in memory with a name: mutagen goes by its end where the content leaves doubts."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def _read(audio: bytes, name: str) -> Any:
    try:
        found = mutagen.File(_Named(audio, name))
    except Exception:  # a damaged tag is no tag, whatever it makes a parser raise
        return None
    return found.tags if found is not None else None


def _first(tags: Any, keys: Iterable[str]) -> str | None:
    """Return the first of these tags that says something."""
    for key in keys if tags else ():
        text = ", ".join(filter(None, (_printable(str(part)) for part in _values(tags, key))))
        if text:
            return text
    return None


def _values(tags: Any, key: str) -> list[Any]:
    if hasattr(tags, "getall"):  # ID3: frames, each with a list of texts
        return [text for frame in tags.getall(key)[:1] for text in frame.text]
    try:
        found = tags[key]
    except (KeyError, ValueError):  # not there, or no key that such a file may have
        return []
    return found if isinstance(found, list) else [found]


def _printable(text: str) -> str:
    """Return text that every database takes: no NUL, no half of a character."""
    clean = text.replace("\0", " ").encode("utf-8", "replace").decode()
    return clean.strip()
