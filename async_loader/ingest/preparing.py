"""One pair of files into the columns of one row: first what waits for files, then what computes."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import PurePath
from time import perf_counter, thread_time
from typing import Any, Self

from .pictures import fit
from .reading import MOST_PICTURE_BYTES, State, UnreadableError, is_still, read_within
from .tags import tags_of

Row = dict[str, Any]
CHANGED = "it or its picture changed while they were read: the next time they go in"


@dataclass(frozen=True, slots=True)
class Contents:
    """Both files as they are; `states` before they were read, in `seconds`."""

    name: str
    audio: bytes
    picture: bytes
    states: tuple[tuple[str, State], ...]
    seconds: float

    def is_still_so(self, directory: str) -> bool:
        """Return whether neither file has changed since: else the pair may be of two times."""
        return all(is_still(directory, name, state) for name, state in self.states)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a pair: its track's hash, or why there is none."""

    content_hash: bytes | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """A pair to prepare: its number in the list, both names, and bytes."""

    number: int
    name: str
    picture: str
    size: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A pair's row, or why there is none; seconds of reading, and of a CPU."""

    number: int
    size: int
    row: Row | None
    error: str | None = None
    reading: float = 0.0
    computing: float = 0.0
    states: tuple[tuple[str, State], ...] = ()

    @property
    def outcome(self) -> Outcome:
        """What the list of files is told."""
        return Outcome(self.row["content_hash"] if self.row else None, self.error)


def read_pair(directory: str, name: str, picture: str) -> Contents:
    """Return a pair's contents; raises `UnreadableError`."""
    began = perf_counter()
    audio, audio_state = read_within(directory, name)
    try:
        image, image_state = read_within(directory, picture, MOST_PICTURE_BYTES)
    except UnreadableError as error:
        raise UnreadableError(f"its picture, {PurePath(picture).name}: {error}") from error
    states = ((name, audio_state), (picture, image_state))
    contents = Contents(name, audio, image, states, perf_counter() - began)
    if not contents.is_still_so(directory):
        raise UnreadableError(CHANGED)
    return contents


def row_of(contents: Contents) -> tuple[Row, float]:
    """
    Return the columns of a `Track`, and the seconds of CPU that they took.

    Raises `UnreadableError` for what is no picture.
    """
    began = thread_time()
    try:
        picture = fit(contents.picture)
    except UnreadableError as error:
        raise UnreadableError(f"its picture: {error}") from error
    tags = tags_of(contents.audio, contents.name)
    row = {
        "title": tags.title,
        "artist": tags.artist,
        "description": tags.description,
        "picture": picture,
        "audio": contents.audio,
        "content_hash": _hash(contents),
    }
    return row, thread_time() - began


def _hash(contents: Contents) -> bytes:
    """Return the hash of both files, told apart by the length of the first."""
    digest = hashlib.sha256(len(contents.audio).to_bytes(8, "big"))
    digest.update(contents.audio)
    digest.update(contents.picture)
    return digest.digest()


def unless_changed(directory: str, batch: Sequence[Prepared]) -> list[Prepared]:
    """Return a batch without the rows of files that have changed since they were read."""
    return [
        one
        if one.row is None or all(is_still(directory, *state) for state in one.states)
        else replace(one, row=None, error=CHANGED)
        for one in batch
    ]


class Preparation(AbstractAsyncContextManager["Preparation"]):
    """
    The threads that prepare pairs.

    As many threads as pairs for files, which wait, and as many as CPUs to compute. Threads, as
    decoding, scaling and hashing let go of the interpreter's lock; processes would outlive a
    kill.
    """

    def __init__(self, directory: str, concurrency: int) -> None:
        self._directory = directory
        self._reading = ThreadPoolExecutor(concurrency, "reading")
        self._computing = ThreadPoolExecutor(os.cpu_count() or 1, "computing")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for threads in (self._reading, self._computing):
            threads.shutdown(wait=False, cancel_futures=True)

    async def prepare(self, pair: Found) -> Prepared:
        """Return the row of a pair, or why there is none."""
        loop = asyncio.get_running_loop()
        try:
            contents = await loop.run_in_executor(
                self._reading, read_pair, self._directory, pair.name, pair.picture
            )
            row, computing = await loop.run_in_executor(self._computing, row_of, contents)
        except UnreadableError as error:
            # A name in it may have bytes that are no UTF-8, which a database does not take.
            reason = str(error).replace("\0", " ").encode("utf-8", "backslashreplace").decode()
            return Prepared(pair.number, pair.size, None, reason)
        return Prepared(
            pair.number, pair.size, row, None, contents.seconds, computing, contents.states
        )
