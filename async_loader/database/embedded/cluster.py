"""The life of one PostgreSQL cluster, from initdb to stop. Callers hold the start lock."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...errors import EmbeddedServerError
from .home import PORT, SOCKET, Home, whole
from .installation import Installation, last_line
from .locks import POLL_SECONDS, is_held, lock

PROC = Path("/proc")  # not on macOS
START_SECONDS = 60.0  # crash recovery after a kill takes its time
HEAR_SECONDS = 5.0  # a server asked to stop notes that in its pid file at once

# Arguments outrank postgresql.conf and ALTER SYSTEM: what we print about durability is true.
SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "max_connections": "500",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_preload_libraries": "pg_stat_statements",
    "client_connection_check_interval": "5s",  # a killed run's statements end
}
# The builtin provider needs no locale of the machine and sorts alike everywhere.
INITDB_ARGUMENTS = (
    "--username=postgres",
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
)


@dataclass(frozen=True)
class Postmaster:
    """A live server's main process, as its pid file describes it."""

    pid: int
    socket_directory: Path
    ready: bool

    @classmethod
    def find(cls, data: Path) -> Postmaster | None:
        """Return the server of a data directory, if the process in its pid file really is that."""
        lines = _pid_file(data)
        if lines is None or f" -D {data} -c " not in _command_line(int(lines[0])):
            return None
        return cls(int(lines[0]), Path(lines[4]), ready=lines[7].strip() == "ready")


def make_data(home: Home, installation: Installation, version: str) -> None:
    """
    Make the data directory if there is none; check the one that is there.

    Raises EmbeddedServerError for another major version, a foreign folder, or a failed initdb.
    """
    if home.data.exists() and any(home.data.iterdir()):
        _check_data(home.data, version)
        return
    with whole(home.data) as partial:
        home.account.own(partial)
        initdb = installation.program("initdb")
        made = installation.run(initdb, "--pgdata", str(partial), *INITDB_ARGUMENTS)
        if made.returncode != 0:
            raise EmbeddedServerError(
                f"initdb failed below {home.directory}: {last_line(made.stdout)}"
            )


def start(home: Home, installation: Installation) -> Postmaster:
    """Start the server on its data directory and wait until it accepts connections."""
    sockets = home.make_socket_directory()
    _forget_reused_pid(home.data)
    # The socket's lock names a pid too. The folder is ours alone: what is in it is a dead server's.
    (sockets / f"{SOCKET}.lock").unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        home.log.replace(f"{home.log}.1")
    home.log.touch(mode=0o600)
    _launch(home, installation, SETTINGS | {"unix_socket_directories": f'"{sockets}"'})
    postmaster = wait_ready(home)
    if postmaster is None:
        reason = last_line(home.log.read_text(errors="replace"))
        raise EmbeddedServerError(f"PostgreSQL did not start: {reason} (more in {home.log})")
    return postmaster


def wait_ready(home: Home, timeout: float = START_SECONDS) -> Postmaster | None:
    """
    Return the running server, waiting for one that is just starting; None if there is none.

    One that is stopping, or the last backends of one that was killed, are waited for as well.
    """
    deadline = time.monotonic() + timeout
    while is_held(home.server_lock):
        postmaster = Postmaster.find(home.data)
        if postmaster is not None and postmaster.ready:
            return postmaster
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"PostgreSQL in {home.directory} is neither ready nor gone after {timeout:g} s: "
                f"see {home.log}"
            )
        time.sleep(POLL_SECONDS)
    return None


def stop(home: Home, grace: float) -> None:
    """
    Ask the server for a fast shutdown (clients are disconnected, nothing committed is lost).

    Wait for its end for up to `grace` seconds; a server still busy with its last checkpoint then
    ends by itself. That it has heard is waited for in any case: until its pid file says so, the
    next to hold the start lock would take it for one that is ready.
    """
    begun = time.monotonic()
    signalled = False
    while is_held(home.server_lock):
        postmaster = Postmaster.find(home.data)
        if postmaster is not None and not signalled:
            with suppress(ProcessLookupError):
                os.kill(postmaster.pid, signal.SIGINT)
            signalled = True
        deaf = postmaster is not None and postmaster.ready
        if time.monotonic() > begun + (max(grace, HEAR_SECONDS) if deaf else grace):
            return
        time.sleep(POLL_SECONDS)
    with suppress(OSError):
        home.socket_directory().rmdir()


def _launch(home: Home, installation: Installation, settings: dict[str, str]) -> None:
    """
    Start the server and let go of it.

    The shell ends at once, so the server is no child of ours: nobody has to reap it. It inherits
    the lock that says that it lives, which therefore is closed here and never unlocked.
    """
    command = [installation.program("postgres"), "-D", str(home.data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    alive = lock(home.server_lock, shared=False, timeout=START_SECONDS)
    try:
        with home.log.open("ab") as log:
            installation.run(
                "/bin/sh", "-c", '"$@" &', "sh", *command, output=log, pass_fds=[alive]
            )
    finally:
        os.close(alive)


def _check_data(data: Path, version: str) -> None:
    major = version.partition(".")[0]
    try:
        found = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise EmbeddedServerError(
            f"{data} is not empty and not PostgreSQL's: choose another `server_directory`"
        ) from None
    if found != major:
        raise EmbeddedServerError(
            f"{data} belongs to PostgreSQL {found}, the embedded server is {version}: "
            "move it away, or choose another `server_directory`"
        )


def _forget_reused_pid(data: Path) -> None:
    """
    Remove a dead server's pid file if it names no process of the data's, or none at all.

    PostgreSQL would take that process for a live server, and an empty file for one that is about
    to be. In doubt the file stays: it refuses then.
    """
    path = data / "postmaster.pid"
    if not path.exists():
        return
    lines = _pid_file(data)
    if lines is None or _is_foreign(int(lines[0]), data):
        path.unlink(missing_ok=True)


def _is_foreign(pid: int, data: Path) -> bool:
    """Return whether a number is that of a process which is surely no server of the data."""
    try:
        os.kill(pid, 0)
        if "postgres" not in _command_line(pid):
            return True
        return (PROC / str(pid) / "cwd").readlink() != data.resolve()  # a server's is its data
    except OverflowError:
        return True
    except OSError:  # it is gone, or others': PostgreSQL sees that itself
        return False


def _pid_file(data: Path) -> list[str] | None:
    """Return the eight lines of postmaster.pid, empty where not yet written; None without a pid."""
    try:
        lines = (data / "postmaster.pid").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    return lines + [""] * (8 - len(lines)) if lines and lines[0].isdecimal() else None


def _command_line(pid: int) -> str:
    """Return a process's arguments, joined by blanks; empty if it is gone or a zombie."""
    if PROC.is_dir():
        try:
            return os.fsdecode((PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" "))
        except (FileNotFoundError, ProcessLookupError):
            return ""
    listing = ["/bin/ps", "-ww", "-o", "args=", "-p", str(pid)]
    return subprocess.run(listing, check=False, capture_output=True, text=True).stdout  # noqa: S603 - a constant and a number
