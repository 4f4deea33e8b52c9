"""The options of `ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import CliPositionalArg

from .option_group import GeneralOptions, Group
from .option_types import Metavar


class IngestOptions(Group):
    """Which files, and how they are loaded."""

    title: ClassVar[str] = "Ingest"

    directory: Annotated[
        CliPositionalArg[Path | None],
        Field(description="a folder of audio files with pictures: x.mp3 and x.jpg"),
        Metavar("DIR"),
    ] = None
    concurrency: Annotated[
        int, Field(ge=1, le=1000, description="pairs in memory at once"), Metavar("N")
    ] = 16
    chunk: Annotated[
        int | None,
        Field(ge=1, le=10_000, description="pairs in a transaction; 10 on PostgreSQL, 20 on "
                                           "SQLite unless given"),
        Metavar("N"),
    ] = None  # fmt: skip
    demo: Annotated[
        int | None,
        Field(ge=1, le=100_000, description="make so many pairs first: in DIR, which must be "
                                            "empty, or in a folder that is removed again"),
        Metavar("N"),
    ] = None  # fmt: skip
    compare: bool = Field(
        False, description="load the files in the plain ways too, on tables of their own, and "
                           "show what each costs"
    )  # fmt: skip
    rounds: Annotated[
        int, Field(ge=1, le=100, description="--compare: how often, in turns"), Metavar("N")
    ] = 3
    progress: Literal["auto", "bar", "lines", "none"] = Field(
        "auto", description="on stderr: a bar on a terminal, else a line every 5 s"
    )

    @model_validator(mode="after")
    def _some_files(self) -> Self:
        if self.directory is None and self.demo is None:
            raise ValueError("ingest needs a folder: ingest DIR, or --demo 70 for one of ours")
        return self


class LibraryOptions(Group):
    """Where the rows go."""

    title: ClassVar[str] = "Database"

    database_url: Annotated[
        SecretStr | None,
        Field(description="a PostgreSQL or a SQLite file (default: library.sqlite in the user's "
                          "data directory)"),
        Metavar("URL"),
    ] = None  # fmt: skip


class IngestSettings(GeneralOptions, LibraryOptions, IngestOptions):
    """Make a row of each audio file with a picture in a folder; run again, it goes on."""

    command: ClassVar[str] = "ingest"
