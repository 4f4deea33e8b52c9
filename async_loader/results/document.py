"""
The shape of the JSON that `--out json=` writes, and its JSON Schema.

`RunResult.to_dict` makes such a document; this says what is in it, for a reader in another
language and for `saved.py`. Tests hold the two together: a key that only one of them has is an
error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from .document_process import Leak, LoopProfile, Process
from .document_types import Count, EncodedHistogram, Milliseconds, PerSecond, Share, Summary, exact
from .document_verdict import Baseline, Verdict


@exact
class SplitSummaries(TypedDict):
    """Where the time went; the means add up to the latency's."""

    pool_wait: Annotated[Summary, Field(description="for a connection of the pool")]
    connect: NotRequired[Annotated[Summary, Field(description="opening a connection")]]
    ping: NotRequired[Annotated[Summary, Field(description="pool_pre_ping")]]
    database: Summary
    orm: Annotated[Summary, Field(description="running SQLAlchemy and the driver")]
    application: NotRequired[Annotated[Summary, Field(description="running all else")]]
    elsewhere: NotRequired[Annotated[Summary, Field(description="waiting for something else")]]
    loop_queue: NotRequired[Annotated[Summary, Field(description="ready, but not its turn")]]


@exact
class SplitHistograms(TypedDict):
    """What `time_split_ms` sums up."""

    pool_wait: EncodedHistogram
    connect: NotRequired[EncodedHistogram]
    ping: NotRequired[EncodedHistogram]
    database: EncodedHistogram
    orm: EncodedHistogram
    application: NotRequired[EncodedHistogram]
    elsewhere: NotRequired[EncodedHistogram]
    loop_queue: NotRequired[EncodedHistogram]


@exact
class Statements(TypedDict):
    """How often the database was asked, BEGIN, COMMIT and ROLLBACK apart."""

    total: Count
    mean: Annotated[float, Field(ge=0, description="per operation")]
    max: Annotated[int, Field(ge=0, description="the most in one operation")]


@exact
class Operation(TypedDict):
    """One operation's counts and latencies; without --time-split the last three are missing."""

    kind: str
    count: Annotated[int, Field(ge=0, description="ended well, and are in the histogram")]
    failed: Count
    indeterminate: Annotated[int, Field(ge=0, description="nobody knows whether they were done")]
    dropped: Annotated[int, Field(ge=0, description="were due and could not start")]
    late: Annotated[int, Field(ge=0, description="of count, over the latency limit")]
    retries: Annotated[int, Field(ge=0, description="tries after an operation's first")]
    retried: Annotated[int, Field(ge=0, description="operations that took more than one")]
    after_commit: Annotated[
        int, Field(ge=0, description="of those that did not end well: committed something before")
    ]
    share: NotRequired[Annotated[Share | None, Field(description="of the mix, by its weight")]]
    latency_ms: Summary
    histogram: EncodedHistogram
    time_split_ms: NotRequired[SplitSummaries]
    time_split_histograms: NotRequired[SplitHistograms]
    statements: NotRequired[Statements]


@exact
class Operations(TypedDict):
    """
    All operations together; `planned` is null for a run by duration.

    Completed, failed, indeterminate, dropped and not started are all that were planned.
    """

    planned: Count | None
    completed: Count
    failed: Count
    indeterminate: Count
    dropped: Count
    not_started: Count
    after_commit: Count


@exact
class Pool(TypedDict):
    """The connection pool; null where no database was used."""

    size: Annotated[int, Field(ge=0, description="0: without a limit")]
    peak_in_use: Count
    peak_waiting: Count


@exact
class Series(TypedDict):
    """What happened in each second, in lists of equal length."""

    seconds: PerSecond
    throughput: PerSecond
    failed: PerSecond
    in_use: PerSecond
    waiting: PerSecond


@exact
class Error(TypedDict):
    """One fault, by its kind; where a kind has several, by constraint, place or number too."""

    count: Count
    by_operation: dict[str, Count]
    sample: str
    source: Annotated[str | None, Field(description="the user's line that it came from")]
    traceback: str | None
    kind: NotRequired[Annotated[str, Field(description="SQLSTATE, class, HTTP status")]]
    constraint: NotRequired[Annotated[str | None, Field(description="the one that was broken")]]


@exact
class Slice(TypedDict):
    """One operation in each slice of time."""

    count: list[Count]
    failed: list[Count]
    buckets: Annotated[str, Field(description="latencies; zlib, base64: see Slices.to_dict")]


@exact
class Slices(TypedDict):
    """The run in slices of time; null in a result of an older version."""

    width: Annotated[float, Field(gt=0, description="seconds")]
    by_operation: dict[str, Slice]


@exact
class RepeatedStatement(TypedDict):
    """A statement that single operations executed again and again: an N+1."""

    operation: str
    statement: str
    source: Annotated[str | None, Field(description="the user's line that asked")]
    cause: Annotated[str | None, Field(description="what made the ORM ask")]
    operations: Annotated[int, Field(ge=0, description="that repeated it")]
    executions: Annotated[int, Field(ge=0, description="in all of those")]
    mean: Annotated[float, Field(ge=0, description="per operation that repeated it")]
    most: Annotated[int, Field(ge=0, description="in one operation")]


@exact
class DatabaseCounts(TypedDict):
    """What `pg_stat_database` counted during the run."""

    commits: Count
    rollbacks: Count
    blocks_hit: Count
    blocks_read: Count
    deadlocks: Count
    temp_files: Count
    temp_bytes: Count
    cache_hits: Share | None


@exact
class ServerStatement(TypedDict):
    """What `pg_stat_statements` counted of one statement during the run."""

    statement: str
    calls: Count
    total_ms: Milliseconds
    mean_ms: Milliseconds
    rows: Count


@exact
class ServerSide(TypedDict):
    """The server's own account of the run; null where no server was asked."""

    database: DatabaseCounts | None
    statements: list[ServerStatement] | None
    calls: Count | None
    total_ms: Milliseconds | None
    waits: dict[str, Count]
    samples: Count
    notes: list[str]


@exact
class Schedule(TypedDict):
    """How the schedule of arrivals was kept; null in a closed model."""

    due: Count
    started: Count
    dropped: Annotated[int, Field(ge=0, description="could not start")]
    lag_ms: Annotated[Summary, Field(description="from when one was due to when it began")]
    lag_histogram: EncodedHistogram


@exact
class WarmUp(TypedDict):
    """What ran before the run and is in no other figure; null without one."""

    seconds: Annotated[float, Field(ge=0)]
    completed: Count
    failed: Count
    dropped: Count
    latency_ms: Summary
    histogram: EncodedHistogram


@exact
class Check(TypedDict):
    """How often a check of the workload's own held."""

    passed: Count
    failed: Count


@exact
class Shard(TypedDict):
    """One process of a run that was split; none where it was not."""

    name: str
    seconds: Annotated[float, Field(ge=0)]
    completed: Count
    failed: Count
    indeterminate: Count
    throughput: Annotated[float, Field(ge=0)]
    loop_busy: Share
    loop_lag_ms: Annotated[Milliseconds, Field(description="at p99")]
    schedule_lag_ms: Annotated[float | None, Field(description="at p99")]
    cpu_seconds: Annotated[float, Field(ge=0)]
    peak_memory_bytes: Count
    clock_offset_ms: Annotated[float, Field(description="ahead of the coordinator's")]
    lost: Annotated[str | None, Field(description="how it died, after its last snapshot")]


@exact
class Machine(TypedDict):
    """What it ran on."""

    platform: str
    cpus: int | None
    loop: Literal["uvloop", "asyncio"]


@exact
class Database(TypedDict):
    """The server, without a password."""

    product: str
    version: str
    where: str
    url: str | None
    settings: dict[str, str]
    kept: NotRequired[str]


@exact
class Environment(TypedDict):
    """When and on what it ran, in a result of the command's."""

    started: NotRequired[Annotated[str, Field(description="ISO 8601, UTC")]]
    versions: NotRequired[dict[str, str]]
    machine: NotRequired[Machine]
    database: NotRequired[Database]


@with_config(ConfigDict(extra="allow", strict=True))
class Settings(TypedDict):
    """The options, by name; these are what reports look at, and there are more."""

    label: NotRequired[str | None]
    threshold: NotRequired[list[str]]
    max_error_rate: NotRequired[Share]
    require_valid: NotRequired[bool]
    latency_limit: NotRequired[float | None]
    duration: NotRequired[float | None]
    concurrency: NotRequired[int]
    rate: NotRequired[str | None]
    stage: NotRequired[list[str]]


@exact
class Result(TypedDict):
    """What one run found."""

    schema: Literal[1]
    outcome: Literal["done", "interrupted", "failed", "aborted", "lost", "hung"]
    stopped_by: NotRequired[
        Annotated[str | None, Field(description="by what it was interrupted: a signal's name")]
    ]
    mode: str
    workload: str
    seconds: Annotated[float, Field(ge=0)]
    throughput: Annotated[float, Field(ge=0, description="ended well, a second")]
    operations: Operations
    by_operation: dict[str, Operation]
    pool: Pool | None
    series: Series
    slices: Slices | None
    baseline: Baseline | None
    errors: dict[str, Error]
    checks: dict[str, Check]
    process: Process
    repeated_statements: list[RepeatedStatement]
    server_side: ServerSide | None
    schedule: Schedule | None
    shards: list[Shard]
    loop_profile: NotRequired[LoopProfile | None]
    leaks: NotRequired[list[Leak]]
    unseen: NotRequired[Annotated[list[str], Field(description="what could not be measured")]]
    stalls: NotRequired[Annotated[list[float], Field(description="seconds in which none ended")]]
    warm_up: NotRequired[WarmUp | None]
    verdict: NotRequired[Verdict]
    settings: Settings
    environment: Environment


@exact
class Advice(TypedDict):
    """The step of a sweep to run at."""

    by: Literal["concurrency", "rate"]
    step: Annotated[int, Field(ge=0, description="its place in the runs")]
    level: Annotated[float, Field(gt=0, description="concurrency, or arrivals a second")]
    pool_size: Annotated[int, Field(ge=0, description="the most connections that it used")]
    throughput: Annotated[float, Field(ge=0)]
    p95_ms: Milliseconds


@exact
class Sweep(TypedDict):
    """What a sweep found; `levels` are the runs' own."""

    by: Literal["concurrency", "rate"]
    levels: list[float]
    advice: Annotated[Advice | None, Field(description="null: no step is good")]


@exact
class Comparison(TypedDict):
    """What several runs found, in the order in which they ran."""

    schema: Literal[1]
    runs: list[Result]
    sweep: NotRequired[Sweep]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what `--out json=` writes."""
    schema = TypeAdapter(Result | Comparison).json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A result of async_loader",
        **schema,
    }


def damage(document: Mapping[str, Any]) -> str | None:
    """
    Return the first value in a result that is not what it should be, None where there is none.

    Keys more or less are no damage: another version of the same schema wrote them.
    """
    try:
        TypeAdapter(Result).validate_python(document)
    except ValidationError as error:
        for found in error.errors(include_url=False, include_input=False):
            if found["type"] not in ("missing", "extra_forbidden"):
                return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
    if len({len(values) for values in document.get("series", {}).values()}) > 1:
        return "series: lists of different length"
    return None
