"""
Run the tests of projects that use SQLAlchemy, on PostgreSQL, without and with batched inserts.

    python -m tests.compliance.foreign_suites --url URL [--work FOLDER] [project ...]

Downloads a project's source distribution, makes a virtual environment for it, runs its tests
stock and batched, each in a database of its own, and prints what passes without batching and
does not with it, and how many statements were batched: a suite with none shows nothing. Some
projects ship no tests in their source distribution (fastcrud).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import make_url

from tests.compliance.sqlalchemy_suite import Outcomes, _execute, _lost, _passed, _read

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@dataclass(frozen=True, slots=True)
class Project:
    """Where its tests are, and what they need beside the project."""

    tests: str
    needs: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


PROJECTS = {
    "fastapi-users-db-sqlalchemy": Project("tests", ("pytest-asyncio", "aiosqlite")),
    "factory_boy": Project("tests/test_alchemy.py", ("django", "mongoengine")),
    "sqlalchemy-utils": Project(
        "tests",
        (
            *("pygments", "babel", "colour", "cryptography", "passlib", "arrow", "pendulum"),
            *("phonenumbers", "psycopg2-binary", "flexmock", "intervals", "python-dateutil"),
            *("furl", "jinja2", "docutils"),
        ),
        (("SQLALCHEMY_UTILS_TEST_DB", "{database}"),),
    ),
    "sqlalchemy-history": Project("tests", ("flask", "flask-sqlalchemy", "psycopg2-binary")),
    "sqlmodel": Project("tests", ("dirty-equals", "fastapi", "httpx", "black", "jinja2")),
    "advanced-alchemy": Project("tests/unit", ("pytest-asyncio", "pytest-mock", "aiosqlite")),
}


def main(argv: list[str] | None = None) -> int:
    """Return 0 when no test is lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--url", required=True, help="a PostgreSQL server that nobody needs")
    parser.add_argument("--work", help="keep what is made in this folder")
    parser.add_argument("projects", nargs="*", choices=[[], *PROJECTS])
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="foreign-suites-") as temporary:
        work = Path(options.work or temporary)
        work.mkdir(parents=True, exist_ok=True)
        lost = [_project(name, work, options.url) for name in options.projects or PROJECTS]
    return 1 if any(lost) else 0


def _project(name: str, work: Path, url: str) -> int:
    project = PROJECTS[name]
    python = _python(name, work)
    if not python.exists():
        venv.create(python.parent.parent, with_pip=True)
        _pip(
            python,
            "install",
            name,
            "pytest",
            "asyncpg",
            "psycopg[binary]",
            "hdrhistogram",
            "msgspec",
        )
        for need in project.needs:
            _pip(python, "install", need)
    stock, batched = (_run(name, work, url, side) for side in ("stock", "batched"))
    lost = _lost(stock, batched)
    print(
        f"{name:30} {_passed(stock):5} {_passed(batched):5}  lost {len(lost)}"
        f"  batched {batched.ours}",
        flush=True,
    )
    for test, why in sorted(lost.items()):
        print(f"\nLOST {test}\n{why[-1500:]}")
    return len(lost)


def _python(name: str, work: Path) -> Path:
    return work / f"venv-{name}" / "bin" / "python"


def _pip(python: Path, *arguments: str) -> None:
    subprocess.run([str(python), "-m", "pip", arguments[0], "--quiet", *arguments[1:]], check=False)


def _source(name: str, work: Path) -> Path:
    folder = work / f"source-{name}"
    if not folder.exists():
        _pip(
            _python(name, work),
            "download",
            "--no-deps",
            "--no-binary",
            name,
            "--dest",
            str(folder),
            name,
        )
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())


def _run(name: str, work: Path, url: str, side: str) -> Outcomes:
    python = _python(name, work)
    project = PROJECTS[name]
    database = f"foreign_{side}"
    asyncio.run(_execute(url, f"DROP DATABASE IF EXISTS {database} WITH (FORCE)"))
    asyncio.run(_execute(url, f"CREATE DATABASE {database}"))
    target = make_url(url).set(drivername="postgresql", database=database)
    report, count = work / f"{name}-{side}.xml", work / f"{name}-{side}.ours"
    command = [str(python), "-m", "pytest", "-q", "-p", "postgresql_plugin", "--tb=short"]
    command += ["-p", "batching_plugin"] if side == "batched" else []
    command += ["-p", "no:cacheprovider", f"--junitxml={report}", project.tests]
    environment = {
        **os.environ,
        **{key: value.format(database=database) for key, value in project.environment},
        "FOREIGN_URL": target.render_as_string(hide_password=False),
        "OURS": str(count),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]),
    }
    with (work / f"{name}-{side}.log").open("wb") as log:
        subprocess.run(
            command,
            cwd=_source(name, work),
            env=environment,
            check=False,
            stdout=log,
            stderr=log,
            timeout=1800,
        )
    return _read(report, count)


if __name__ == "__main__":
    sys.exit(main())
