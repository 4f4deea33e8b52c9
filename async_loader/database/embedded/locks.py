"""
File locks (flock) by which processes that never met agree on one server.

A lock belongs to the open file, not to the process: it ends when the last copy of the descriptor is
closed, so a killed process leaves nothing behind, and a descriptor handed to a child keeps it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import EmbeddedServerError

if (
    sys.platform != "win32"
):  # there, no wheel exists: `find_wheel` refuses before any lock is asked for
    import fcntl

POLL_SECONDS = 0.01


def lock(path: Path, *, shared: bool, timeout: float) -> int:
    """
    Wait up to `timeout` seconds for a lock; return the descriptor that holds it.

    Raises EmbeddedServerError when the time is up, OSError when the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _wait(descriptor, path, shared=shared, timeout=timeout)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def unlock(descriptor: int) -> None:
    """Give a lock up at once, even where a forked child has a copy of the descriptor."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def locked(path: Path, *, timeout: float) -> Iterator[None]:
    """Hold an exclusive lock for a block."""
    descriptor = lock(path, shared=False, timeout=timeout)
    try:
        yield
    finally:
        unlock(descriptor)
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Tell whether anyone holds the lock, by taking it for an instant."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        return not _try(descriptor, shared=False)
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: Path, *, shared: bool, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not _try(descriptor, shared=shared):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"another process has held {path} for {timeout:g} s: "
                "end it, or choose another folder with `server_directory`"
            )
        time.sleep(POLL_SECONDS)  # flock has no timeout of its own


def _try(descriptor: int, *, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
