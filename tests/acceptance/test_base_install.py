"""What an application gets that installs the base only: the library, and a hint for the rest."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, environment

BASE = [
    "sqlalchemy", "asyncpg", "greenlet", "hdrh", "msgspec", "pyhdrh", "typing_extensions", "pbr",
]  # fmt: skip

LIBRARY = """
import asyncio
from async_loader import Workload, run
workload = Workload("nothing")
@workload.operation("nothing", kind="read")
async def nothing(): ...
print(asyncio.run(run(workload, ops=10)).completed)
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder that holds the base packages and this one, and nothing else."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "async_loader").symlink_to(ROOT / "async_loader")
    for name in BASE:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (folder / source.name).symlink_to(source)
    return folder


def python(base: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", *argv],
        check=False,
        capture_output=True,
        text=True,
        env=environment(PYTHONPATH=str(base)),
        cwd=base.parent,
        timeout=60,
    )


def test_the_library_works(base: Path) -> None:
    done = python(base, "-c", LIBRARY)
    assert done.stdout == "10\n", done.stderr


def test_the_command_says_what_to_install(base: Path) -> None:
    done = python(base, "-m", "async_loader")
    assert done.returncode == 104
    assert done.stderr == (
        "async_loader: the command needs the extra 'cli': pip install 'async_loader[cli]'\n"
    )


@pytest.mark.parametrize(
    ("call", "extra"),
    [
        (
            "postgresql.create_sync_engine(urls.parse_url('postgresql://h/d'), pool_size=1)",
            "sync",
        ),
        ("urls.parse_url('sqlite:///x.db')", "sqlite"),
        ("postgres.acquire()", "embedded"),
    ],
)
def test_other_parts_say_it_too(base: Path, call: str, extra: str) -> None:
    script = (
        "from async_loader import MissingExtraError\n"
        "from async_loader.database import embedded as postgres\n"
        "from async_loader.database import postgresql, urls\n"
        f"try: {call}\nexcept MissingExtraError as error: print(error)"
    )
    done = python(base, "-c", script)
    assert f"pip install 'async_loader[{extra}]'" in done.stdout, done.stderr
