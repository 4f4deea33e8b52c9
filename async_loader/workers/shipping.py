"""A user's module on workers that may have no such file."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ..errors import WorkloadError
from ..runtime.user_modules import load_module, stand_in


@dataclass(frozen=True, slots=True)
class Shipped:
    """
    `package.module`, which a worker must be able to import, or a file, which goes along.

    The file alone goes: what it imports must be importable there. Where the same file is at
    the same path (a folder that is shared), it is taken from there, with its neighbours.
    """

    place: str
    path: str = ""
    text: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, place: str) -> Shipped:
        """Return `package.module` or `path/to/file.py`; raises `WorkloadError` without a file."""
        if not place.endswith(".py"):
            return cls(place)
        path = Path(place)
        try:
            return cls(place, str(path.resolve()), path.read_bytes())
        except OSError:
            raise WorkloadError(f"there is no file {path}") from None

    def arrive(self) -> None:
        """Have `load_module` find it in this process, and import it; raises `WorkloadError`."""
        if self.text is not None:
            stand_in(self.place, self._file(self.text))
        load_module(self.place)

    def _file(self, text: bytes) -> Path:
        original = Path(self.path)
        if _is(original, text):
            return original
        path = _folder() / hashlib.sha256(text).hexdigest()[:16] / original.name
        if not path.exists():
            path.parent.mkdir()
            path.write_bytes(text)
            _forget(path.stem)
        return path


def _is(path: Path, text: bytes) -> bool:
    try:
        return path.read_bytes() == text
    except OSError:
        return False


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="async_loader-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _forget(name: str) -> None:
    """Give the name of an earlier version's module to the new one: pickles go by it."""
    known = sys.modules.get(name)
    if known is not None and Path(known.__file__ or "").is_relative_to(_folder()):
        del sys.modules[name]
