"""
Run SQLAlchemy's own tests without and with what we put into it, and compare.

    python tests/compliance/sqlalchemy_suite.py [--sqlalchemy 2.0.40] [--driver psycopg]
        [--with batching|fast_paths] [--part orm|sql|dialect/postgresql] [--url URL] [files ...]

Downloads the source distribution of the wanted SQLAlchemy into a temporary folder, makes a
virtual environment for it, makes two databases on the server of `--url` (default: an embedded
one, in a folder of its own), runs every file in each and prints what passes without
it and does not pass with it. Exit code 1 when there is such a test that is not in
`EXPECTED`. Files are paths below `test/orm/`, or another part of the suite; without any, the
ones that the project promises, or all of another part. The last column is the number of batched
statements, or of statements that were kept: a file with none shows nothing.
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
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import asyncpg
import sqlalchemy
from sqlalchemy.engine import make_url

from async_loader.database.embedded import embedded_server

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

PROMISED = {
    "batching": [
        "test_unitofwork.py",
        "test_unitofworkv2.py",
        "test_cascade.py",
        "test_defaults.py",
        "test_naturalpks.py",
        "test_versioning.py",
        "test_transaction.py",
        "inheritance/test_basic.py",
    ],
    "fast_paths": [
        "test_selectin_relations.py",
        "test_eager_relations.py",
        "test_deferred.py",
        "test_options.py",
        "test_recursive_loaders.py",
        "test_relationship_criteria.py",
        "test_of_type.py",
        "test_ac_relationships.py",
        "test_default_strategies.py",
        "test_lazy_relations.py",
        "test_load_on_fks.py",
        "test_loading.py",
        "test_pickled.py",
        "test_bind.py",
        "test_events.py",
        "test_expire.py",
        "test_merge.py",
        "inheritance/test_poly_loading.py",
        "inheritance/test_polymorphic_rel.py",
        "inheritance/test_relationship.py",
        "inheritance/test_single.py",
        "inheritance/test_assorted_poly.py",
        "../ext/test_baked.py",
    ],
}

# Tests that assert on literal SQL or on the number of statements: test id to the reason.
EXPECTED: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of each test of one file, by test id, and the text of its failure."""

    by_test: dict[str, str]
    detail: dict[str, str]
    ours: int = 0  # statements: batched ones, or those that were kept


def main(argv: list[str] | None = None) -> int:
    """Return 0 when what we put in breaks nothing that passes without it."""
    options = _parse(argv)
    with tempfile.TemporaryDirectory(prefix="sqlalchemy-suite-") as temporary:
        work = Path(options.work) if options.work else Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        python = _environment(work, options.sqlalchemy)
        suite = _source(work, python, options.sqlalchemy)
        files = _files(suite / "test" / options.part, options)
        with (
            _server(options.url, work) as url,
            _databases(url, options.driver) as (plain_url, our_url),
        ):
            runs = [
                Run(python, suite, work, plain_url, options.part),
                Run(python, suite, work, our_url, options.part, options.with_),
            ]
            return _compare(options.sqlalchemy, files, runs)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--sqlalchemy", default=sqlalchemy.__version__, metavar="VERSION")
    parser.add_argument("--driver", choices=["asyncpg", "psycopg"], default="asyncpg")
    parser.add_argument("--with", choices=[*PROMISED], default="batching", dest="with_")
    parser.add_argument("--part", choices=["orm", "sql", "dialect/postgresql"], default="orm")
    parser.add_argument("--url", help="a PostgreSQL server (default: an embedded one)")
    parser.add_argument("--work", help="keep the environment and the sources in this folder")
    parser.add_argument("--all", action="store_true", help="every file of the part")
    parser.add_argument("files", nargs="*", help="below the part, such as test_cascade.py")
    options = parser.parse_args(argv)
    if options.all or (options.part != "orm" and not options.files):
        options.files = ["*"]
    return options


@contextmanager
def _server(url: str | None, work: Path) -> Iterator[str]:
    if url is not None:
        yield url
        return
    work.chmod(0o755)  # root's server runs as `nobody`
    with embedded_server(work / "server") as server:
        yield server.url


def _environment(work: Path, version: str) -> Path:
    """Make a virtual environment with that SQLAlchemy; return its interpreter."""
    python = work / f"venv-{version}" / "bin" / "python"
    if not python.exists():
        venv.create(python.parent.parent, with_pip=True)
        wanted = [f"sqlalchemy[asyncio]=={version}", "asyncpg", "hdrhistogram", "msgspec", "pytest"]
        wanted.append("psycopg[binary]")
        _run([str(python), "-m", "pip", "install", "--quiet", *wanted])
    return python


def _source(work: Path, python: Path, version: str) -> Path:
    """Download and unpack the source distribution; return its folder."""
    folder = work / f"sqlalchemy-{version}"
    if not folder.exists():
        pip = [str(python), "-m", "pip", "download", "--quiet", "--no-deps"]
        source_only = ["--no-binary", ":all:", "--dest", str(work)]
        _run([*pip, *source_only, f"sqlalchemy=={version}"])
        with tarfile.open(work / f"sqlalchemy-{version}.tar.gz") as archive:
            archive.extractall(work, filter="data")
    return folder


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _files(folder: Path, options: argparse.Namespace) -> list[str]:
    wanted: list[str] = options.files
    if wanted == ["*"]:
        return sorted(
            str(path.relative_to(folder))
            for path in folder.rglob("test_*.py")
            if not path.stem.endswith("_py314")  # not collected by older interpreters
        )
    return wanted or PROMISED[options.with_]


@contextmanager
def _databases(url: str, driver: str) -> Iterator[tuple[str, str]]:
    """Two databases with what the suite expects of one, dropped at the end."""
    names = [f"sqlalchemy_suite_{os.getpid()}_{side}" for side in ("plain", "ours")]
    urls = [make_url(url).set(drivername=f"postgresql+{driver}", database=name) for name in names]
    try:
        for name, target in zip(names, urls, strict=True):
            asyncio.run(_execute(url, f'CREATE DATABASE "{name}"'))
            plain = target.set(drivername="postgresql").render_as_string(hide_password=False)
            asyncio.run(
                _execute(
                    plain,
                    "CREATE SCHEMA test_schema",
                    "CREATE SCHEMA test_schema_2",
                    "CREATE EXTENSION hstore",
                    "CREATE EXTENSION citext",
                )
            )
        rendered = [target.render_as_string(hide_password=False) for target in urls]
        yield rendered[0], rendered[1]
    finally:
        for name in names:
            asyncio.run(_execute(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


async def _execute(url: str, *statements: str) -> None:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(plain)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@dataclass(frozen=True, slots=True)
class Run:
    """One side of the comparison."""

    python: Path
    suite: Path
    work: Path
    url: str
    part: str
    with_: str | None = None

    def outcomes(self, file: str) -> Outcomes:
        """Run one file of the suite in a process of its own."""
        side = self.with_ or "plain"
        report = self.work / f"{side}-{os.getpid()}-{file.replace('/', '-')}.xml"
        command = [str(self.python), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["--maxfail=100000", "--tb=short", f"--junitxml={report}"]
        command += ["-p", f"{self.with_}_plugin"] if self.with_ else []
        command += [f"test/{self.part}/{file}", "--dburi", self.url]
        count = report.with_suffix(".ours")
        environment = {
            **os.environ,
            "OURS": str(count),
            # The suite must meet the installed SQLAlchemy and not the one beside it.
            "PYTHONNOUSERSITE": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
        }
        subprocess.run(
            command,
            cwd=self.suite,
            env=environment,
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=1800,
        )
        try:
            return _read(report, count)
        finally:
            report.unlink(missing_ok=True)
            count.unlink(missing_ok=True)


def _read(report: Path, count: Path) -> Outcomes:
    by_test: dict[str, str] = {}
    detail: dict[str, str] = {}
    if not report.exists():
        return Outcomes(by_test, detail)
    for case in ElementTree.parse(report).iter("testcase"):
        test = f"{case.get('classname')}::{case.get('name')}"
        by_test[test] = "passed"
        for kind in ("skipped", "failure", "error"):
            found = case.find(kind)
            if found is not None:
                by_test[test] = kind
                detail[test] = (found.text or found.get("message") or "").strip()
    ours = int(count.read_text(encoding="utf-8")) if count.exists() else 0
    return Outcomes(by_test, detail, ours)


def _compare(version: str, files: Iterable[str], runs: list[Run]) -> int:
    broken: dict[str, str] = {}
    print(f"SQLAlchemy {version}: passed without and with {runs[1].with_}")
    with ThreadPoolExecutor(max_workers=2) as pool:
        for file in files:
            plain, ours = pool.map(Run.outcomes, runs, [file, file])
            lost = _lost(plain, ours)
            if not plain.by_test:
                lost[file] = "no test of it ran: wrong name, or the suite did not start"
            broken.update(lost)
            print(
                f"{file:40} {_passed(plain):5} {_passed(ours):5}  lost {len(lost)}"
                f"  ours {ours.ours}",
                flush=True,
            )
    unexpected = {test: why for test, why in broken.items() if test not in EXPECTED}
    for test in sorted(broken.keys() & EXPECTED.keys()):
        print(f"expected: {test}: {EXPECTED[test]}")
    for test, why in sorted(unexpected.items()):
        print(f"\nLOST {test}\n{why[-3000:]}")
    return 1 if unexpected else 0


def _passed(outcomes: Outcomes) -> int:
    return sum(outcome == "passed" for outcome in outcomes.by_test.values())


def _lost(plain: Outcomes, ours: Outcomes) -> dict[str, str]:
    return {
        test: ours.detail.get(test, "did not run")
        for test, outcome in plain.by_test.items()
        if outcome == "passed" and ours.by_test.get(test) != "passed"
    }


if __name__ == "__main__":
    sys.exit(main())
