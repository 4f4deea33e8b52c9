"""Where the servers of the tests have their files."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30  # a server is 70 MB, its databases 8 MB each


def in_memory() -> Path | None:
    """
    Return the file system in memory if there is one that programs of ours can run in.

    A database is a thousand files: a disk makes and removes them in ten times the CPU, and the
    tests have hundreds.
    """
    if not os.access(MEMORY, os.W_OK):
        return None
    found = os.statvfs(MEMORY)
    roomy = found.f_bavail * found.f_frsize >= ROOM
    return MEMORY if roomy and not found.f_flag & os.ST_NOEXEC else None


@contextmanager
def short_folder(parent: Path | None = None) -> Iterator[Path]:
    """
    Make a folder for an embedded server, and remove it: pytest's own is 0700, and its path long.

    It is open to `nobody`, whose the server is when we are root. `parent` is the machine's
    folder for temporary files if it is None.
    """
    folder = Path(tempfile.mkdtemp(prefix="al", dir=parent)).resolve()
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def small_disk() -> Iterator[Path]:
    """A file system of one megabyte; where none can be mounted the test is skipped."""
    with short_folder() as folder:
        folder.chmod(0o755)
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0777", "tmpfs", str(folder)]
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("mounting is not permitted here")
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)
