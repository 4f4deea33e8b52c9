"""Whose line it is, and what is shown of a statement."""

from __future__ import annotations

import asyncio
import sysconfig
from pathlib import Path

import pytest
import sqlalchemy

from async_loader.failures.redaction import shortened
from async_loader.failures.source_lines import origin_of, short_path, user_line
from async_loader.load.runner import runner
from async_loader.load.workloads import mixed

SITE = f"{Path(sqlalchemy.__file__).parent.parent}"


@pytest.mark.parametrize(
    ("filename", "origin"),
    [
        ("/home/me/shop/models.py", "own"),
        (mixed.__file__, "own"),
        (runner.__file__, "machinery"),
        (asyncio.__file__, "machinery"),
        (sysconfig.get_paths()["stdlib"] + "/json/decoder.py", "machinery"),
        ("<frozen importlib._bootstrap>", "machinery"),
        (sqlalchemy.__file__, "machinery"),
        (f"{SITE}/greenlet/__init__.py", "machinery"),
        (f"{SITE}/shop/models.py", "installed"),
        (f"{SITE}/shop.py", "installed"),
    ],
)
def test_whose_code_it_is(filename: str, origin: str) -> None:
    assert origin_of(filename) == origin


def test_the_innermost_line_of_the_users_own_is_named() -> None:
    lines = [
        (sqlalchemy.__file__, 1, "execute"),
        (f"{SITE}/plugin/__init__.py", 2, "load"),
        ("/home/me/shop/models.py", 3, "total"),
        ("/home/me/shop/load.py", 4, "checkout"),
        (runner.__file__, 5, "_perform"),
    ]
    assert user_line(lines) == "/home/me/shop/models.py:3 in total"


def test_installed_code_is_named_where_the_operation_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # else a path below the current folder is written from there
    lines = [
        (sqlalchemy.__file__, 1, "execute"),
        (f"{SITE}/shop/models.py", 2, "total"),
        (runner.__file__, 3, "_perform"),
        ("/home/me/start_the_run.py", 4, "<module>"),
    ]
    assert user_line(lines) == f"{SITE}/shop/models.py:2 in total"
    assert user_line([(runner.__file__, 3, "_perform")]) is None


def test_paths_are_as_seen_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert short_path(str(tmp_path / "shop" / "load.py")) == "shop/load.py"
    assert short_path("/elsewhere/load.py") == "/elsewhere/load.py"


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("SELECT a.id, a.name, a.price, a.stock\nFROM a\nWHERE a.id = $1",
         "SELECT ... FROM a WHERE a.id = $1"),
        ("SELECT a.id FROM a", "SELECT a.id FROM a"),
        ("SELECT DISTINCT a.id, a.name, a.price, a.s FROM a", "SELECT DISTINCT ... FROM a"),
        ("INSERT INTO t VALUES (1, 'it''s secret', 2.5, $1)", "INSERT INTO t VALUES (?, ?, ?, $1)"),
        ("SELECT $$hidden$$, $x$so$x$, t1.c2 FROM t1", "SELECT ?, ?, t1.c2 FROM t1"),
    ],
)  # fmt: skip
def test_a_statement_is_one_line_without_literals(statement: str, shown: str) -> None:
    assert shortened(statement) == shown


def test_a_long_statement_is_cut() -> None:
    shown = shortened("UPDATE t SET " + ", ".join(f"c{n} = $1" for n in range(99)))
    assert len(shown) == 240
    assert shown.endswith(" ...")
