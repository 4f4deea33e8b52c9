"""
Every option of every command, defined once.

A command is a settings model composed of the groups it needs; flags, `ASYNC_LOADER_*`
variables, `.env` and a TOML file are four ways to set the same fields, in that order of
precedence, before the default. Reading them is `settings_sources.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from .limits import Limit
from .option_types import (
    BUILT_IN,
    Metavar,
    Mode,
    Output,
    Seconds,
    Share,
    Warmup,
    Way,
    split_commas,
    threshold_text,
    workload_target,
)
from .repeats import LEAST
from .workloads.mixed import ReadFrom, ReadVia

ENV_PREFIX = "ASYNC_LOADER_"
DEFAULT_OPS = 35_000
# The ~100 connections of a stock server.
UNBOUNDED_POOL = 100


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

    command: ClassVar[str]

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
    """How many connections, and what stays behind."""

    title: ClassVar[str] = "Database"

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
        AfterValidator(workload_target),
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
    batch_inserts: bool = Field(
        True, description="write new objects in batches (see enable_batch_inserting)"
    )
    time_split: bool = Field(
        True, description="tell pool wait, database and ORM apart, and count statements"
    )
    n_plus_one: Annotated[
        int,
        Field(ge=0, description="name a statement that one operation executes so often "
                                "(0: off; needs the time split)"),
        Metavar("N"),
    ] = LEAST  # fmt: skip
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
    server_side: bool = Field(
        True, description="ask PostgreSQL for its own account of the run: statements, waits, cache"
    )


class VerdictOptions(Group):
    """When a run is a failure."""

    title: ClassVar[str] = "Verdict"

    max_error_rate: Annotated[
        Share, Field(description="exit 1 when a larger share of the operations fails")
    ] = 0.01
    threshold: Annotated[
        list[Annotated[str, AfterValidator(threshold_text)]],
        NoDecode,
        BeforeValidator(split_commas),
        Field(
            description="exit 99 unless it holds, as 'op_duration{op:read}:p(95)<50ms'; "
            "may be repeated"
        ),
        Metavar("EXPR"),
    ] = Field(default_factory=list)


class OutputOptions(Group):
    """What is written."""

    title: ClassVar[str] = "Report"

    out: Annotated[
        list[Output],
        NoDecode,
        BeforeValidator(split_commas),
        Field(
            description="also write html=FILE, json=FILE, junit=FILE or markdown=FILE "
            "(-: stdout); may be repeated"
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
        str | None, Field(min_length=1, description="a page, as --out html=FILE"), Metavar("FILE")
    ] = None
    junit: Annotated[
        str | None, Field(min_length=1, description="as --out junit=FILE"), Metavar("FILE")
    ] = None

    @property
    def outputs(self) -> list[str]:
        """Every output that is wanted, as FORM=FILE."""
        short = {"html": self.html, "junit": self.junit}
        return [*self.out, *(f"{form}={path}" for form, path in short.items() if path)]


class ReportOptions(ResultOutputOptions):
    """What is shown meanwhile."""

    title: ClassVar[str] = "Report"

    progress: Literal["auto", "bar", "lines", "none"] = Field(
        "auto", description="on stderr: a bar on a terminal, else a line every 5 s"
    )


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
        list[Way],
        NoDecode,
        BeforeValidator(split_commas),
        Field(
            min_length=1,
            description="a way to compare; may be repeated (default: all modes); "
            "stock is semaphore without --batch-inserts",
        ),
        Metavar("MODE"),
    ] = Field(default_factory=lambda: list[Way](get_args(Mode)))
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
