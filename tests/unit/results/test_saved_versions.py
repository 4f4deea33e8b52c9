"""Files of each schema that a version ever wrote: read, and in the present form what they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from async_loader import RunResult
from async_loader.results import versions
from async_loader.results.saved import read_results
from async_loader.results.versions import CONVERTERS, RESULT_SCHEMA
from async_loader.verdict.document import document_of

SAVED = Path(__file__).parent / "saved"
SCHEMA_1 = SAVED / "schema_1.json"


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_there_is_a_file_of_each_schema() -> None:
    kept = {load(path)["schema"]: path.stem for path in SAVED.glob("*.json")}
    assert kept == {schema: f"schema_{schema}" for schema in range(1, RESULT_SCHEMA + 1)}
    assert list(CONVERTERS) == list(range(1, RESULT_SCHEMA)), "a converter from each to the next"


@pytest.mark.parametrize("path", sorted(SAVED.glob("*.json")), ids=lambda path: path.stem)
def test_a_file_of_each_schema_is_read(path: Path) -> None:
    (result,) = read_results(path)
    assert result.title == "main: mixed"
    assert (result.planned, result.completed, result.failed) == (4, 1, 2)
    assert result.by_operation["create"].histogram.max_ns == 6
    assert result.schedule is not None
    assert result.schedule.lag.count == 3


def test_the_present_form_is_written_as_the_file_has_it() -> None:
    """Key for key: a change of the form takes a new schema, a converter and a file of it."""
    document = load(SAVED / f"schema_{RESULT_SCHEMA}.json")
    assert json.loads(json.dumps(document_of(RunResult.from_dict(document)))) == document


def test_what_the_first_writers_left_out_is_understood() -> None:
    document = load(SCHEMA_1)
    later = ("leaks", "unseen", "stalls", "warm_up", "stopped_by", "loop_profile", "slices",
             "schedule", "baseline", "shards", "server_side", "repeated_statements", "checks",
             "verdict")  # fmt: skip
    for key in later:
        del document[key]
    create = document["by_operation"]["create"]
    for key in ("indeterminate", "dropped", "late", "retries", "retried", "after_commit", "share",
                "latency_ms", "time_split_ms", "time_split_histograms", "statements"):  # fmt: skip
        del create[key]
    fault = document["errors"].pop("23505 of songs_pkey")
    document["errors"]["23505"] = {key: fault[key] for key in ("count", "by_operation", "sample")}
    del document["process"]["machine"]
    result = RunResult.from_dict(document)
    assert result.by_operation["create"].indeterminate == 0
    assert result.by_operation["create"].split is None
    assert result.errors["23505"].kind == "23505"
    assert (result.slices, result.schedule, result.leaks, result.checks) == (None, None, (), {})


def test_a_converter_takes_a_document_to_the_next_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it will be once there is a second schema: here the present one follows another."""
    renamed = load(SCHEMA_1) | {"schema": 0}
    renamed["took"] = renamed.pop("seconds")
    convert = {0: lambda old: {**old, "schema": 1, "seconds": old["took"]}}
    monkeypatch.setattr(versions, "CONVERTERS", convert)
    assert RunResult.from_dict(renamed).seconds == 2.0
    with pytest.raises(ValueError, match=r"^schema: expected `int`"):
        RunResult.from_dict(renamed | {"schema": True})
