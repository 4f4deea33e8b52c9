"""
A load gate, a write path and batch jobs for the asyncio ORM of SQLAlchemy.

Importing this does nothing but define names: no logging, no event loop policy, no signal
handler, no look at the environment.
"""

from .errors import (
    AsyncLoaderError,
    ConfigurationError,
    DatabaseError,
    MissingExtraError,
    SetupError,
)
from .histogram import Histogram
from .inserts import enable_batch_inserting, insert_rows
from .limits import Limit, Stop
from .metrics import Snapshot
from .result_parts import OperationResult
from .results import RunResult, merge
from .runner import run
from .throttles import Chunks, Semaphore, Throttle
from .workload import Operation, OperationContext, Workload

__all__ = [
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
    "RunResult",
    "Semaphore",
    "SetupError",
    "Snapshot",
    "Stop",
    "Throttle",
    "Workload",
    "enable_batch_inserting",
    "insert_rows",
    "merge",
    "run",
]
