"""
Every option of every command, defined once.

A command is a settings model composed of the groups it needs; flags, `ASYNC_LOADER_*`
variables, `.env` and a TOML file are four ways to set the same fields, in that order of
precedence, before the default. Reading them is `settings_sources.py`.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    CliPositionalArg,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from . import thresholds
from .errors import ConfigurationError
from .limits import Limit
from .workloads.mixed import ReadFrom, ReadVia

ENV_PREFIX = "ASYNC_LOADER_"
DEFAULT_OPS = 35_000
BUILT_IN = ("mixed", "sequences", "noop")
# The ~100 connections of a stock server.
UNBOUNDED_POOL = 100

_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s|m|h|)")


@dataclass(frozen=True, slots=True)
class Metavar:
    """What `--help` shows for the value of a flag."""

    text: str


def parse_seconds(text: str) -> float:
    """Return seconds for `30s`, `2m`, `500ms`, `1h` or a plain number; else `ValueError`."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("a time looks like 500ms, 30s, 2m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def _seconds(value: object) -> object:
    return parse_seconds(value) if isinstance(value, str) else value


def parse_share(value: object) -> object:
    """Return a share of 1 for `1%`, `0.5 %` or a plain number."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return value


def parse_limit(value: object) -> object:
    """Return a `Limit` for a plain number (operations) or a time (`5s`)."""
    if isinstance(value, str) and not value.strip().isdigit():
        return Limit(duration=parse_seconds(value))
    return Limit(ops=int(value)) if isinstance(value, str | int) else value


def _split(value: object) -> object:
    """Split on commas, as a list in a variable is written; flags repeat instead."""
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


def _output(value: str) -> str:
    form, separator, path = value.partition("=")
    if form not in OUTPUTS or not separator or not path:
        raise ValueError(f"an output looks like FORM=FILE, with FORM one of {', '.join(OUTPUTS)}")
    return value


def _workload(value: str) -> str:
    place, colon, name = value.rpartition(":")
    if value in BUILT_IN or (place and colon and name):
        return value
    close = difflib.get_close_matches(value, BUILT_IN, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(BUILT_IN)}"
    raise ValueError(f"no built-in workload {value!r}: {hint} Your own is file.py:NAME")


def _threshold(value: str) -> str:
    try:
        thresholds.parse(value)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return value


OUTPUTS = ("json", "junit", "markdown")

Mode = Literal["semaphore", "chunks", "unbounded", "sync", "threads"]
SYNC_MODES = ("sync", "threads")


def _argument(value: str) -> str:
    name, separator, _ = value.partition("=")
    if not separator or not name:
        raise ValueError("an argument looks like key=value")
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Metavar("TIME")]
Share = Annotated[float, BeforeValidator(parse_share), Field(ge=0, le=1), Metavar("SHARE")]
Output = Annotated[str, AfterValidator(_output)]
Argument = Annotated[str, AfterValidator(_argument)]
Warmup = Annotated[Limit, BeforeValidator(parse_limit), Metavar("N|TIME")]


class Group(BaseSettings):
    """What all groups have in common; a group's `title` heads its options in `--help`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        extra="forbid",
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )
    title: ClassVar[str] = "General"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the values as given: `settings_sources.load` has merged the sources already."""
        return (init_settings,)


class GeneralOptions(Group):
    """Options of every command."""

    config: Annotated[Path | None, Field(description="TOML file with options"), Metavar("FILE")] = (
        None
    )
    debug: bool = Field(False, description="show the traceback of an error")


class ServerOptions(Group):
    """Which server."""

    title: ClassVar[str] = "Database"

    database_url: Annotated[
        SecretStr | None,
        Field(description="a PostgreSQL or a SQLite file (default: an embedded PostgreSQL 18)"),
        Metavar("URL"),
    ] = None
    server_directory: Annotated[
        Path | None,
        Field(description="where the embedded server lives (default: the user's data directory)"),
        Metavar("DIR"),
    ] = None


class DatabaseOptions(ServerOptions):
    """And how a run uses it."""

    pool_size: Annotated[
        int | None,
        Field(ge=1, description="connections in the pool (default: as the concurrency, "
                                "below the server's limit)"),
        Metavar("N"),
    ] = None  # fmt: skip
    keep_data: bool = Field(False, description="keep the run's schema instead of dropping it")


class WorkloadOptions(Group):
    """What is done."""

    title: ClassVar[str] = "Workload"

    workload: Annotated[
        str,
        AfterValidator(_workload),
        Field(description=f"{', '.join(BUILT_IN)}, or your own: package.module:NAME, file.py:NAME"),
        Metavar("WORKLOAD"),
    ] = "mixed"
    write_ratio: Annotated[
        Share | None,
        Field(description="share of writes, 0 to 1 (default: the workload's own weights)"),
    ] = None
    seed: Annotated[
        int, Field(description="operation i depends on the seed and i alone"), Metavar("N")
    ] = 0
    read_via: ReadVia = Field("execute", description="mixed: how a read gets its rows")
    read_from: ReadFrom = Field("first", description="mixed: always the first page, or any")
    read_autocommit: bool | None = Field(
        None, description="reads without BEGIN and ROLLBACK (default: on, but not with stream)"
    )

    @model_validator(mode="after")
    def _compatible(self) -> Self:
        if self.read_autocommit and self.read_via == "stream":
            raise ValueError(
                "--read-autocommit and --read-via stream exclude each other: "
                "a server-side cursor lives in a transaction"
            )
        return self

    @property
    def reads_autocommit(self) -> bool:
        """Whether reads run in AUTOCOMMIT."""
        return self.read_via != "stream" if self.read_autocommit is None else self.read_autocommit


class LoadOptions(Group):
    """How much is done, and how operations are let in."""

    title: ClassVar[str] = "Load"

    ops: Annotated[
        int | None,
        Field(ge=0, description=f"operations to run (default: {DEFAULT_OPS}, or by --duration)"),
        Metavar("N"),
    ] = None
    duration: Annotated[
        Seconds | None, Field(gt=0, description="time to run instead, such as 30s or 2m")
    ] = None
    concurrency: Annotated[
        int, Field(ge=1, le=100_000, description="operations in flight at once"), Metavar("N")
    ] = 40
    warmup: Annotated[
        Warmup | None, Field(description="operations or time to run first, not counted")
    ] = None
    op_timeout: Annotated[
        Seconds, Field(gt=0, description="an operation longer than this is cancelled")
    ] = 30.0
    grace: Annotated[
        Seconds, Field(ge=0, description="time for operations in flight after Ctrl-C")
    ] = 10.0
    give_up: Annotated[
        Seconds,
        Field(gt=0, description="end a run in which operations fail and none has succeeded for "
                                "so long (at least two --op-timeout)"),
    ] = 60.0  # fmt: skip
    time_split: bool = Field(
        True, description="tell pool wait, database and ORM apart, and count statements"
    )
    loop: Literal["auto", "uvloop", "asyncio"] = Field(
        "auto", description="the event loop: uvloop where it exists"
    )

    @property
    def limit(self) -> Limit:
        """By operations, by time where one was given, else the default number."""
        if self.duration is not None:
            return Limit(duration=self.duration)
        return Limit(ops=DEFAULT_OPS if self.ops is None else self.ops)


class ModeOptions(Group):
    """How operations are let in."""

    title: ClassVar[str] = "Load"

    mode: Mode = Field(
        "semaphore",
        description="one in as one gets out; chunk after chunk; a task for each operation; "
        "or one thread or --concurrency threads with a plain Session",
    )


class VerdictOptions(Group):
    """When a run is a failure."""

    title: ClassVar[str] = "Verdict"

    max_error_rate: Annotated[
        Share, Field(description="exit 1 when a larger share of the operations fails")
    ] = 0.01
    threshold: Annotated[
        list[Annotated[str, AfterValidator(_threshold)]],
        NoDecode,
        BeforeValidator(_split),
        Field(
            description="exit 99 unless it holds, as 'op_duration{op:read}:p(95)<50ms'; "
            "may be repeated"
        ),
        Metavar("EXPR"),
    ] = Field(default_factory=list)


class ReportOptions(Group):
    """What is shown and written."""

    title: ClassVar[str] = "Report"

    out: Annotated[
        list[Output],
        NoDecode,
        BeforeValidator(_split),
        Field(
            description="also write json=FILE, junit=FILE or markdown=FILE (-: stdout); "
            "may be repeated"
        ),
        Metavar("FORM=FILE"),
    ] = Field(default_factory=list)
    progress: Literal["auto", "bar", "lines", "none"] = Field(
        "auto", description="on stderr: a bar on a terminal, else a line every 5 s"
    )

    @model_validator(mode="after")
    def _one_stdout(self) -> Self:
        if sum(output.endswith("=-") for output in self.out) > 1:
            raise ValueError("only one --out can go to stdout")
        return self


class RunSettings(
    GeneralOptions,
    ReportOptions,
    VerdictOptions,
    DatabaseOptions,
    WorkloadOptions,
    ModeOptions,
    LoadOptions,
):
    """Run a workload once and report what was found."""

    command: ClassVar[str] = "run"


class CompareOptions(Group):
    """Which ways are compared."""

    title: ClassVar[str] = "Comparison"

    modes: Annotated[
        list[Mode],
        NoDecode,
        BeforeValidator(_split),
        Field(min_length=1, description="a way to compare; may be repeated (default: all five)"),
        Metavar("MODE"),
    ] = Field(default_factory=lambda: list(get_args(Mode)))
    rounds: Annotated[
        int, Field(ge=1, le=100, description="how often each way is run, in turns"), Metavar("N")
    ] = 3
    unbounded_pool_size: Annotated[
        int, Field(ge=1, description="connections in the pool of the unbounded way"), Metavar("N")
    ] = UNBOUNDED_POOL


class CompareSettings(
    GeneralOptions,
    ReportOptions,
    VerdictOptions,
    DatabaseOptions,
    WorkloadOptions,
    LoadOptions,
    CompareOptions,
):
    """Run the same operations in several ways, in turns, and show what each costs."""

    command: ClassVar[str] = "compare"


class JobOptions(Group):
    """Which job."""

    title: ClassVar[str] = "Job"

    target: Annotated[
        CliPositionalArg[str],
        Field(description="a job that ships (top20, derive-chords) or module:name"),
        Metavar("TARGET"),
    ]
    arg: Annotated[
        list[Argument],
        NoDecode,
        BeforeValidator(_split),
        Field(description="an argument of the job; may be repeated"),
        Metavar("KEY=VALUE"),
    ] = Field(default_factory=list)

    @property
    def arguments(self) -> dict[str, str]:
        """The job's arguments by name."""
        return {name: value for name, _, value in (arg.partition("=") for arg in self.arg)}


class RunNameOptions(JobOptions):
    """Which run."""

    target: Annotated[
        CliPositionalArg[str],
        Field(description="a job's name, or a run's number (see `job list`)"),
        Metavar("JOB"),
    ]


class JobRunOptions(Group):
    """How a job is run."""

    title: ClassVar[str] = "Job"

    workers: Annotated[
        int, Field(ge=1, le=500, description="tasks that work on the run here"), Metavar("N")
    ] = 1
    progress: Literal["auto", "bar", "lines", "none"] = Field(
        "auto", description="on stderr: a bar on a terminal, else a line every 5 s"
    )


class JobRunSettings(GeneralOptions, ServerOptions, JobRunOptions, JobOptions):
    """Start a job, or go on with it where it stands."""

    command: ClassVar[str] = "job run"


class JobPauseSettings(GeneralOptions, ServerOptions, RunNameOptions):
    """Pause a run: no chunk of it is committed until it is resumed by `job run`."""

    command: ClassVar[str] = "job pause"


class JobCancelSettings(GeneralOptions, ServerOptions, RunNameOptions):
    """Give a run up for good; what was committed stays."""

    command: ClassVar[str] = "job cancel"


class JobStatusSettings(GeneralOptions, ServerOptions, RunNameOptions):
    """Show how far a job's latest run is."""

    command: ClassVar[str] = "job status"


class JobListSettings(GeneralOptions, ServerOptions):
    """List the runs of all jobs, the latest first."""

    command: ClassVar[str] = "job list"


class JobRetryErrorsSettings(GeneralOptions, ServerOptions, JobOptions):
    """Apply the rows in the latest run's error table once more."""

    command: ClassVar[str] = "job retry-errors"


JobSettings = (
    JobRunSettings
    | JobPauseSettings
    | JobCancelSettings
    | JobStatusSettings
    | JobListSettings
    | JobRetryErrorsSettings
)

COMMANDS: dict[str, type[GeneralOptions]] = {
    RunSettings.command: RunSettings,
    CompareSettings.command: CompareSettings,
    **{model.command: model for model in get_args(JobSettings)},
}
# One source that sets one of these takes the other out of the sources below it.
EXCLUSIVE = (("ops", "duration"),)
