"""Rows of files for operations: which row, how often, and what is wrong with a file, in a line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from async_loader import (
    ArrivalRate,
    ConfigurationError,
    Feed,
    Limit,
    OperationContext,
    Workload,
    feed,
    run,
)
from async_loader.load.context import Claims
from async_loader.load.partition import Partition
from async_loader.load.runner.sync_runner import run_sync
from async_loader.load.specs.run import RunSpec
from async_loader.reports.console import render
from async_loader.results.run import RunResult
from async_loader.verdict.verdict import judge


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A file of ten users, 0 to 9, with a byte order mark and a quoted line break."""
    path = tmp_path / "users.csv"
    rows = "".join(f'{n},"a, b\n{n}"\n' for n in range(10))
    path.write_text(f"\ufeffid,name\n{rows}\n")
    return path


def op(index: int, seed: int = 0, claims: Claims | None = None) -> OperationContext:
    return OperationContext(index, seed, None, None, claims)


def ids(rows: Feed, indexes: range, **given: Any) -> list[int]:
    return [rows.row(op(index, **given))["id"] for index in indexes]


def test_a_file_is_read_and_a_row_is_the_number_s(users: Path) -> None:
    rows = feed(users, types={"id": int})
    assert (len(rows), rows[3]) == (10, {"id": 3, "name": "a, b\n3"})
    assert ids(rows, range(12)) == [*range(10), 0, 1]
    assert ids(rows, range(-2, 0)) == [8, 9], "the warm-up's"


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "users.jsonl"
    path.write_text('{"id": 1, "tags": ["a"]}\n\n{"id": 2}\n')
    assert [dict(row) for row in feed(path)] == [{"id": 1, "tags": ["a"]}, {"id": 2}]


def test_a_relative_path_is_beside_the_caller() -> None:
    with pytest.raises(ConfigurationError, match=r"there is no file .*/unit/load/none.csv"):
        feed("none.csv")


def test_random_rows_are_drawn_by_seed_and_number(users: Path) -> None:
    rows = feed(users, order="random", types={"id": int})
    drawn = ids(rows, range(200))
    assert drawn == ids(rows, range(200))
    assert drawn != ids(rows, range(200), seed=1)
    assert set(drawn) == set(range(10))
    assert drawn[:20] != list(range(10)) * 2
    path = users.with_name("others.csv")
    path.write_bytes(users.read_bytes())
    assert drawn != ids(feed(path, order="random", types={"id": int}), range(200)), "independent"


def test_unique_rows_are_given_once_and_parts_share_them(users: Path) -> None:
    rows = feed(users, order="unique", types={"id": int})
    found = []
    for part in (Partition(0, 3), Partition(1, 3), Partition(2, 3)):
        claims = Claims(part.number, part.parts)
        asked = [op(index, claims=claims) for index in (-1, 7, 3)]
        found += [rows.row(one)["id"] for one in asked]
        assert rows.row(asked[1]) is rows.row(asked[1]), "the same however often it asks"
    assert sorted(found) == list(range(9))


async def exhausted(rows: Feed, **options: Any) -> tuple[RunResult, list[int]]:
    workload, seen = Workload("shop"), list[int]()

    @workload.operation("buy", weight=3)
    async def buy(op: OperationContext) -> None:
        row = rows.row(op)
        await asyncio.sleep(0)
        seen.append(row["id"])

    @workload.operation("look")
    async def look() -> None: ...

    return await run(workload, **{"ops": 100} | options), seen


@pytest.mark.parametrize(
    "options", [{}, {"duration": 60, "ops": None}, {"throttle": ArrivalRate(5000)}], ids=str
)
async def test_the_end_of_a_feed_is_the_end_of_the_run(
    users: Path, options: dict[str, Any]
) -> None:
    result, seen = await exhausted(feed(users, order="unique", types={"id": int}), **options)
    assert sorted(seen) == list(range(10))
    assert result.by_operation["buy"].started == 10, "what found no row has not begun"
    assert (result.outcome, result.failed, result.dropped, result.not_started) == ("done", 0, 0, 0)
    assert judge(result).word == "passed"
    assert "the run was over early: users.csv is exhausted: it has 10 rows" in render(result)
    assert RunResult.from_dict(result.to_dict()).ended_by == result.ended_by


def test_the_end_of_a_feed_is_the_end_for_threads(users: Path) -> None:
    rows, workload, seen = feed(users, order="unique", types={"id": int}), Workload("shop"), []

    @workload.operation("buy", kind="read")
    async def buy(op: OperationContext) -> None: ...

    @buy.sync
    def buy_sync(op: OperationContext) -> None:
        seen.append(rows.row(op)["id"])

    result = run_sync(
        workload, RunSpec.of(duration=60, warmup=Limit(ops=2)), sessions=None, threads=3
    )
    assert sorted(seen) == list(range(10))
    assert (result.started, result.not_started, judge(result).word) == (8, 0, "passed")
    assert result.ended_by == "users.csv is exhausted: it has 10 rows"


async def test_or_an_error_of_each_operation_that_finds_none(users: Path) -> None:
    rows = feed(users, exhausted="error", types={"id": int})
    result, seen = await exhausted(rows)
    assert (result.completed + result.failed, result.ended_by) == (100, None)
    assert set(result.errors) == {"FeedExhausted"}
    assert set(seen) <= set(range(10))


async def test_each_run_begins_with_the_first_row(users: Path) -> None:
    rows = feed(users, order="unique", types={"id": int})
    for _ in range(2):
        _, seen = await exhausted(rows)
        assert sorted(seen) == list(range(10))


async def test_a_missing_column_is_named(users: Path) -> None:
    rows, workload = feed(users), Workload("shop")

    @workload.operation("buy")
    async def buy(op: OperationContext) -> None:
        rows.row(op)["mail"]

    result = await run(workload, ops=1)
    assert result.errors["KeyError"].sample is not None
    assert "there is no column 'mail': there are id, name" in result.errors["KeyError"].sample


@pytest.mark.parametrize(
    ("name", "text", "types", "said"),
    [
        ("a.csv", "id\n1\n", {"mail": str}, "a.csv:2 has no column 'mail': there are id"),
        ("a.csv", "id\n1\nx\n", {"id": int}, "a.csv:3: id is no int"),
        ("a.csv", "id,name\n1\n", {}, "a.csv:2 has 1 values for 2 columns"),
        ("a.csv", "id,id\n1,2\n", {}, "a.csv has two columns 'id'"),
        ("a.csv", "id\n", {}, "a.csv has no rows"),
        ("a.csv", "", {}, "a.csv has no rows"),
        ("a.csv", 'id\n"1', {}, "a.csv:2: unexpected end of data"),
        ("a.jsonl", '{"id": 1}\n{"id"', {}, "a.jsonl:2 is no JSON"),
        ("a.jsonl", "[1]\n", {}, "a.jsonl:1 is no object"),
        ("a.txt", "id\n1\n", {}, "a.txt is none of .csv, .tsv, .jsonl, .ndjson"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(
    name: str, text: str, types: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        feed(tmp_path / name, types=types)
    assert str(raised.value) == f"feed: {said}"


def test_no_utf_8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id\n\xff\n")
    with pytest.raises(ConfigurationError, match=r"a\.csv is not UTF-8"):
        feed(tmp_path / "a.csv")
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        feed(tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"order": "shuffled"}, "order is one of 'sequential', 'random', 'unique'"),
        ({"exhausted": "stop"}, "exhausted is one of 'again', 'end', 'error'"),
        ({"order": "random", "exhausted": "end"}, "drawn at random are never exhausted"),
        ({"order": "unique", "exhausted": "again"}, "not unique where the file begins again"),
    ],
)
def test_what_excludes_each_other(options: dict[str, Any], said: str, users: Path) -> None:
    with pytest.raises(ConfigurationError, match=said):
        feed(users, **options)
