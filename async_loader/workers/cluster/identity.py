"""Which package a process has: two that have not the same one do not work together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from uuid import uuid4

_PROCESS = uuid4().hex
_PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Identity:
    """
    A process's package. `code`: a digest of its sources, as builds of one version may differ.

    `process` is no other process's, also not of one that was started again in its place.
    """

    version: str
    code: str
    process: str

    def difference(self, ours: Identity) -> str | None:
        """Return what is other there than here, if anything is."""
        if self.code == ours.code:
            return None
        if self.version == ours.version:
            return f"another build of async_loader {self.version} than this one"
        return f"async_loader {self.version}, this is {ours.version}"


@cache
def identity() -> Identity:
    """Return this process's."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(_PACKAGE).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    try:
        number = version("async_loader")
    except PackageNotFoundError:  # its folder is on the path, and nothing more
        number = "of no version"
    return Identity(number, digest.hexdigest(), _PROCESS)
