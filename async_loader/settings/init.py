"""The options of `init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .option_group import GeneralOptions, Group
from .option_types import Metavar


class InitOptions(Group):
    """What is written."""

    title: ClassVar[str] = "Load test"

    file: Annotated[
        Path, Field(description="the load test to write; one that is there stays"), Metavar("FILE")
    ] = Path("loadtest.py")
    ci: Literal["auto", "github", "gitlab", "none"] = Field(
        "auto", description="also write a file for CI: gitlab where there is a .gitlab-ci.yml"
    )


class InitSettings(GeneralOptions, InitOptions):
    """Look at the project in this folder, and write a load test of it and a file for CI."""

    command: ClassVar[str] = "init"
