"""The folder of one embedded server. What we did not make is never deleted or opened to others."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...errors import EmbeddedServerError, MissingExtraError
from .installation import Account, Installation, Wheel

PORT = 5432  # no TCP port: it only names the socket
SOCKET = f".s.PGSQL.{PORT}"
# sizeof(sockaddr_un.sun_path), less the final zero.
MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
# Where root's servers live when root's own data folder is closed to others, as /root is.
SYSTEM_DIRECTORY = Path("/var/lib/async_loader")


@dataclass(frozen=True)
class Home:
    """The folder that holds a server's data, locks, log and (for root) binaries."""

    directory: Path
    account: Account

    @classmethod
    def open(cls, directory: Path | None, account: Account) -> Home:
        """Return the home in `directory` (None: this user's own), made if it is missing."""
        folder = (directory or _default_directory(account)).resolve()
        if account.switched and (closed := _closed_to_others(folder)):
            raise EmbeddedServerError(
                f"PostgreSQL runs as 'nobody' when started by root and cannot enter {closed}: "
                "choose a folder open to others with `server_directory`"
            )
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for path in reversed(missing):
            # Open at once where `nobody` has to pass: whoever starts beside us looks, too.
            path.mkdir(mode=0o755 if account.switched else 0o700, exist_ok=True)
            if account.switched:
                path.chmod(0o755)  # whatever the umask
        return cls(folder, account)

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """The server's log since its last start; the one before it ends in `.1`."""
        return self.directory / "server.log"

    @property
    def start_lock(self) -> Path:
        """Held to start, adopt or stop the server."""
        return self.directory / "start.lock"

    @property
    def users_lock(self) -> Path:
        """Shared by the users of the server."""
        return self.directory / "users.lock"

    @property
    def server_lock(self) -> Path:
        """Held by the server and its backends."""
        return self.directory / "server.lock"

    def install(self, wheel: Wheel) -> Installation:
        """Return binaries that the account can run: the wheel's own, or for root a copy of them."""
        if not self.account.switched:
            return Installation(wheel.package / "pginstall", self.account)
        copy = self.directory / f"binaries-{wheel.version}"
        if not copy.exists():
            with whole(copy) as partial:
                wheel.copy_to(partial)
        return Installation(copy / wheel.package.name / "pginstall", self.account)

    def socket_directory(self) -> Path:
        """Return the folder for the socket: ours, or a temporary one if our path is too long."""
        temporary = Path(tempfile.gettempdir()).resolve()
        private = temporary / f"async_loader-{self.account.uid}-{_digest(self.data)}"
        for folder in (self.directory / "socket", private):
            if _can_hold_socket(folder):
                return folder
        raise EmbeddedServerError(
            f"a socket's path has at most {MAX_SOCKET_PATH} bytes and no comma, colon or quote, so "
            f"neither {self.directory} nor {temporary} can hold one: choose `server_directory`"
        )

    def make_socket_directory(self) -> Path:
        """Make the folder for the socket; one that is there must be the account's, and private."""
        folder = self.socket_directory()
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid in {os.geteuid(), self.account.uid}
        if not ours or found.st_mode & 0o077:
            raise EmbeddedServerError(
                f"{folder} is not a private folder of ours: remove it, or choose `server_directory`"
            )
        self.account.own(folder)
        return folder


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """
    Make a folder whole or not at all: yield a sibling to fill, then rename it to `target`.

    What killed processes left of earlier attempts is removed; callers hold the start lock.
    """
    prefix = f".{target.name}.partial-"
    for leftover in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield partial
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync(target.parent)


def _default_directory(account: Account) -> Path:
    """
    Return this user's data folder.

    Root's may be closed to `nobody`, or be another user's where sudo kept HOME. It is then a system
    folder named after the one that was meant, so that different homes still have different servers.
    """
    try:
        import platformdirs  # noqa: PLC0415 - part of an extra
    except ImportError:
        raise MissingExtraError("the embedded PostgreSQL", "embedded") from None
    own = platformdirs.user_data_path("async_loader", appauthor=False)
    if account.switched and (_closed_to_others(own) or _existing(own).stat().st_uid != 0):
        return SYSTEM_DIRECTORY / _digest(own)
    return own


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _closed_to_others(path: Path) -> Path | None:
    """Return the first existing folder on the way to `path` that others cannot enter, if any."""
    existing = _existing(path)
    folders = [*reversed(existing.parents), existing]
    return next((folder for folder in folders if not folder.stat().st_mode & stat.S_IXOTH), None)


def _can_hold_socket(folder: Path) -> bool:
    """Tell whether drivers can name a socket in here: they read commas and colons as separators."""
    path = str(folder / SOCKET)
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH and not re.search('[,:"]', path)


def _sync(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
