"""The options of the commands of jobs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import CliPositionalArg, NoDecode

from ..jobs.states import SCHEMA
from .option_group import GeneralOptions, Group
from .option_types import (
    Argument,
    Metavar,
    Seconds,
    arguments_of,
    each_once,
    parse_share,
    split_commas,
)
from .run import ServerOptions
from .workers import WorkerOptions

_Progress = Annotated[
    Literal["auto", "bar", "lines", "none"],
    Field(description="on stderr: a bar on a terminal, else a line every 5 s"),
]


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
        BeforeValidator(split_commas),
        AfterValidator(each_once),
        Field(description="an argument of the job; may be repeated"),
        Metavar("KEY=VALUE"),
    ] = Field(default_factory=list)

    @property
    def arguments(self) -> dict[str, str]:
        """The job's arguments by name."""
        return arguments_of(self.arg)


class StateOptions(Group):
    """Where the state of jobs is."""

    title: ClassVar[str] = "Job"

    state_schema: Annotated[
        str,
        Field(description="the schema of the jobs' state tables (PostgreSQL)"),
        Metavar("NAME"),
    ] = SCHEMA


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
        int,
        Field(ge=1, le=500, description="tasks that work on the run in each process"),
        Metavar("N"),
    ] = 1
    resume_changed: bool = Field(
        False, description="go on, too, with a run that was begun with other conditions"
    )
    idempotency_key: Annotated[
        str | None,
        Field(description="one run for each key: once it is done, a start changes nothing"),
        Metavar("KEY"),
    ] = None
    max_runtime: Annotated[
        Seconds | None,
        Field(gt=0, description="pause the run after so long, behind its chunk"),
    ] = None
    progress: _Progress = "auto"


class DryRunOptions(Group):
    """On which rows a job is tried, all of it rolled back."""

    title: ClassVar[str] = "Dry run"

    dry_run: bool = Field(False, description="try it: each chunk is rolled back")
    dry_run_prepare: bool = Field(
        False, description="call prepare, too, in a dry run of a job that has one"
    )
    only: Annotated[
        list[str],
        NoDecode,
        BeforeValidator(split_commas),
        Field(description="try the rows of these keys; implies --dry-run"),
        Metavar("KEYS"),
    ] = Field(default_factory=list)
    where: Annotated[
        str,
        Field(description="try the rows that a condition in SQL holds for; implies --dry-run"),
        Metavar("SQL"),
    ] = ""
    limit: Annotated[
        int | None,
        Field(ge=1, description="try so many rows, of the lowest keys; implies --dry-run"),
        Metavar("N"),
    ] = None
    sample: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None,
        BeforeValidator(parse_share),
        Field(description="try a share of the rows, as 1%; implies --dry-run"),
        Metavar("SHARE"),
    ] = None

    @property
    def is_dry(self) -> bool:
        """Whether nothing is to be committed."""
        some = self.only or self.where or self.limit or self.sample
        return self.dry_run or self.dry_run_prepare or bool(some)


class JobRequireOptions(Group):
    """When a job is taken for done."""

    title: ClassVar[str] = "Job"

    target: Annotated[
        CliPositionalArg[str],
        Field(description="a job's name, or module:name"),
        Metavar("NAME"),
    ]
    allow_errors: Annotated[
        int,
        Field(ge=0, description="rows that may be in the error table all the same"),
        Metavar("N"),
    ] = 0
    recheck: bool = Field(
        False, description="its select finds no row by now, either; needs module:name"
    )
    schema_of_tables: Annotated[
        str | None,
        Field(description="the schema of its tables, where the search path here is another"),
        Metavar("NAME"),
    ] = None


class JobRunSettings(
    GeneralOptions,
    WorkerOptions,
    ServerOptions,
    DryRunOptions,
    StateOptions,
    JobRunOptions,
    JobOptions,
):
    """Start a job, or go on with it where it stands."""

    command: ClassVar[str] = "job run"


class JobPauseSettings(GeneralOptions, ServerOptions, StateOptions, RunNameOptions):
    """Pause a run: no chunk of it is committed until it is resumed by `job run`."""

    command: ClassVar[str] = "job pause"


class JobCancelSettings(GeneralOptions, ServerOptions, StateOptions, RunNameOptions):
    """Give a run up for good; what was committed stays."""

    command: ClassVar[str] = "job cancel"


class WatchOptions(Group):
    """How a run is watched."""

    title: ClassVar[str] = "Job"

    watch: bool = Field(
        False, description="show it until it has ended or nobody is at work on it any more"
    )
    progress: _Progress = "auto"


class JobStatusSettings(GeneralOptions, ServerOptions, StateOptions, WatchOptions, RunNameOptions):
    """Show how far a job's latest run is."""

    command: ClassVar[str] = "job status"


class JobListSettings(GeneralOptions, ServerOptions, StateOptions):
    """List the runs of all jobs, the latest first."""

    command: ClassVar[str] = "job list"


class JobRetryErrorsSettings(GeneralOptions, ServerOptions, StateOptions, JobOptions):
    """Apply the rows in the latest run's error table once more."""

    command: ClassVar[str] = "job retry-errors"


class JobDdlSettings(GeneralOptions, StateOptions):
    """Print the statements that make the jobs' state tables on PostgreSQL."""

    command: ClassVar[str] = "job ddl"
    role: Annotated[
        str | None,
        Field(description="a role that is to run jobs: with what it is granted for that"),
        Metavar("NAME"),
    ] = None


class JobRequireSettings(
    GeneralOptions, ServerOptions, StateOptions, JobRequireOptions, JobOptions
):
    """End with 0 if a job is done, and with 1 and the reason if it is not."""

    command: ClassVar[str] = "job require"


JobSettings = (
    JobRunSettings
    | JobPauseSettings
    | JobCancelSettings
    | JobStatusSettings
    | JobListSettings
    | JobRetryErrorsSettings
    | JobRequireSettings
    | JobDdlSettings
)
JOB_COMMANDS: tuple[type[GeneralOptions], ...] = get_args(JobSettings)
