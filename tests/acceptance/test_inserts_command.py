"""`async_loader inserts`, and batched inserts and fast paths in the load runner."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Command


def test_every_way_is_a_row(command: Command, database_url: str, tmp_path: Path) -> None:
    done = command(
        "inserts", "--rows", "300", "--rounds", "1", "--latency", "1ms",
        "--database-url", database_url, "--out", "json=x",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "300 rows of shape plain" in done.stdout
    assert "1 ms added to each round trip" in done.stdout
    measures = {one["way"]: one for one in json.loads((tmp_path / "x").read_text())["measures"]}
    for way in measures:
        assert f"\n {way}" in done.stdout
    assert {"stock", "ours", "insert_rows", "copy"} <= measures.keys()
    assert measures["ours"]["round_trips"] == 1
    assert measures["stock"]["ratio_to_stock"] == 1


def test_what_it_cannot_measure_is_said(command: Command) -> None:
    done = command("inserts", "--database-url", "sqlite:///x.db")
    assert done.returncode == 104
    assert "measured on PostgreSQL" in done.stderr
    wrong = command("inserts", "--shape", "tre")
    assert wrong.returncode == 104
    assert "did you mean tree?" in wrong.stderr


def test_the_runner_uses_it_and_compare_shows_it(
    command: Command, database_url: str, tmp_path: Path
) -> None:
    done = command(
        "compare", "--workload", "sequences", "--ops", "100", "--rounds", "1", "--modes",
        "semaphore", "--modes", "stock", "--database-url", database_url, "--out", "json=x",
        "--progress", "none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\n stock " in done.stdout
    ours, stock = json.loads((tmp_path / "x").read_text())["runs"]
    assert (ours["settings"]["batch_inserts"], stock["settings"]["batch_inserts"]) == (True, False)
    assert (ours["settings"]["fast_paths"], stock["settings"]["fast_paths"]) == (True, False)
    assert "reads by fast paths" in done.stdout
    statements = [run["by_operation"]["import"]["statements"]["max"] for run in (ours, stock)]
    assert statements[0] == 2 < statements[1]
