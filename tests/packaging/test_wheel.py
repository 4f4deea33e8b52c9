"""The wheel, installed into environments that have nothing else: what is in it, and every extra."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, built from what git knows."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    files = git("ls-files", "-z").split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    ran(sys.executable, "-m", "build", "--outdir", str(out), str(source), cwd=source)
    return out


def git(*words: str) -> str:
    return ran("git", "-c", f"safe.directory={ROOT}", *words, cwd=ROOT)


def ran(*command: str, cwd: Path, status: int = 0) -> str:
    """Run a command, and return what it printed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def installed(tmp_path: Path, wheel: Path, extra: str = "") -> Path:
    """Make an environment with the wheel and an extra alone; return its Python."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    ran(str(python), "-m", "pip", "install", "-q", f"{wheel}{extra}", cwd=tmp_path)
    return python


def test_what_is_in_it(dist: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"async_loader/py.typed", "async_loader/reports/page/uPlot.LICENSE"} <= names
    assert not [name for name in names if name.startswith(("tests", "docs"))]
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        inside = {name.partition("/")[2] for name in packed.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "async_loader/py.typed"} <= inside


def test_its_metadata(wheel: Path) -> None:
    packed = zipfile.ZipFile(wheel)
    (name,) = (n for n in packed.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(packed.read(name).decode())
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Keywords"]
    assert metadata["Requires-Python"] == ">=3.11"
    python = "Programming Language :: Python :: 3."
    assert f"{python}11" in metadata.get_all("Classifier", [])
    assert len(metadata.get_payload()) > 1000  # the README


def test_the_main_job_from_the_wheel(tmp_path: Path, wheel: Path) -> None:
    """Also what the first page of the docs says, in a folder that is not ours."""
    python = installed(tmp_path, wheel, "[cli,embedded,sync]")
    version = ran(str(python), "-m", "async_loader", "--version", cwd=tmp_path)
    assert re.fullmatch(r"async_loader \d+\.\d+\.\d+\n", version)
    quickstart = (ROOT / "docs" / "quickstart.md").read_text()
    (workload,) = re.findall(r"^```python\n(# loadtest\.py\n.*?)^```$", quickstart, re.M | re.S)
    (tmp_path / "loadtest.py").write_text(workload)
    own = ["-w", "loadtest.py", "--threshold", "errors:rate<0.1%"]
    for options in ([], own):
        said = ran(str(python), "-m", "async_loader", "--ops", "200", *options, cwd=tmp_path)
        assert "passed" in said


def test_the_library_alone(tmp_path: Path, wheel: Path) -> None:
    """Without an extra: what an application imports, and a command that says what is missing."""
    python = installed(tmp_path, wheel)
    imports = (
        "import async_loader as a; import async_loader.jobs, async_loader.inserts;"
        " [getattr(a, n) for n in a.__all__]"
    )
    ran(str(python), "-W", "error", "-c", imports, cwd=tmp_path)
    said = ran(str(python), "-m", "async_loader", "--ops", "10", cwd=tmp_path, status=104)
    assert "async_loader[cli]" in said
    assert "Traceback" not in said
    ran(str(python), "-m", "pip", "install", "-q", "pytest", cwd=tmp_path)
    (tmp_path / "test_it.py").write_text(BUDGET)
    test = [
        str(python),
        "-m",
        "pytest",
        "-c",
        "/dev/null",
        "--rootdir",
        str(tmp_path),
        "test_it.py",
    ]
    said = ran(*test, cwd=tmp_path, status=1)
    assert "1 statement, max_statements=0" in said, "pytest finds the plugin by itself"


BUDGET = """
import pytest
from sqlalchemy import create_engine, text

@pytest.mark.query_budget(max_statements=0)
def test_it():
    with create_engine("sqlite://").connect() as connection:
        connection.execute(text("SELECT 1"))
"""


# What each extra adds, and what says that another one is missing.
SERVER = "postgresql://nobody@127.0.0.1:1/none"
ALONE = {
    "cli": (["--workload", "noop", "--ops", "10"], ["serve"], "service"),
    "service": (["serve", "--help"], ["ingest", "music"], "ingest"),
    "cli,embedded": (["--ops", "50"], ["compare", "--ops", "50", "--rounds", "1"], "sync"),
    "cli,sqlite": (
        ["--ops", "50", "--database-url", "sqlite+aiosqlite:///file.db"],
        ["--ops", "50"],
        "embedded",
    ),
    "cli,sync,embedded": (
        ["compare", "--ops", "50", "--rounds", "1"],
        ["--cluster", "tcp://127.0.0.1:1", "--database-url", SERVER, "--ops", "10"],
        "cluster",
    ),
    "cli,ingest": (["ingest", "--demo", "2"], ["serve"], "service"),
}


@pytest.mark.soak
@pytest.mark.parametrize("extra", ALONE)
def test_each_extra_alone(extra: str, tmp_path: Path, wheel: Path) -> None:
    python = installed(tmp_path, wheel, f"[{extra}]")
    works, lacks, missing = ALONE[extra]
    ran(str(python), "-m", "async_loader", *works, cwd=tmp_path)
    command = [str(python), "-m", "async_loader", *lacks]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode not in (0, 112)
    assert f"async_loader[{missing}]" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.soak
def test_a_worker_of_a_cluster_needs_its_extra_alone(tmp_path: Path, wheel: Path) -> None:
    python = installed(tmp_path, wheel, "[cluster]")
    imports = "import async_loader.load.shards.shard, distributed"
    ran(str(python), "-W", "error::ImportWarning", "-c", imports, cwd=tmp_path)
