"""The options of the commands of jobs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import CliPositionalArg, NoDecode

from .option_group import GeneralOptions, Group
from .option_types import Argument, Metavar, arguments_of, each_once, split_commas
from .run import ServerOptions
from .workers import WorkerOptions


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
    progress: Literal["auto", "bar", "lines", "none"] = Field(
        "auto", description="on stderr: a bar on a terminal, else a line every 5 s"
    )


class JobRunSettings(GeneralOptions, WorkerOptions, ServerOptions, JobRunOptions, JobOptions):
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
JOB_COMMANDS: tuple[type[GeneralOptions], ...] = get_args(JobSettings)
