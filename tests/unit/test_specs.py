"""What is to be run, as plain data: made by the settings or by the keywords of `run`."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from async_loader import ArrivalRate, ConfigurationError, Limit, Semaphore, Stage
from async_loader.parts import Part
from async_loader.settings.run import RunSettings
from async_loader.settings.spec import spec_of
from async_loader.specs.load_test import LoadTestSpec
from async_loader.specs.run import (
    InstrumentSpec,
    LoadSpec,
    RunOptions,
    RunSpec,
    SamplingSpec,
    TimeoutSpec,
    VerdictSpec,
)
from async_loader.verdict.thresholds import parse

PARTS = (LoadSpec, TimeoutSpec, VerdictSpec, SamplingSpec, InstrumentSpec)


def asked(**given: Any) -> LoadTestSpec:
    return spec_of(RunSettings(**given))


def test_the_keywords_are_the_fields_of_the_spec() -> None:
    spelt: dict[str, Any] = {}
    for part in PARTS:
        hints = get_type_hints(part)
        assert not spelt.keys() & hints.keys(), "each option is in one part"
        spelt |= {f.name: hints[f.name] for f in fields(part)}
    del spelt["limit"]
    spelt |= {"ops": int | None, "duration": float | None, "concurrency": int}
    spelt |= {"throttle": get_type_hints(RunSpec)["throttle"] | None, "thresholds": Sequence[str]}
    assert get_type_hints(RunOptions) == spelt


def test_every_keyword_reaches_its_part() -> None:
    values: dict[str, Any] = {
        "warmup": Limit(ops=3),
        "max_tries": 2,
        "op_timeout": 1.5,
        "grace": 2.5,
        "give_up": 3.5,
        "latency_limit": 0.25,
        "abort_on_fail": 4.5,
        "seed": 7,
        "write_ratio": 0.125,
        "time_split": False,
        "n_plus_one": 9,
        "profile": Path("stacks.json"),
        "server_side": True,
    }
    spec = RunSpec.of(ops=5, concurrency=6, thresholds=["errors:rate<1%"], **values)
    parts = (spec.load, spec.timeouts, spec.verdict, spec.sampling, spec.instruments)
    found = {f.name: getattr(part, f.name) for part in parts for f in fields(part)}
    assert found == values | {"limit": Limit(ops=5), "thresholds": (parse("errors:rate<1%"),)}
    assert spec.throttle == Semaphore(6)
    assert RunSpec.of(duration=2.0, throttle=ArrivalRate(9.0)).throttle == ArrivalRate(9.0)


def test_a_misspelt_keyword_is_a_mistake_at_once() -> None:
    wrong: dict[str, Any] = {"opps": 5}
    with pytest.raises(TypeError, match=r"run\(\) got an unexpected keyword argument 'opps'"):
        RunSpec.of(ops=5, **wrong)
    with pytest.raises(ConfigurationError, match="either a number of operations or a duration"):
        RunSpec.of()


def test_the_command_and_the_library_have_the_same_defaults() -> None:
    spec, library = asked(ops=35_000).run_spec(), RunSpec.of(ops=35_000)
    for part in ("load", "throttle", "timeouts", "verdict", "sampling"):
        assert getattr(spec, part) == getattr(library, part)
    assert spec.instruments == InstrumentSpec(server_side=True)  # a library asks only its caller's


def test_a_spec_is_plain_data() -> None:
    spec = asked(threshold=["errors:rate<1%"], baseline=["a.json"], stage=["5s:30"])
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec == asked(threshold=["errors:rate<1%"], baseline=["a.json"], stage=["5s:30"])
    with pytest.raises(FrozenInstanceError):
        spec.debug = True  # type: ignore[misc]  # that is the test


@pytest.mark.parametrize(
    ("given", "rate", "stages"),
    [
        ({}, None, ()),
        ({"rate": "30/m"}, 0.5, ()),
        ({"stage": ["5s:30"]}, None, (Stage(5.0, 30.0),)),
        ({"stage": ["5s:30/s"]}, 0.0, (Stage(5.0, 30.0),)),
        ({"stage": ["5s:30/s"], "rate": "2/s"}, 2.0, (Stage(5.0, 30.0),)),
    ],
)
def test_the_load_model(given: dict[str, Any], rate: float | None, stages: Any) -> None:
    model = asked(**given).load_model
    assert (model.rate, model.stages) == (rate, stages)
    assert model.is_open == (rate is not None)


def test_a_part_does_its_share_and_leaves_judging_to_who_leads() -> None:
    whole = asked(ops=10, warmup=5, threshold=["errors:rate<1%"], abort_on_fail=3, concurrency=7)
    assert whole.run_spec().verdict.abort_on_fail == 3
    assert whole.run_spec().instruments.server_side
    part = whole.part_spec(Part(1, 4))
    assert (part.load.limit, part.load.warmup) == (Limit(ops=3), Limit(ops=1))
    assert part.throttle == Semaphore(2)
    assert part.verdict.abort_on_fail is None
    assert not part.instruments.server_side
    assert part.timeouts == whole.timeouts
    assert asked(duration=4).part_spec(Part(1, 4)).load.limit == Limit(duration=4)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, set()),
        ({"concurrency": 40, "batch_inserts": False, "keep_data": False}, set()),
        ({"concurrency": 41, "keep_data": True}, {"concurrency", "keep_data"}),
        ({"workload": "noop", "threshold": ["errors:rate<1%"]}, {"workload", "threshold"}),
    ],
)
def test_what_was_given(given: dict[str, Any], found: set[str]) -> None:
    assert asked(**given).given == found
