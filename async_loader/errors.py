"""
The errors a user can meet, each of which says what to do next::

    AsyncLoaderError
     +-- ConfigurationError     a flag, key or value is wrong             exit 104
     |    +-- MissingExtraError    an optional package is not installed
     +-- WorkloadError          a workload cannot be used                 exit 107
     |    +-- SetupError           its set-up raised
     |    +-- TeardownError        its tear-down raised, after the run
     +-- JobError               a batch job stopped, or cannot go there   exit 1
     |    +-- JobNotDoneError      a job that has to be done is not
     +-- WorkerLostError        a process of a run died                   exit 113
     +-- ClusterError           no scheduler, or a worker that is unfit   exit 114
     +-- DatabaseError          unreachable, refused or unusable          exit 110
          +-- EmbeddedServerError  the server that we start ourselves

The message is one line for a person at a terminal; no message contains a password.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, ClassVar


class AsyncLoaderError(Exception):
    """Base of all errors of this package; `exit_code` is what the command ends with."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(AsyncLoaderError):
    """A flag, environment variable, configuration key or argument is wrong."""

    exit_code = 104


class MissingExtraError(ConfigurationError):
    """A feature was asked for whose optional packages are not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the extra '{extra}': pip install 'async_loader[{extra}]'"
        )

    @classmethod
    def unless_installed(cls, package: str, feature: str, extra: str) -> None:
        """Raise unless the package can be imported."""
        if find_spec(package) is None:
            raise cls(feature, extra)


class WorkloadError(AsyncLoaderError):
    """A workload cannot be found, imported or used."""

    exit_code = 107


class SetupError(WorkloadError):
    """The workload's own set-up raised."""


class TeardownError(WorkloadError):
    """The workload's own tear-down raised; `result` is the `RunResult` that there was by then."""

    result: Any = None


class JobError(AsyncLoaderError):
    """A batch job stopped at a row, or a run of it is not where it was asked to go."""


class JobNotDoneError(JobError):
    """A job that has to be done before something else is not done."""


class WorkerLostError(AsyncLoaderError):
    """A worker of a run died, or is out of reach; `worker` is its name."""

    exit_code = 113

    def __init__(self, worker: str, how: str = "died") -> None:
        super().__init__(f"{worker} {how}")
        self.worker = worker
        self.how = how


class ClusterError(AsyncLoaderError):
    """A Dask cluster cannot be reached, or one of its workers cannot take part."""

    exit_code = 114


class DatabaseError(AsyncLoaderError):
    """The database cannot be reached, refuses us, or lacks what we need."""

    exit_code = 110


class EmbeddedServerError(DatabaseError):
    """The embedded PostgreSQL server cannot be installed, started or adopted."""
