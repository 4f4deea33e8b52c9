"""The JSON Schema and the JSON say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from async_loader import Histogram, OperationResult, RunResult
from async_loader.reports.json import render_comparison
from async_loader.results.changes import Change, Comparison
from async_loader.results.findings import (
    DatabaseCounts,
    RepeatedStatement,
    ServerSide,
    ServerStatement,
)
from async_loader.results.loop_profile import Blocking, Leak, LoopProfile
from async_loader.results.machine import MachineResult
from async_loader.results.parts import CheckResult
from async_loader.results.plans import PlanNode, StatementPlan
from async_loader.results.schedule import ScheduleResult
from async_loader.results.shards import ShardResult
from async_loader.results.slices import Slice, Slices
from async_loader.results.time_split import TimeSplit
from async_loader.results.warm_up import WarmUpResult
from async_loader.verdict.document import document_of, json_schema
from tests.unit.results.test_results import histogram_of, result_of

ROOT = json_schema()
SCHEMA = Draft202012Validator(ROOT)
ENVIRONMENT = {
    "started": "2026-03-01T12:30:05+00:00",
    "versions": {"Python": "3.13.0"},
    "machine": {"platform": "Linux x86_64", "cpus": 2, "loop": "uvloop"},
    "database": {
        "product": "PostgreSQL",
        "version": "18.6",
        "where": "(embedded)",
        "url": None,
        "settings": {"fsync": "on"},
        "kept": "async_loader_run_1",
    },
}


def everything() -> RunResult:
    """A result in which nothing is missing that a result can have."""
    split = TimeSplit(histogram_of(1), histogram_of(2), histogram_of(3), 2, 2)
    return replace(
        result_of(5, 70, failed=2),
        by_operation={
            "create": OperationResult("write", 1, 2, 1, histogram_of(6), split, tags={"a": "b"})
        },
        checks={"seen": CheckResult(1, 0)},
        baseline=Comparison(
            ("main.json",),
            ("Python: 3.13 now, 3.12 in the baseline",),
            (Change("ops:rate:5%", "/s", 0.05, True, 9.0, 9.9, 0.1, 0.05, 0.15, "improved"),),
        ),
        slices=Slices(0.5, {"create": (Slice.of({3: 1}, 2), Slice())}),
        repeated_statements=(RepeatedStatement("create", "SELECT", "x.py:3", "lazy", 1, 9, 9),),
        server_side=ServerSide(
            DatabaseCounts(commits=1, blocks_hit=1),
            (ServerStatement("SELECT", 1, 1.5, 1),),
            calls=1,
            total_ms=1.5,
            rows=1,
            waits={"running": 1},
            samples=1,
            notes=("none",),
        ),
        schedule=ScheduleResult(5, 2, histogram_of(1, 2, 3)),
        shards=(ShardResult("process 1", 1.5, 5, 2, 1, 0.5, 1.5, 0.5, lost="died"),),
        environment=ENVIRONMENT,
        process=replace(
            result_of(5).process,
            machine=MachineResult(0.5, 0.1, 0.0, 0.0, 0.2, 1.5, 2, ("postgres 0.5",)),
        ),
        loop_profile=LoopProfile(
            10, 5, {"driver": 5}, {"a.py:1 in f": 2}, (Blocking("create", "a.py:2", 1, 20.0, 20.0),)
        ),
        leaks=(Leak("create", "a.py:3", 2),),
        warm_up=WarmUpResult(1.5, 1, 2, histogram_of(7)),
        stopped_by="SIGTERM",
        ended_by="a feed",
        stages=(0.5, 1.0),
        plans=(
            StatementPlan(
                "SELECT",
                "create",
                1,
                1.5,
                2.5,
                (PlanNode(0, "Seq Scan on x", "a", 1, 1, 1, 0.5, 1),),
            ),
        ),
    )


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize(
    "result",
    [everything(), result_of(), replace(result_of(1), planned=None, pool=None)],
    ids=["everything", "nothing", "nulls"],
)
def test_results_are_valid(result: RunResult) -> None:
    SCHEMA.validate(document_of(result))
    assert RunResult.from_dict(document_of(result)).to_dict() == result.to_dict()


def test_comparisons_are_valid() -> None:
    SCHEMA.validate(json.loads(render_comparison({"a": [everything()], "b": [result_of(1)]})))


def objects(value: Any, schema: Mapping[str, Any]) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Yield each object of a document with the part of the schema that describes it."""
    if "$ref" in schema:
        schema = ROOT["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    for choice in schema.get("anyOf", []):
        if choice.get("type") != "null":
            yield from objects(value, choice)
    if "properties" in schema:
        yield value, schema
        for key, part in schema["properties"].items():
            if key in value:
                yield from objects(value[key], part)
    elif isinstance(schema.get("additionalProperties"), dict):
        for inner in value.values():
            yield from objects(inner, schema["additionalProperties"])


def test_everything_has_every_key_that_the_schema_names() -> None:
    """A key that results have no more is not in the schema either."""
    found = list(objects(document_of(everything()), {"$ref": "#/$defs/Result"}))
    assert len(found) > 15
    for value, schema in found:
        if schema["title"] == "Settings":  # an option more is no other schema
            continue
        assert value.keys() == schema["properties"].keys(), schema["title"]
        assert schema["additionalProperties"] is False, schema["title"]


def test_a_key_that_the_schema_does_not_know_is_refused() -> None:
    document = everything().to_dict()
    document["by_operation"]["create"]["surprise"] = 1
    with pytest.raises(ValidationError, match="surprise"):
        SCHEMA.validate(document)
    assert RunResult.from_dict(document) is not None, "a later version may have written it"


def without(document: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != key}


OPERATION = everything().to_dict()["by_operation"]["create"]
LEAK = everything().to_dict()["leaks"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": "2"}, "seconds: expected `float`, got `str`"),
        ({"seconds": -1}, "seconds: expected `float` >= 0.0"),
        ({"outcome": "odd"}, "outcome: invalid enum value 'odd'"),
        ({"errors": [1]}, "errors: expected `object`, got `array`"),
        ({"series": {"throughput": [1, "x"]}}, "series.throughput.1: "),
        ({"series": {"throughput": [1, 2], "failed": [1]}}, "series: lists of different length"),
        ({"settings": {"threshold": 5}}, "settings.threshold: "),
        ({"settings": {"max_error_rate": "low"}}, "settings.max_error_rate: "),
        ({"by_operation": {"read": OPERATION, "create": 3}}, "by_operation.create: "),
        (
            {"by_operation": {"read": OPERATION, "create": without(OPERATION, "kind")}},
            "by_operation.create: object missing required field `kind`",
        ),
        (
            {"by_operation": {"read": OPERATION, "create": OPERATION | {"count": -1}}},
            "by_operation.create.count: expected `int` >= 0",
        ),
        (
            {
                "by_operation": {"read": OPERATION, "create": OPERATION | {"count": -1}},
                "checks": {"seen": 3},
            },
            "by_operation.create.count: expected `int` >= 0",
        ),
        (
            {"by_operation": {"create": OPERATION | {"histogram": "HIST"}}},
            "by_operation.create.histogram: not an encoded HDR histogram",
        ),
        ({"leaks": [LEAK, LEAK | {"source": 1}]}, "leaks.1.source: "),
    ],
)
def test_damage_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        RunResult.from_dict(everything().to_dict() | change)


@pytest.mark.parametrize("document", [None, [], "x", {}])
def test_what_is_no_result_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match=r"not an object|schema is None"):
        RunResult.from_dict(document)


def test_a_result_reads_back_as_it_was() -> None:
    result = everything()
    again = RunResult.from_dict(json.loads(json.dumps(document_of(result))))
    assert comparable(again) == comparable(result)


def comparable(value: Any) -> Any:
    """Return what a value holds, histograms by their encoding: two of them are never equal."""
    if is_dataclass(value):
        return type(value), {f.name: comparable(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {name: comparable(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return type(value), [comparable(inner) for inner in value]
    return value.encode() if isinstance(value, Histogram) else value


def test_the_schema_has_descriptions_and_bounds() -> None:
    definitions = ROOT["$defs"]
    assert definitions["OperationResult"]["properties"]["late"] == {
        "description": "of count, over the latency limit",
        "type": "integer",
        "minimum": 0,
    }
    assert definitions["Result"]["properties"]["throughput"]["description"].startswith("Operations")
    assert definitions["ShardResult"]["properties"]["loop_busy"]["maximum"] == 1
    assert all(part.get("description") for part in definitions.values())


def test_older_documents_are_valid() -> None:
    """Keys that came later are not required, those that were always there are."""
    document = document_of(everything())
    for key in ("leaks", "unseen", "stalls", "warm_up", "stopped_by", "loop_profile", "verdict"):
        del document[key]
    del document["by_operation"]["create"]["time_split_ms"]["loop_queue"]
    SCHEMA.validate(document)
    del document["schedule"]
    with pytest.raises(ValidationError, match="schedule"):
        SCHEMA.validate(document)


def test_figures_are_rounded_in_the_document_alone() -> None:
    process = replace(result_of(1).process, cpu_seconds=1.23456, loop_busy=0.123456)
    machine = MachineResult(0.123456, 0.654321, others=None)
    document = replace(
        result_of(1, seconds=3.0),
        process=replace(process, machine=machine),
        server_side=ServerSide(total_ms=1.23456),
    ).to_dict()
    assert (process.cpu_seconds, document["process"]["cpu_seconds"]) == (1.23456, 1.235)
    assert document["process"]["loop_busy"] == 0.1235
    found = document["process"]["machine"]
    assert (found["ran"], found["waited"], found["others"]) == (0.1235, 0.6543, None)
    assert (document["throughput"], document["server_side"]["total_ms"]) == (0.333, 1.235)
