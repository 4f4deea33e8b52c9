"""The options of commands whose work several processes share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ..load.metrics.process_meter import usable_cores
from ..load.specs.load_test import SYNC_MODES
from ..workers.cluster import cluster_address
from .option_group import Group
from .option_types import Metavar

_MOST = 1000


def _processes(value: object) -> object:
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if value not in ("auto", None) and not (isinstance(value, int) and 1 <= value <= _MOST):
        raise ValueError(f"a number of processes, from 1 to {_MOST:,}, or auto")
    return value


def _address(value: str | None) -> str | None:
    return None if value is None else cluster_address(value)


Processes = Annotated[int | Literal["auto"], Metavar("N|auto")]


class WorkerOptions(Group):
    """By which processes."""

    title: ClassVar[str] = "Processes"

    processes: Annotated[
        Processes | None,
        BeforeValidator(_processes),
        Field(description="share the work between so many processes; auto: one for each core"),
    ] = None
    cluster: Annotated[
        str | None,
        AfterValidator(_address),
        Field(
            description="share it between all workers of a Dask cluster: its scheduler, or "
            "local:N for one on this machine"
        ),
        Metavar("tcp://HOST:PORT"),
    ] = None

    @property
    def is_spread(self) -> bool:
        """Whether processes other than this one do the work."""
        return self.processes is not None or self.cluster is not None

    @property
    def number_of_processes(self) -> int:
        """How many processes there are to be: one where nothing was said."""
        return usable_cores() if self.processes == "auto" else self.processes or 1


class SplitOptions(WorkerOptions):
    """By which processes, and what happens when one of them dies."""

    title: ClassVar[str] = "Processes"

    on_worker_loss: Literal["stop", "continue"] = Field(
        "stop", description="when a process dies: drain the others, or go on without it"
    )

    @property
    def is_split(self) -> bool:
        """Whether the operations are divided between processes."""
        return self.processes not in (None, 1) or self.cluster is not None

    def check_mode(self, mode: str) -> None:
        """Raise `ValueError` for a way of running that is one thread's, or one process's."""
        if self.is_split and mode in SYNC_MODES:
            way = "--cluster" if self.processes in (None, 1) else "--processes"
            raise ValueError(
                f"--mode {mode} is one process, to compare with: {way} is for the async modes"
            )
