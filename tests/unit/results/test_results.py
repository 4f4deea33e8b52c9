from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from async_loader import Histogram, OperationResult, RunResult, merge
from async_loader.reports import json as json_report
from async_loader.results.errors import ErrorResult
from async_loader.results.parts import PoolResult, ProcessResult, Series
from async_loader.results.schedule import ScheduleResult
from async_loader.results.slices import Slice, Slices


def histogram_of(*values: int) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def result_of(*latencies: int, failed: int = 0, seconds: float = 2.0) -> RunResult:
    return RunResult(
        outcome="done",
        mode="semaphore",
        workload="mixed",
        seconds=seconds,
        planned=len(latencies) + failed,
        by_operation={
            "create": OperationResult("write", len(latencies), failed, 0, histogram_of(*latencies))
        },
        errors={"40001": ErrorResult(failed, {"create": failed}, "sorry")} if failed else {},
        pool=PoolResult(40, 40, 3),
        series=Series((len(latencies), 0), (failed, 0), (40, 2), (0, 0)),
        process=ProcessResult(1.5, 1000, 0.5, histogram_of(10)),
        settings={"seed": 1},
        environment={"versions": {}},
    )


def test_json_reads_back_as_the_same_result() -> None:
    result = result_of(5, 70, 900, failed=2)
    document = json.loads(json_report.render(result))
    again = RunResult.from_dict(document)
    assert again.to_dict() == result.to_dict()
    assert document["schema"] == 1
    assert document["operations"] == {
        "planned": 5,
        "completed": 3,
        "failed": 2,
        "indeterminate": 0,
        "dropped": 0,
        "not_started": 0,
        "after_commit": 0,
    }
    assert document["by_operation"]["create"]["latency_ms"]["max"] == pytest.approx(900e-6)
    assert document["throughput"] == 1.5


def test_merged_shards_equal_the_whole() -> None:
    rng = random.Random(1)
    values = [rng.randrange(1, 10**9) for _ in range(3000)]
    whole = result_of(*values)
    merged = merge(result_of(*values[k::3]) for k in range(3))
    assert merged.by_operation["create"].to_dict() == whole.by_operation["create"].to_dict()
    assert merged.completed == merged.planned == 3000
    assert merged.series.throughput == (3000, 0)
    assert merged.process.processes == 3
    assert merged.pool == PoolResult(120, 120, 9)


def test_merging_keeps_what_only_one_has() -> None:
    other = replace(
        result_of(7, failed=1, seconds=9.0),
        outcome="interrupted",
        by_operation={"read": OperationResult("read", 1, 0, 0, histogram_of(7))},
        pool=None,
        series=Series((1, 2, 3), (0, 0, 0), (1, 1, 1), (0, 0, 0)),
    )
    merged = merge([result_of(5), other])
    assert merged.outcome == "interrupted"
    assert merged.seconds == 9.0
    assert set(merged.by_operation) == {"create", "read"}
    assert merged.errors["40001"].count == 1
    assert merged.pool == PoolResult(40, 40, 3)
    assert merged.series.throughput == (2, 2, 3)


def scheduled(lags: list[int], dropped: int) -> RunResult:
    operation = OperationResult(
        "read", len(lags), 0, 0, histogram_of(*lags), dropped=dropped, late=2, retries=3, retried=1
    )
    schedule = ScheduleResult(len(lags) + dropped, dropped, histogram_of(*lags))
    return replace(result_of(), by_operation={"read": operation}, schedule=schedule)


def test_schedules_and_counters_merge_exactly_and_read_back() -> None:
    rng = random.Random(2)
    lags = [rng.randrange(10**8) for _ in range(900)]
    whole, parts = scheduled(lags, 6), [scheduled(lags[k::3], 2) for k in range(3)]
    merged = merge(RunResult.from_dict(part.to_dict()) for part in parts)
    assert merged.schedule is not None
    assert whole.schedule is not None
    assert merged.schedule.to_dict() == whole.schedule.to_dict()
    assert (merged.schedule.started, merged.schedule.drop_rate) == (900, 6 / 906)
    assert (merged.dropped, merged.late, merged.retries) == (6, 6, 9)
    assert merged.by_operation["read"].retried == 3
    assert merge([whole, result_of(1)]).schedule == whole.schedule


def test_a_result_without_a_schedule_still_loads() -> None:
    document = result_of(1, 2).to_dict()
    del document["schedule"]
    for counter in ("dropped", "late", "retries", "retried"):
        del document["by_operation"]["create"][counter]
    again = RunResult.from_dict(document)
    assert again.schedule is None
    assert (again.dropped, again.late, again.retries) == (0, 0, 0)


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="no result"):
        merge([])


def test_the_error_rate_counts_what_did_not_end_well() -> None:
    assert result_of(1, 2, 3, failed=1).error_rate == 0.25
    assert result_of().error_rate == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema is 2"),
        ({"series": None}, "^series: expected `object`, got `null`"),
        ({"pool": {"x": 1}}, "^pool: object missing required field `size`"),
        ({"operations": {"completed": 1}}, "^operations: object missing required field `planned`"),
    ],
)
def test_another_schema_or_damage_is_refused(change: dict[str, object], message: str) -> None:
    document = result_of(1).to_dict() | change
    with pytest.raises(ValueError, match=message):
        RunResult.from_dict(document)


def test_a_result_without_slices_loads_and_merges() -> None:
    """As older versions wrote it."""
    document = result_of(1, 2).to_dict()
    del document["slices"]
    old = RunResult.from_dict(document)
    new = replace(old, slices=Slices(1.0, {"create": (Slice(2),)}))
    assert old.slices is None
    assert old.merged(new).slices is None, "slices of a part would pass for those of the whole"
    assert RunResult.from_dict(new.to_dict()).slices is not None
