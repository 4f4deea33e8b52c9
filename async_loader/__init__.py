"""
A load gate, a write path and batch jobs for the asyncio ORM of SQLAlchemy.

Importing this does nothing but define names: no logging, no event loop policy, no signal
handler, no look at the environment.
"""

from typing import TYPE_CHECKING, Any

from .errors import (
    AsyncLoaderError,
    ConfigurationError,
    DatabaseError,
    MissingExtraError,
    SetupError,
    TeardownError,
)
from .histogram import Histogram
from .limits import Limit, Stop
from .metrics.metrics import Snapshot
from .results.parts import OperationResult
from .results.run import RunResult, merge
from .runner.runner import run
from .schedules import Stage
from .throttles import ArrivalRate, Chunks, Ramp, Semaphore, Throttle
from .workload import Operation, OperationContext, Workload

if TYPE_CHECKING:
    from .inserts import enable_batch_inserting, insert_rows

__all__ = [
    "ArrivalRate",
    "AsyncLoaderError",
    "Chunks",
    "ConfigurationError",
    "DatabaseError",
    "Histogram",
    "Limit",
    "MissingExtraError",
    "Operation",
    "OperationContext",
    "OperationResult",
    "Ramp",
    "RunResult",
    "Semaphore",
    "SetupError",
    "Snapshot",
    "Stage",
    "Stop",
    "TeardownError",
    "Throttle",
    "Workload",
    "enable_batch_inserting",
    "insert_rows",
    "merge",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import the insert path when it is first used: it needs the whole PostgreSQL dialect."""
    if name in ("enable_batch_inserting", "insert_rows"):
        from . import inserts  # noqa: PLC0415  that is the point

        return getattr(inserts, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
