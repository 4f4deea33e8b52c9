"""The embedded server as processes live with it: started, shared, killed, adopted and stopped."""

from __future__ import annotations

import json
import os
import pwd
import signal
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from async_loader.database.embedded import EmbeddedServer, acquire, embedded_server
from async_loader.database.embedded.cluster import Postmaster
from async_loader.database.embedded.locks import is_held, locked
from async_loader.errors import EmbeddedServerError
from tests.folders import in_memory, short_folder

pytestmark = pytest.mark.root

ROOT = os.geteuid() == 0
ORDINARY = pwd.getpwnam("daemon").pw_uid  # initdb wants a name for its user
# Where root's own folder holds the environment, nobody else can import from it.
CLOSED = any(not folder.stat().st_mode & stat.S_IXOTH for folder in Path(sys.prefix).parents)

PROMISED = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "listen_addresses": "",
    "max_connections": "500",
    "shared_preload_libraries": "pg_stat_statements",
    "client_connection_check_interval": "5s",
    "server_encoding": "UTF8",
}

# A process that uses the server until it is told to leave. It drops its rights by itself, after its
# imports: an interpreter below /root could not be started by anyone else.
USER = """
import dataclasses, json, os, sys
from pathlib import Path
import platformdirs
from async_loader.errors import AsyncLoaderError
from async_loader.database.embedded import acquire
from async_loader.database.embedded.installation import find_wheel

platformdirs.user_data_path("x"), find_wheel()
directory, uid = json.loads(sys.argv[1])
if uid is not None:
    os.setgroups([]), os.setgid(uid), os.setuid(uid)
try:
    lease = acquire(None if directory is None else Path(directory))
except AsyncLoaderError as error:
    print(json.dumps({"error": str(error), "type": type(error).__name__}), flush=True)
    sys.exit(error.exit_code)
print(json.dumps(dataclasses.asdict(lease.server), default=str), flush=True)
sys.stdin.readline()
lease.release()
"""


class User:
    """A process with a share in the server, or the error that it met instead."""

    def __init__(
        self, directory: Path | None, uid: int | None, environment: dict[str, str]
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, json.dumps([directory and str(directory), uid])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        assert self.process.stdout is not None
        self.server: dict[str, Any] = json.loads(self.process.stdout.readline())

    def leave(self) -> None:
        self.process.communicate("leave\n")
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


Join = Callable[..., User]


@pytest.fixture(params=["self", "ordinary"])
def uid(request: pytest.FixtureRequest) -> int | None:
    """The account of a test's users: our own and, where we are root, an ordinary one as well."""
    if request.param == "self":
        return None
    if not ROOT:
        pytest.skip("this run is an ordinary user's already")
    if CLOSED:
        pytest.skip("no ordinary user can read the packages here")
    return ORDINARY


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder for a server, of the account that its users have."""
    with short_folder(in_memory()) as path:
        if "uid" in request.fixturenames and request.getfixturevalue("uid") is not None:
            os.chown(path, ORDINARY, ORDINARY)
        yield path


@pytest.fixture
def join(folder: Path, request: pytest.FixtureRequest) -> Iterator[Join]:
    """Start a process that joins the server; whatever is left of them ends with the test."""
    uid = request.getfixturevalue("uid") if "uid" in request.fixturenames else None
    users: list[User] = []

    def start(directory: Path | None = folder / "home", **environment: str) -> User:
        users.append(User(directory, uid, environment))
        return users[-1]

    yield start
    for user in users:
        if user.process.poll() is None:
            user.kill()
        if "pid" in user.server:
            stop_server(user.server)


def stop_server(server: dict[str, Any]) -> None:
    """End a server that a failed test left behind."""
    if postmaster := Postmaster.find(Path(server["data_directory"])):
        os.kill(postmaster.pid, signal.SIGQUIT)
        wait_gone(Path(server["data_directory"]).parent)


def wait_gone(home: Path) -> None:
    """Return once no process of the server lives."""
    with locked(home / "server.lock", timeout=30):
        pass


def is_running(home: Path) -> bool:
    return is_held(home / "server.lock")


async def ask(server: EmbeddedServer | dict[str, Any], *statements: str) -> Any:
    """Execute statements through SQLAlchemy and asyncpg; return the last one's scalar, if any."""
    if isinstance(server, dict):
        paths = (Path(server["socket_directory"]), Path(server["data_directory"]))
        server = EmbeddedServer(*paths, server["version"], server["pid"], server["adopted"])
    engine = create_async_engine(server.url)
    try:
        async with engine.begin() as connection:
            for statement in statements:
                result = await connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        await engine.dispose()


# -- a life --------------------------------------------------------------------------------------


async def test_from_nothing_and_again_with_the_data_of_before(
    uid: int | None, folder: Path, join: Join
) -> None:
    first = join()
    assert not first.server["adopted"]
    assert (await ask(first.server, "SHOW server_version")).startswith(first.server["version"])
    await ask(first.server, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (42)")
    first.leave()
    assert not is_running(folder / "home")
    second = join()
    assert not second.server["adopted"]
    assert await ask(second.server, "SELECT n FROM kept") == 42
    second.leave()
    assert not is_running(folder / "home")
    assert not list((folder / "home").glob("*.partial-*"))


async def test_settings_are_as_promised_whatever_the_configuration_says(folder: Path) -> None:
    with embedded_server(folder / "home") as server:
        await ask(server, "SELECT 1")
        configuration = server.data_directory / "postgresql.auto.conf"
        with configuration.open("a") as file:
            file.write("fsync = off\nsynchronous_commit = off\nlisten_addresses = '*'\n")
    with embedded_server(folder / "home") as server:
        for name, value in PROMISED.items():
            assert await ask(server, f"SHOW {name}") == value
        created = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"
        assert await ask(server, created, "SELECT count(*) FROM pg_stat_statements") > 0


async def test_the_callers_environment_does_not_reach_the_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "6000", "PGDATA": "/x", "TZ": "Asia/Tokyo", "LANG": "C"}.items():
        monkeypatch.setenv(name, value)
    with embedded_server(folder / "home") as server:
        assert await ask(server, "SHOW timezone") == "UTC"


def test_server_is_private_and_out_of_reach_of_the_terminal(folder: Path) -> None:
    account = pwd.getpwnam("nobody").pw_uid if ROOT else os.getuid()
    with embedded_server(folder / "home") as server:
        for private in (server.socket_directory, server.data_directory):
            assert private.stat().st_uid == account
            assert private.stat().st_mode & 0o777 == 0o700
        assert os.getsid(server.pid) != os.getsid(0)
        assert os.getpgid(server.pid) != os.getpgid(0)
    assert not server.socket_directory.exists()
    assert folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(not ROOT, reason="only root copies the binaries")
def test_roots_copy_of_the_binaries_is_made_once(folder: Path) -> None:
    with embedded_server(folder / "home"):
        [copy] = (folder / "home").glob("binaries-*")
        made = copy.stat()
    with embedded_server(folder / "home"):
        assert [path.stat().st_ino for path in (folder / "home").glob("binaries-*")] == [
            made.st_ino
        ]
        assert copy.stat().st_mtime_ns == made.st_mtime_ns


def test_log_keeps_two_starts(folder: Path) -> None:
    for _ in range(3):
        with embedded_server(folder / "home"):
            pass
    logs = sorted((folder / "home").glob("server.log*"))
    assert [log.name for log in logs] == ["server.log", "server.log.1"]
    assert [log.read_text().count("starting PostgreSQL") for log in logs] == [1, 1]


# -- sharing -------------------------------------------------------------------------------------


def test_two_processes_share_and_the_last_one_stops(
    uid: int | None, folder: Path, join: Join
) -> None:
    first = join()
    second = join()
    assert second.server == first.server | {"adopted": True}
    first.leave()
    assert is_running(folder / "home")
    second.leave()
    assert not is_running(folder / "home")


def test_many_at_once_start_one_server(folder: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        leases = list(threads.map(lambda _: acquire(folder / "home"), range(8)))
        assert len({lease.server.pid for lease in leases}) == 1
        assert sorted(lease.server.adopted for lease in leases) == [False, *[True] * 7]
        assert list(threads.map(lambda lease: lease.release(), leases)) == [None] * 8
    assert not is_running(folder / "home")


async def test_killed_users_server_is_adopted_and_finally_stopped(
    uid: int | None, folder: Path, join: Join
) -> None:
    dead = join()
    dead.kill()
    assert is_running(folder / "home")
    heir = join()
    assert heir.server == dead.server | {"adopted": True}
    assert await ask(heir.server, "SELECT 1") == 1
    heir.leave()
    assert not is_running(folder / "home")


def test_killed_user_leaves_the_others_alone(folder: Path, join: Join) -> None:
    first = join()
    second = join()
    first.kill()
    assert is_running(folder / "home")
    second.leave()
    assert not is_running(folder / "home")


def test_release_is_idempotent_and_safe_from_a_signal_handler(folder: Path) -> None:
    lease = acquire(folder / "home")
    handled = threading.Event()
    main = threading.get_ident()

    def handler(*_: object) -> None:
        lease.release()
        handled.set()

    def interrupt_the_release() -> None:
        # Holding the start lock keeps the release in its midst until the handler has run.
        with locked(folder / "home" / "start.lock", timeout=0):
            held.set()
            releasing.wait()
            signal.pthread_kill(main, signal.SIGUSR1)
            handled.wait()

    held, releasing = threading.Event(), threading.Event()
    before = signal.signal(signal.SIGUSR1, handler)
    other = threading.Thread(target=interrupt_the_release)
    other.start()
    try:
        held.wait()
        releasing.set()
        lease.release()
        assert handled.is_set()
        assert not is_running(folder / "home")
        lease.release()
    finally:
        other.join()
        signal.signal(signal.SIGUSR1, before)


def test_forked_child_does_not_give_back_its_parents_share(folder: Path) -> None:
    lease = acquire(folder / "home")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
        child = os.fork()
    if child == 0:
        lease.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert is_held(folder / "home" / "users.lock")
    assert is_running(folder / "home")
    lease.release()
    assert not is_running(folder / "home")


# -- death of the server -------------------------------------------------------------------------


async def test_killed_server_is_started_again_with_what_it_had_committed(
    uid: int | None, folder: Path, join: Join
) -> None:
    user = join()
    await ask(user.server, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (42)")
    os.kill(user.server["pid"], signal.SIGKILL)
    heir = join()  # while the first user still lives, and holds its share
    assert not heir.server["adopted"]
    assert heir.server["pid"] != user.server["pid"]
    assert await ask(heir.server, "SELECT n FROM kept") == 42
    user.leave()
    assert is_running(folder / "home")
    heir.leave()
    assert not is_running(folder / "home")


async def test_pid_of_a_dead_server_now_another_process(folder: Path) -> None:
    home = folder / "home"
    lease = acquire(home)
    os.kill(lease.server.pid, signal.SIGKILL)
    wait_gone(home)
    account = lease.server.data_directory.stat().st_uid
    with subprocess.Popen(["/bin/sleep", "600"], user=account, cwd="/") as stranger:
        try:
            pid_file = lease.server.data_directory / "postmaster.pid"
            pid_file.write_text(
                pid_file.read_text().replace(str(lease.server.pid), str(stranger.pid))
            )
            lease.release()
            with embedded_server(home) as server:
                assert await ask(server, "SELECT 1") == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()


@pytest.mark.parametrize("lines", ["", "\n", "-7\n", "99999999999999999999\n", "\0\1\n"])
async def test_a_pid_file_that_names_nobody(folder: Path, lines: str) -> None:
    with embedded_server(folder / "home") as server:
        pid_file = server.data_directory / "postmaster.pid"
    pid_file.write_text(lines)
    with embedded_server(folder / "home") as server:
        assert await ask(server, "SELECT 1") == 1


async def test_a_pid_file_that_names_another_server(folder: Path) -> None:
    with embedded_server(folder / "home") as server:
        pid_file = server.data_directory / "postmaster.pid"
    with embedded_server(folder / "other") as other:
        described = (other.data_directory / "postmaster.pid").read_text()
        pid_file.write_text(described.replace(str(other.data_directory), str(pid_file.parent)))
        with embedded_server(folder / "home") as server:
            assert server.pid != other.pid
            assert await ask(server, "SELECT 1") == await ask(other, "SELECT 1") == 1


def test_server_that_is_still_stopping_is_waited_for(folder: Path) -> None:
    lease = acquire(folder / "home")
    lease.release(grace=0)
    with embedded_server(folder / "home") as server:
        assert not server.adopted
        assert server.pid != lease.server.pid


def test_server_that_has_not_yet_heard_is_not_joined(folder: Path) -> None:
    lease = acquire(folder / "home")
    os.kill(lease.server.pid, signal.SIGSTOP)  # as on a machine too busy to run it
    resumed = threading.Timer(0.5, os.kill, (lease.server.pid, signal.SIGCONT))
    resumed.start()
    try:
        lease.release(grace=0)
        with embedded_server(folder / "home") as server:
            assert not server.adopted
    finally:
        resumed.join()


def test_server_that_cannot_start_is_quoted_from_its_log(folder: Path) -> None:
    with embedded_server(folder / "home") as server:
        configuration = server.data_directory / "postgresql.conf"
    with configuration.open("a") as file:
        file.write("shared_buffers = 'plenty'\n")
    with pytest.raises(EmbeddedServerError, match=r"did not start: .*FATAL: .*configuration file"):
        acquire(folder / "home")
    assert not is_held(folder / "home" / "users.lock")
    assert not is_running(folder / "home")


# -- places --------------------------------------------------------------------------------------


async def test_long_and_odd_directories(folder: Path) -> None:
    for name in ("long" * 30, "comma, and colon:", "blank and %40 ü"):
        with embedded_server(folder / name) as server:
            assert server.data_directory == folder / name / "data"
            assert await ask(server, "SELECT 1") == 1
        assert not server.socket_directory.exists()


def test_each_data_home_has_its_own_server(uid: int | None, folder: Path, join: Join) -> None:
    first, second = (
        join(None, XDG_DATA_HOME=str(folder / name), HOME=str(folder / name)) for name in "ab"
    )
    assert first.server["pid"] != second.server["pid"]
    if ROOT and uid is not None:
        assert Path(first.server["data_directory"]).is_relative_to(folder / "a")
    first.leave()
    second.leave()


@pytest.mark.skipif(ROOT and CLOSED, reason="no ordinary user can read the packages here")
@pytest.mark.parametrize("made", [False, True])
def test_read_only_place_is_one_line(folder: Path, made: bool) -> None:
    home = folder / "home"
    if made:
        home.mkdir()
        home.chmod(0o555)
    folder.chmod(0o555)
    user = User(home, ORDINARY if ROOT else None, {})
    user.process.communicate()
    folder.chmod(0o755)
    assert user.process.returncode == 110
    assert user.server["type"] == "EmbeddedServerError"
    assert "(Permission denied): choose another folder" in user.server["error"]
    assert "\n" not in user.server["error"]
    assert list(folder.rglob("*")) == ([home] if made else [])


def test_other_major_version_is_refused_and_kept(folder: Path) -> None:
    with embedded_server(folder / "home") as server:
        version = server.data_directory / "PG_VERSION"
    version.write_text("17\n")
    before = sorted(server.data_directory.rglob("*"))
    with pytest.raises(EmbeddedServerError, match="belongs to PostgreSQL 17"):
        acquire(folder / "home")
    assert sorted(server.data_directory.rglob("*")) == before
    assert not is_held(folder / "home" / "users.lock")


def test_full_disk_in_initdb_leaves_nothing_half_made(folder: Path) -> None:
    size = "size=45m" if ROOT else "size=10m"  # root's copy of the binaries fits, no data does
    mount = ["mount", "-t", "tmpfs", "-o", f"{size},mode=755", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no right to mount a small file system")
    try:
        with pytest.raises(EmbeddedServerError, match="No space left on device") as caught:
            acquire(folder / "home")
        assert "initdb failed" in str(caught.value)
        assert "\n" not in str(caught.value)
        left = {path.name for path in (folder / "home").iterdir() if path.is_dir()}
        assert all(name.startswith("binaries-") for name in left)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
