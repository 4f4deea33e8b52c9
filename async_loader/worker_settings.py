"""The options of commands whose work several processes share."""

from __future__ import annotations

import os
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from .option_group import Group
from .option_types import Metavar


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _number(value: object) -> object:
    return cores() if value == "auto" else value


Processes = Annotated[int, BeforeValidator(_number), Field(ge=1, le=1000), Metavar("N|auto")]


class WorkerOptions(Group):
    """By which processes."""

    title: ClassVar[str] = "Processes"

    processes: Processes | None = Field(
        None, description="share the work between so many processes; auto: one for each core"
    )
