"""Repeated statements and the server's account: merged, kept in JSON, shown."""

from __future__ import annotations

import json
from dataclasses import replace

from async_loader import RunResult, merge
from async_loader.reports import console, markdown
from async_loader.reports import json as json_report
from async_loader.results.errors import ErrorResult
from async_loader.results.findings import (
    DatabaseCounts,
    RepeatedStatement,
    ServerSide,
    ServerStatement,
)
from tests.unit.results.test_results import result_of

CHORDS = RepeatedStatement(
    operation="create",
    statement="SELECT ... FROM chords WHERE chords.song_id = $1",
    source="shop/loadtest.py:31 in read",
    cause="lazy load of Song.chords",
    operations=2,
    executions=60,
    most=40,
)
SERVER = ServerSide(
    database=DatabaseCounts(commits=10, rollbacks=2, blocks_hit=99, blocks_read=1, temp_files=1),
    statements=(ServerStatement("SELECT $1", calls=4, total_ms=8.0, rows=4),),
    calls=8,
    total_ms=16.0,
    waits={"running": 3, "Lock:tuple": 1},
    samples=2,
    notes=("something is missing: ask for it",),
)


def found() -> RunResult:
    return replace(result_of(1, 2), repeated_statements=(CHORDS,), server_side=SERVER)


def test_they_read_back_and_older_files_lack_them() -> None:
    document = json.loads(json_report.render(found()))
    again = RunResult.from_dict(document)
    assert (again.repeated_statements, again.server_side) == ((CHORDS,), SERVER)
    assert document["repeated_statements"][0]["mean"] == 30
    del document["repeated_statements"], document["server_side"]
    older = RunResult.from_dict(document)
    assert (older.repeated_statements, older.server_side) == ((), None)


def test_repeats_of_shards_add_up_by_operation_statement_and_line() -> None:
    elsewhere = replace(CHORDS, source="shop/loadtest.py:99 in read", executions=500)
    merged = merge(
        replace(result_of(1), repeated_statements=repeats)
        for repeats in ((CHORDS,), (), (elsewhere, replace(CHORDS, most=41)))
    )
    assert merged.repeated_statements == (
        elsewhere,
        replace(CHORDS, operations=4, executions=120, most=41),
    )


def test_shards_that_watch_one_server_do_not_count_it_twice() -> None:
    other = ServerSide(
        database=DatabaseCounts(commits=12, rollbacks=1),
        statements=(
            ServerStatement("SELECT $1", calls=5, total_ms=7.0, rows=5),
            ServerStatement("COMMIT", calls=9, total_ms=9.0, rows=0),
        ),
        calls=14,
        total_ms=16.5,
        waits={"running": 1},
        samples=1,
    )
    merged = merge(replace(result_of(1), server_side=side) for side in (SERVER, None, other))
    side = merged.server_side
    assert side is not None
    assert side.database == replace(SERVER.database or DatabaseCounts(), commits=12)
    assert side.statements == (
        ServerStatement("COMMIT", calls=9, total_ms=9.0, rows=0),
        ServerStatement("SELECT $1", calls=5, total_ms=8.0, rows=5),
    )
    assert (side.calls, side.total_ms) == (14, 16.5)
    assert (side.waits, side.samples) == ({"running": 4, "Lock:tuple": 1}, 3)
    assert side.notes == SERVER.notes


def test_the_reports_name_them() -> None:
    text = console.render(found(), width=100)
    joined = " ".join(text.split())
    assert (
        "create: SELECT ... FROM chords WHERE chords.song_id = $1 ×40 in one operation (mean 30.0, "
        "in 2 of 2), at shop/loadtest.py:31 in read (lazy load of Song.chords)" in joined
    )
    assert "cache hits 99.0%, 10 commits, 2 rollbacks, 0 deadlocks, 1 temp file" in joined
    assert "running 75%, Lock:tuple 25% (2.0 connections, 2 samples)" in joined
    assert "0.01 s (50%), 4 × 2.000 ms: SELECT $1" in joined
    assert "something is missing: ask for it" in joined
    assert max(map(len, console.render(found()).splitlines())) <= 80
    for words in (r"×40 in one operation", r"lazy load of Song.chords", "10 commits", "missing"):
        assert words in markdown.render(found())


def test_many_repeats_are_cut_short() -> None:
    many = tuple(replace(CHORDS, statement=f"SELECT {n}") for n in range(14))
    text = console.render(replace(result_of(1), repeated_statements=many))
    assert "SELECT 9 " in text
    assert "SELECT 10 " not in text
    assert "and 4 more, in the JSON" in text


def test_the_line_of_an_error_is_shown_and_its_traceback_is_in_the_json() -> None:
    error = ErrorResult(1, {"create": 1}, "no stock", "shop/stock.py:7 in take", "Traceback ...")
    result = replace(result_of(1, failed=1), errors={"OutOfStock": error})
    assert "at shop/stock.py:7 in take" in console.render(result)
    assert r"shop/stock.py:7 in take" in markdown.render(result)
    document = json.loads(json_report.render(result))
    assert document["errors"]["OutOfStock"]["traceback"] == "Traceback ..."
    del document["errors"]["OutOfStock"]["traceback"], document["errors"]["OutOfStock"]["source"]
    assert RunResult.from_dict(document).errors["OutOfStock"].traceback is None
