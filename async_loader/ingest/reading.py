"""
Files read as they are, never written to.

A file is opened and then looked at, by its descriptor: what was looked at before it is opened
may be another file by then.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

MOST_BYTES = 512 * 1024**2  # of an audio file: a row holds less than 1 GiB
MOST_PICTURE_BYTES = 64 * 1024**2
# No terminal is taken over, and a pipe that nobody writes to is not waited for.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class UnreadableError(Exception):
    """A file that cannot go in; the text is the reason, for people."""


@dataclass(frozen=True, slots=True)
class State:
    """What of a file changes when its content does: place, size, and times in nanoseconds."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> State:
        """Return what `stat` has found."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def is_still(directory: str, name: str, state: State) -> bool:
    """Return whether a file is what it was when it was opened."""
    try:
        return State.of(os.stat(os.path.join(directory, name))) == state  # noqa: PTH116, PTH118  as below
    except OSError:
        return False


def read_within(directory: str, name: str, most: int = MOST_BYTES) -> tuple[bytes, State]:
    """
    Return what is in a file of a directory, given as its real path, and its state before that.

    Raises `UnreadableError` for a file that is empty, longer than `most` bytes, none that can
    be read, or lies elsewhere, whatever links lead there.
    """
    path = os.path.join(directory, name)  # noqa: PTH118  names need not be normal paths
    try:
        descriptor = os.open(path, _FLAGS)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  it is open already
            opened = os.fstat(descriptor)
            _check(opened, directory, path, most)
            data = file.readall()
    except OSError as error:
        raise UnreadableError(_reason(error, path)) from error
    except MemoryError:
        raise UnreadableError("does not fit into memory") from None
    if not data:
        raise UnreadableError("empty")
    if len(data) > most:
        raise UnreadableError("it grows while it is read")
    return data, State.of(opened)


def _check(opened: os.stat_result, directory: str, path: str, most: int) -> None:
    if not stat.S_ISREG(opened.st_mode):
        raise UnreadableError("no regular file")
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(directory) or not os.path.samestat(real.stat(), opened):
        raise UnreadableError("a symbolic link out of the directory")
    if opened.st_size > most:
        raise UnreadableError(f"longer than {most // 1024**2} MiB")


def _reason(error: OSError, path: str) -> str:
    if error.errno == errno.ENOENT:
        dangling = os.path.islink(path)  # noqa: PTH114  as above
        return "a symbolic link to nothing" if dangling else "not there"
    return error.strerror or str(error)
