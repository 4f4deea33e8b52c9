"""Command line of the differential tester; see the package's docstring."""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy

import tests.compliance.differential as package
from async_loader.database.embedded import embedded_server
from tests.compliance.differential.campaign import Campaign, Failure, report
from tests.compliance.differential.comparing import DifferenceError
from tests.compliance.differential.mutants import MUTANTS
from tests.compliance.differential.performing import Performer, UnstableError
from tests.folders import in_memory

DRIVERS = ("asyncpg", "psycopg")


def main(argv: list[str] | None = None) -> int:
    """Return 0 when nothing differs and enough was batched."""
    options = _parse(argv)
    if options.mutant:
        MUTANTS[options.mutant].apply(_Lasting())
    with _server(options.url) as url:
        if options.again:
            return max(_again(url, driver, options) for driver in options.driver or DRIVERS)
        return max(_campaign(url, driver, options) for driver in options.driver or DRIVERS)


class _Lasting:
    """Patches until the process ends."""

    def setattr(self, target: Any, name: str, value: Any, /) -> None:
        """Set an attribute."""
        setattr(target, name, value)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.compliance.differential",
        description=(package.__doc__ or "").strip().splitlines()[0],
    )
    parser.add_argument("--examples", type=int, default=300, help="for each driver")
    parser.add_argument("--driver", action="append", choices=DRIVERS)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument("--url", help="a PostgreSQL server (default: an embedded one)")
    parser.add_argument("--keep-going", action="store_true", help="report every difference")
    parser.add_argument("--changes", action="store_true", help="batch updates and deletes, too")
    parser.add_argument("--no-shrink", action="store_true", help="report them as they were found")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write what differs there")
    parser.add_argument("--again", type=Path, nargs="+", metavar="FILE", help="perform these")
    parser.add_argument("--only", action="append", default=[], metavar="FEATURE")
    parser.add_argument("--without", action="append", default=[], metavar="FEATURE")
    parser.add_argument("--control", action="store_true", help="perform stock on both sides")
    parser.add_argument("--mutant", choices=list(MUTANTS), help="break this again before")
    parser.add_argument("--features", action="store_true", help="list what was covered")
    return parser.parse_args(argv)


@contextmanager
def _server(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(dir=in_memory(), prefix="differential-") as folder:
        Path(folder).chmod(0o755)  # root's server runs as `nobody`
        with embedded_server(Path(folder) / "server") as server:
            yield server.url


def _campaign(url: str, driver: str, options: argparse.Namespace) -> int:
    print(f"SQLAlchemy {sqlalchemy.__version__}, {driver}, seed {options.seed}", flush=True)
    started = time.perf_counter()
    performer = Performer(
        url, driver, f"_{options.seed}", control=options.control, changes=options.changes
    )
    campaign = Campaign(performer, only=tuple(options.only), without=tuple(options.without))
    tally = campaign.tally
    try:
        number = options.seed
        while tally.performed < options.examples:
            wanted = min(options.examples - tally.performed, 2000)
            failure = campaign.run(wanted, number, shrink=not options.no_shrink)
            number += 1_000_000
            if failure is not None:
                tally.failures.append(failure)
                _save(options, driver, failure)
                print(f"\nexample {failure.at} differs: {failure.difference}")
                print(failure.example.script, flush=True)
                if not options.keep_going:
                    break
    finally:
        performer.close()
    report(tally, features=options.features)
    print(f"{time.perf_counter() - started:.0f} s, {performer.number} performed", flush=True)
    if options.control or options.mutant or tally.batched * 4 >= tally.performed:
        return 1 if tally.failures else 0
    print("too few of these flushes were batched to show anything")
    return 2


def _save(options: argparse.Namespace, driver: str, failure: Failure) -> None:
    if options.save is not None:
        options.save.mkdir(parents=True, exist_ok=True)
        name = f"{driver}-{options.seed}-{failure.at}.pickle"
        (options.save / name).write_bytes(pickle.dumps(failure.example))


def _again(url: str, driver: str, options: argparse.Namespace) -> int:
    """Perform saved examples, of this very version of the tester."""
    performer = Performer(url, driver, "_again", control=options.control, changes=options.changes)
    different = 0
    try:
        for path in options.again:
            example = pickle.loads(path.read_bytes())
            try:
                performer.check(example)
            except (DifferenceError, UnstableError) as error:
                different += isinstance(error, DifferenceError)
                print(f"{driver}, {path}: {type(error).__name__} {error}", flush=True)
            else:
                print(f"{driver}, {path}: the same", flush=True)
    finally:
        performer.close()
    return min(different, 1)


if __name__ == "__main__":
    sys.exit(main())
