"""What is to be run, as plain data: made by the settings or by the keywords of `run`."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from async_loader import ArrivalRate, ConfigurationError, Limit, Semaphore, Stage
from async_loader.load.partition import Partition
from async_loader.load.specs.load_test import LoadTestSpec
from async_loader.load.specs.run import (
    InstrumentSpec,
    LoadSpec,
    RunOptions,
    RunSpec,
    SamplingSpec,
    TimeoutSpec,
    VerdictSpec,
)
from async_loader.settings.run import RunSettings
from async_loader.settings.spec import spec_of
from async_loader.verdict.regression import parse_check
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
        "explain_slowest": 3,
        "explain_parameters": True,
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
    part = whole.part_spec(Partition(1, 4))
    assert (part.load.limit, part.load.warmup) == (Limit(ops=3), Limit(ops=1))
    assert part.throttle == Semaphore(2)
    assert part.verdict.abort_on_fail is None
    assert not part.instruments.server_side
    assert part.timeouts == whole.timeouts
    assert asked(duration=4).part_spec(Partition(1, 4)).load.limit == Limit(duration=4)


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


# Each option of the command that changes a run: a value beside the default, and where it arrives.
ARRIVES: dict[str, tuple[Any, str, Any]] = {
    "workload": ("noop", "workload.target", "noop"),
    "read_via": ("stream", "workload.read_via", "stream"),
    "read_from": ("uniform", "workload.read_from", "uniform"),
    "ops": (5, "load.limit.ops", 5),
    "duration": (2.5, "load.limit.duration", 2.5),
    "warmup": (6, "load.warmup", Limit(ops=6)),
    "max_tries": (3, "load.max_tries", 3),
    "mode": ("chunks", "load_model.mode", "chunks"),
    "concurrency": (41, "load_model.concurrency", 41),
    "rate": ("5/s", "load_model.rate", 5.0),
    "max_in_flight": (7, "load_model.max_in_flight", 7),
    "stage": (["5s:30"], "load_model.stages", (Stage(5.0, 30.0),)),
    "op_timeout": (1.5, "timeouts.op_timeout", 1.5),
    "grace": (2.5, "timeouts.grace", 2.5),
    "give_up": (3.5, "timeouts.give_up", 3.5),
    "latency_limit": (0.5, "verdict.latency_limit", 0.5),
    "threshold": (["errors:rate<1%"], "verdict.thresholds", (parse("errors:rate<1%"),)),
    "seed": (8, "sampling.seed", 8),
    "arg": (["a=b=c"], "workload.arguments", {"a": "b=c"}),
    "write_ratio": (0.25, "sampling.write_ratio", 0.25),
    "time_split": (False, "instruments.time_split", False),
    "n_plus_one": (9, "instruments.n_plus_one", 9),
    "server_side": (False, "instruments.server_side", False),
    "explain_slowest": (3, "instruments.explain_slowest", 3),
    "explain_parameters": (True, "instruments.explain_parameters", True),
    "database_url": ("sqlite:///x.db", "database.url", "sqlite:///x.db"),
    "server_directory": (Path("/srv"), "database.server_directory", Path("/srv")),
    "pool_size": (11, "database.pool_size", 11),
    "keep_data": (True, "database.keep_data", True),
    "read_autocommit": (False, "database.reads_autocommit", False),
    "batch_inserts": (False, "database.batches_inserts", False),
    "fast_paths": (False, "database.has_fast_paths", False),
    "processes": (2, "sharding.processes", 2),
    "cluster": ("local:2", "sharding.cluster", "local:2"),
    "on_worker_loss": ("continue", "sharding.on_worker_loss", "continue"),
    "baseline": (["a.json"], "baseline.files", (Path("a.json"),)),
    "loop": ("asyncio", "loop", "asyncio"),
    "debug": (True, "debug", True),
    "strict": (True, "strict", True),
}
# These need another option beside them, or are the command's own affair.
WITH_ANOTHER: dict[str, tuple[dict[str, Any], str, Any]] = {
    "arrivals": ({"arrivals": "poisson", "rate": "5/s"}, "load_model.arrivals", "poisson"),
    "abort_on_fail": (
        {"abort_on_fail": 4, "threshold": ["errors:rate<1%"]},
        "verdict.abort_on_fail",
        4.0,
    ),
    "compare_fail": (
        {"compare_fail": ["op_duration:p(95):10%"], "baseline": ["a.json"]},
        "baseline.checks",
        (parse_check("op_duration:p(95):10%"),),
    ),
}
THE_COMMANDS_OWN = {"config", "out", "html", "junit", "label", "progress", "calibrate"} | {
    "max_error_rate", "require_valid",  # the verdict finds them in the result
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "place", "found"),
    [
        *(({name: value}, place, found) for name, (value, place, found) in ARRIVES.items()),
        *WITH_ANOTHER.values(),
    ],
    ids=str,
)
def test_every_option_arrives(given: dict[str, Any], place: str, found: Any) -> None:
    spec = asked(**given)
    assert attrgetter(place)(spec) == found
    assert attrgetter(place)(asked()) != found


def test_no_option_is_forgotten(tmp_path: Path) -> None:
    stacks = tmp_path / "stacks.json"
    assert asked(profile=str(stacks)).instruments.profile == stacks
    told = {*ARRIVES, *WITH_ANOTHER, *THE_COMMANDS_OWN, "profile"}
    assert set(RunSettings.model_fields) == told
    assert not asked(processes=2).sharding.at_most
    assert asked(processes="auto").sharding.at_most


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"op_timeout": "5"}, "op_timeout is a number from 0 on, not '5'"),
        ({"grace": -1}, "grace is a number from 0 on, not -1"),
        ({"give_up": float("nan")}, "give_up is a number from 0 on, not nan"),
        ({"latency_limit": "1s"}, "latency_limit is a number from 0 on, not '1s'"),
        ({"max_tries": 0}, "max_tries is a whole number from 1 on, not 0"),
        ({"n_plus_one": True}, "n_plus_one is a whole number from 0 on, not True"),
        ({"seed": None}, "seed is a whole number, not None"),
        ({"warmup": 5}, "warmup is a Limit, as Limit(ops=1000), not 5"),
        ({"thresholds": "errors:rate<1%"}, "thresholds is a list, as ['errors:rate<1%']"),
        ({"concurrency": "4"}, "concurrency must be at least 1, not '4'"),
        ({"ops": None, "duration": timedelta(seconds=1)}, "duration is from 0 to 316,224,000"),
    ],
)
def test_what_is_no_value_is_refused_in_a_sentence(options: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        RunSpec.of(**{"ops": 1, **options})


def test_a_profile_may_be_named_by_a_text() -> None:
    options: Any = {"profile": "found.json"}
    assert RunSpec.of(ops=1, **options).instruments.profile == Path("found.json")
