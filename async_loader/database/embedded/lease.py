"""What callers use: a share in a running server, and its return."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ...errors import EmbeddedServerError
from . import cluster
from .cluster import START_SECONDS
from .home import PORT, Home
from .installation import Account, find_wheel
from .locks import is_held, lock, locked, unlock

LOCK_SECONDS = 2 * START_SECONDS  # another process may be starting a server that recovers


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server; `version` is of our binaries, `adopted` if another process started it."""

    socket_directory: Path
    data_directory: Path
    version: str
    pid: int
    adopted: bool

    @property
    def url(self) -> str:
        """Return a SQLAlchemy URL for asyncpg; the port only names the socket, there is no TCP."""
        host = quote(str(self.socket_directory))
        return f"postgresql+asyncpg://postgres@/postgres?host={host}&port={PORT}"


class Lease:
    """One user's share in a server, held until `release` or the end of the process."""

    def __init__(self, home: Home, server: EmbeddedServer, users: int) -> None:
        self.server = server
        self._home = home
        self._users = [users]
        self._process = os.getpid()

    def release(self, *, grace: float = 30.0) -> None:
        """
        Leave the server; the last one to leave stops it, waiting up to `grace` seconds for its end.

        It may be called again, by a signal handler in its own midst too: whoever takes the
        descriptor (an atomic pop) does the work. Interrupted, it can be called once more. In a
        forked child it does nothing, the lease being its parent's.

        Raises EmbeddedServerError if another process does not let go of the start lock.
        """
        if os.getpid() != self._process:
            return
        try:
            users = self._users.pop()
        except IndexError:
            return
        try:
            with _clear_errors(self._home.directory):
                with locked(self._home.start_lock, timeout=LOCK_SECONDS):
                    _leave(self._home, users, grace)
                os.close(users)
        except BaseException:
            self._users.append(users)
            raise


def acquire(directory: Path | None = None) -> Lease:
    """
    Join the server in `directory` (None: this user's data folder), started if none runs there.

    Raises MissingExtraError without the wheel, EmbeddedServerError for anything else, in one line.
    """
    wheel = find_wheel()
    account = Account.current()
    with _clear_errors(directory):
        home = Home.open(directory, account)
    with _clear_errors(home.directory), locked(home.start_lock, timeout=LOCK_SECONDS):
        installation = home.install(wheel)
        version = installation.version()
        users = lock(home.users_lock, shared=True, timeout=LOCK_SECONDS)
        try:
            running = cluster.wait_ready(home)
            if running is None:
                cluster.make_data(home, installation, version)
            postmaster = running or cluster.start(home, installation)
        except BaseException:
            _leave(home, users, grace=5.0)
            os.close(users)
            raise
    server = EmbeddedServer(
        postmaster.socket_directory, home.data, version, postmaster.pid, running is not None
    )
    return Lease(home, server, users)


@contextmanager
def embedded_server(directory: Path | None = None) -> Iterator[EmbeddedServer]:
    """Join or start the server for a block; see `acquire`."""
    lease = acquire(directory)
    try:
        yield lease.server
    finally:
        lease.release()


def stop_unused(directory: Path | None = None) -> None:
    """
    Stop a server that is left running by users who are gone; others' go on.

    Raises as `acquire`.
    """
    if is_held(Home.open(directory, Account.current()).server_lock):
        acquire(directory).release()


def _leave(home: Home, users: int, grace: float) -> None:
    unlock(users)
    if not is_held(home.users_lock):
        cluster.stop(home, grace)


@contextmanager
def _clear_errors(directory: Path | None) -> Iterator[None]:
    """Say in one line what the operating system refused."""
    try:
        yield
    except OSError as error:
        place = error.filename or directory or "the data folder"
        raise EmbeddedServerError(
            f"the embedded PostgreSQL cannot use {place} ({error.strerror}): "
            "choose another folder with `server_directory`"
        ) from error
