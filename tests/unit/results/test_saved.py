"""Reading results back: what they were, or one line that says why not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from async_loader import ConfigurationError, RunResult
from async_loader.cli.report import labelled
from async_loader.reports.json import render, render_comparison
from async_loader.results.saved import read_results, read_saved
from tests.unit.results.test_results import result_of


def save(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def read_labelled(*paths: Path) -> dict[str, list[RunResult]]:
    return labelled(paths, [read_saved(path) for path in paths])


def moded(mode: str, seconds: float = 2.0) -> RunResult:
    return replace(result_of(10**6, seconds=seconds), mode=mode)


def test_a_run_is_read_back(tmp_path: Path) -> None:
    path = save(tmp_path / "run.json", render(result_of(5, 70, failed=2)))
    (again,) = read_results(path)
    assert again.to_dict() == result_of(5, 70, failed=2).to_dict()


def test_a_comparison_is_read_back_in_its_order(tmp_path: Path) -> None:
    compared = {
        "sync": [moded("sync", 1), moded("sync", 3)],
        "chunks": [moded("chunks", 2), moded("chunks", 4)],
    }
    path = save(tmp_path / "compare.json", render_comparison(compared))
    assert [(run.mode, run.seconds) for run in read_results(path)] == [
        ("sync", 1), ("chunks", 2), ("sync", 3), ("chunks", 4),
    ]  # fmt: skip
    again = read_labelled(path)
    assert {label: [run.seconds for run in runs] for label, runs in again.items()} == {
        "sync": [1, 3],
        "chunks": [2, 4],
    }


def test_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    run = save(tmp_path / "main.json", render(moded("semaphore")))
    other = save(tmp_path / "old" / "main.json", render(moded("semaphore")))
    compared = save(
        tmp_path / "ways.json",
        render_comparison({"sync": [moded("sync")], "chunks": [moded("chunks")]}),
    )
    assert list(read_labelled(run, compared)) == ["main", "ways sync", "ways chunks"]
    assert list(read_labelled(run, other)) == [str(run), str(other)]
    assert list(read_labelled(run, run)) == [f"{run} (1)", f"{run} (2)"]


DOCUMENT = result_of(1).to_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("\x00\xff", "is not JSON"),
        ("[1]", "is not the result of a run"),
        ('{"schema": 1, "measures": []}', "is not the result of a run"),
        (json.dumps(DOCUMENT | {"schema": 99}), "is of schema 99: this version reads 1"),
        (json.dumps({"schema": 1, "runs": []}), "it has no runs"),
        (json.dumps({"schema": 1, "runs": [3]}), "it has no runs"),
        (json.dumps({"schema": 1, "runs": [DOCUMENT | {"seconds": None}]}), "damaged: seconds"),
        (json.dumps(DOCUMENT | {"seconds": "long"}), "damaged: seconds"),
        (
            json.dumps({k: v for k, v in DOCUMENT.items() if k != "pool"}),
            "damaged: object missing required field `pool`",
        ),
        (json.dumps(DOCUMENT)[:200], "is not JSON"),
        (
            json.dumps(DOCUMENT).replace('"HIST', '"hist'),
            "damaged: by_operation.create.histogram: not an encoded HDR histogram",
        ),
    ],
)
def test_anything_else_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = save(tmp_path / "x.json", text)
    with pytest.raises(ConfigurationError) as caught:
        read_results(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_results(tmp_path / "none.json")
