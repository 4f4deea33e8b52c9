"""
Every option of every command, defined once.

A command is a settings model composed of the groups it needs; flags, `ASYNC_LOADER_*`
variables, `.env` and a TOML file are four ways to set the same fields, in that order of
precedence, before the default. Reading them is `settings_sources.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from ..load.partition import Partition
from ..load.specs.load_test import SYNC_MODES, UNBOUNDED_POOL, Mode
from ..load.workloads import BUILT_IN
from ..load.workloads.mixed import ReadFrom, ReadVia
from .baseline import BaselineOptions
from .load import LoadOptions, ModeOptions, VerdictOptions
from .option_group import GeneralOptions, Group
from .option_types import (
    Argument,
    CompareMode,
    Metavar,
    Output,
    Seconds,
    Share,
    arguments_of,
    each_once,
    file_to_write,
    split_commas,
    workload_target,
)
from .workers import SplitOptions


class EmbeddedOptions(Group):
    """Where our own server is."""

    title: ClassVar[str] = "Database"

    server_directory: Annotated[
        Path | None,
        Field(description="where the embedded server lives (default: the user's data directory)"),
        Metavar("DIR"),
    ] = None


class ServerOptions(EmbeddedOptions):
    """Which server."""

    title: ClassVar[str] = "Database"

    database_url: Annotated[
        SecretStr | None,
        Field(description="a PostgreSQL or a SQLite file (default: an embedded PostgreSQL 18)"),
        Metavar("URL"),
    ] = None


class DatabaseOptions(ServerOptions):
    """How many connections, and what stays behind."""

    title: ClassVar[str] = "Database"

    pool_size: Annotated[
        int | None,
        Field(ge=1, le=100_000, description="connections in the pool (default: as the concurrency, "
                                "below the server's limit)"),
        Metavar("N"),
    ] = None  # fmt: skip
    keep_data: bool = Field(False, description="keep the run's schema instead of dropping it")


class WorkloadOptions(Group):
    """What is done."""

    title: ClassVar[str] = "Workload"

    workload: Annotated[
        str,
        AfterValidator(workload_target),
        Field(description=f"{', '.join(BUILT_IN)}, or your own: package.module:NAME, file.py:NAME"),
        Metavar("WORKLOAD"),
    ] = "mixed"
    arg: Annotated[
        list[Argument],
        NoDecode,
        BeforeValidator(split_commas),
        AfterValidator(each_once),
        Field(description="an argument that the workload declares; may be repeated"),
        Metavar("NAME=VALUE"),
    ] = Field(default_factory=list)
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
        None,
        description="reads without BEGIN and ROLLBACK (default: on for built-in workloads, but not "
        "with stream; off for your own)",
    )
    batch_inserts: bool | None = Field(
        None,
        description="write new objects in batches, see enable_batch_inserting (default: on for "
        "built-in workloads, off for your own)",
    )
    fast_paths: bool | None = Field(
        None,
        description="read with less CPU, see enable_fast_paths (default: on for built-in "
        "workloads, off for your own)",
    )
    strict: bool = Field(False, description="exit 104 for an option that has no effect on the run")

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
        if self.read_autocommit is not None:
            return self.read_autocommit
        return self.is_built_in and self.read_via != "stream"

    @property
    def batches_inserts(self) -> bool:
        """Whether new objects are written in batches."""
        return self.is_built_in if self.batch_inserts is None else self.batch_inserts

    @property
    def has_fast_paths(self) -> bool:
        """Whether reads take the fast paths: as asked, and if there are any here."""
        if not (self.is_built_in if self.fast_paths is None else self.fast_paths):
            return False
        from ..reads.enable import is_available  # noqa: PLC0415  what reads is heavy

        return is_available()

    @property
    def arguments(self) -> dict[str, str]:
        """The workload's arguments by name."""
        return arguments_of(self.arg)

    @property
    def is_built_in(self) -> bool:
        """Whether the workload is one of ours, and not what somebody's application does."""
        return self.workload in BUILT_IN


def _label(text: str | None) -> str | None:
    if text is not None and (not text.isprintable() or not text.strip()):
        raise ValueError("a label is one line of printable characters")
    return text


class OutputOptions(Group):
    """What is written."""

    title: ClassVar[str] = "Report"

    out: Annotated[
        list[Output],
        NoDecode,
        BeforeValidator(split_commas),
        Field(
            description="also write html=FILE, json=FILE, junit=FILE, markdown=FILE, sarif=FILE "
            "or codequality=FILE (-: stdout); may be repeated"
        ),
        Metavar("FORM=FILE"),
    ] = Field(default_factory=list)

    @property
    def outputs(self) -> list[str]:
        """Every output that is wanted, as FORM=FILE."""
        return list(self.out)

    @model_validator(mode="after")
    def _one_stdout(self) -> Self:
        if sum(output.endswith("=-") for output in self.outputs) > 1:
            raise ValueError("only one output can go to stdout")
        return self


class ResultOutputOptions(OutputOptions):
    """What is written of a result, with short forms for what a pipeline asks for."""

    title: ClassVar[str] = "Report"

    html: Annotated[
        str | None,
        Field(min_length=1, description="a page, as --out html=FILE"),
        AfterValidator(lambda path: path and file_to_write(path)),
        Metavar("FILE"),
    ] = None
    junit: Annotated[
        str | None,
        Field(min_length=1, description="as --out junit=FILE"),
        AfterValidator(lambda path: path and file_to_write(path)),
        Metavar("FILE"),
    ] = None

    @property
    def outputs(self) -> list[str]:
        """Every output that is wanted, as FORM=FILE."""
        short = {"html": self.html, "junit": self.junit}
        return [*self.out, *(f"{form}={path}" for form, path in short.items() if path)]


class ReportOptions(ResultOutputOptions):
    """What is shown meanwhile, and by which name."""

    title: ClassVar[str] = "Report"

    label: Annotated[
        str | None,
        Field(max_length=200, description="what the run is called in reports"),
        AfterValidator(_label),
        Metavar("TEXT"),
    ] = None
    progress: Literal["auto", "bar", "lines", "none"] = Field(
        "auto", description="on stderr: a bar on a terminal, else a line every 5 s"
    )


class ProfileOptions(Group):
    """What is written of the event loop."""

    title: ClassVar[str] = "Report"

    profile: Annotated[
        str | None,
        Field(min_length=1, description="write what the event loop ran, as speedscope takes it"),
        AfterValidator(lambda path: path and str(Path(path).absolute())),
        Metavar("FILE"),
    ] = None


class CalibrateOptions(Group):
    """Whether the load is found first."""

    title: ClassVar[str] = "Load"

    calibrate: bool = Field(
        False,
        description="find the throughput at full speed, then the latencies at 50, 70 and 90 % "
        "of it (10 s each, or --ops or --duration)",
    )


class RunSettings(
    GeneralOptions,
    ReportOptions,
    ProfileOptions,
    VerdictOptions,
    BaselineOptions,
    DatabaseOptions,
    WorkloadOptions,
    SplitOptions,
    CalibrateOptions,
    ModeOptions,
):
    """Run a workload once and report what was found."""

    command: ClassVar[str] = "run"

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        self.check_mode(self.mode)
        if self.calibrate and (self.is_open or self.stage or self.mode in SYNC_MODES):
            raise ValueError(
                "--calibrate finds the rates itself, on an event loop: it excludes --rate, "
                "--stage and the modes sync and threads"
            )
        if self.calibrate and (self.threshold or self.baseline or self.profile):
            raise ValueError(
                "--calibrate is of several runs: thresholds, a baseline and a profile are of one"
            )
        if self.is_open and self.cluster is None:
            self.load_model.throttle(
                Partition(0, self.number_of_processes)
            )  # which refuses too high a rate
        if self.explain_slowest and (
            self.is_split or self.mode in SYNC_MODES or not self.time_split
        ):
            raise ValueError(
                "--explain-slowest is of one event loop that is timed: it excludes --processes, "
                "--cluster, the modes sync and threads, and --no-time-split"
            )
        if self.profile is not None:
            if self.is_split or self.mode in SYNC_MODES or not self.time_split:
                raise ValueError(
                    "--profile is of one event loop that is timed: it excludes --processes, "
                    "--cluster, the modes sync and threads, and --no-time-split"
                )
            if not os.access(Path(self.profile).parent, os.W_OK) or Path(self.profile).is_dir():
                raise ValueError(f"--profile {self.profile}: cannot write a file there")
        return self


class CompareOptions(Group):
    """Which ways are compared."""

    title: ClassVar[str] = "Comparison"

    modes: Annotated[
        list[CompareMode],
        NoDecode,
        BeforeValidator(split_commas),
        Field(
            min_length=1,
            description="a way to compare; may be repeated (default: all modes); "
            "stock is semaphore without --batch-inserts and --fast-paths",
        ),
        Metavar("MODE"),
    ] = Field(default_factory=lambda: list[CompareMode](get_args(Mode)))
    rounds: Annotated[
        int, Field(ge=1, le=100, description="how often each way is run, in turns"), Metavar("N")
    ] = 3
    unbounded_pool_size: Annotated[
        int,
        Field(ge=1, le=100_000, description="connections in the pool of the unbounded way"),
        Metavar("N"),
    ] = UNBOUNDED_POOL


class CompareSettings(
    GeneralOptions,
    ReportOptions,
    VerdictOptions,
    DatabaseOptions,
    WorkloadOptions,
    SplitOptions,
    LoadOptions,
    CompareOptions,
):
    """Run the same operations in several ways, in turns, and show what each costs."""

    command: ClassVar[str] = "compare"

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.is_split and "modes" not in self.model_fields_set:
            self.modes = [mode for mode in self.modes if mode not in SYNC_MODES]
        for mode in self.modes:
            self.check_mode(mode)
        if "stock" in self.modes and not self.batches_inserts:
            raise ValueError(
                "--modes stock is semaphore without --batch-inserts, which is off here: "
                "give --batch-inserts to compare the two"
            )
        return self


class InsertsOptions(Group):
    """What is inserted, and over what distance."""

    title: ClassVar[str] = "Inserts"

    rows: Annotated[
        int, Field(ge=1, le=10_000_000, description="objects or rows to insert"), Metavar("N")
    ] = 100_000
    shape: Literal["plain", "family", "joined", "tree", "uuid", "defaults", "expression"] = Field(
        "plain", description="what the objects are like"
    )
    latency: Annotated[
        Seconds, Field(ge=0, le=1, description="added to every round trip, such as 3ms")
    ] = 0.0
    rounds: Annotated[
        int, Field(ge=1, le=100, description="how often each way is measured, in turns"),
        Metavar("N"),
    ] = 5  # fmt: skip


class InsertsSettings(GeneralOptions, OutputOptions, ServerOptions, InsertsOptions):
    """Insert the same rows in every way there is, in turns, and show what each costs."""

    command: ClassVar[str] = "inserts"
