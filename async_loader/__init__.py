"""
A load gate, a write path and batch jobs for the asyncio ORM of SQLAlchemy.

Importing this does nothing but define names: no logging, no event loop policy, no signal
handler, no look at the environment.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .concurrency.stop import Stop
    from .errors import (
        AsyncLoaderError,
        ConfigurationError,
        DatabaseError,
        MissingExtraError,
        SetupError,
        TeardownError,
    )
    from .inserts import (
        delete_all,
        delete_rows,
        enable_batch_inserting,
        enable_batching,
        insert_rows,
        merge_all,
        update_rows,
    )
    from .load.arguments import Argument
    from .load.asgi import Lifespan
    from .load.context import OperationContext
    from .load.feeds import Feed, FeedExhausted, feed
    from .load.metrics.snapshot import Snapshot
    from .load.pacing.limits import Limit
    from .load.pacing.schedules import Stage
    from .load.pacing.throttles import ArrivalRate, Chunks, Ramp, Semaphore, Throttle
    from .load.runner.library import run
    from .load.workload import Operation, Workload
    from .reads import disable_fast_paths, enable_fast_paths
    from .results.histogram import Histogram
    from .results.parts import OperationResult
    from .results.run import RunResult, merge

__all__ = [
    "Argument",
    "ArrivalRate",
    "AsyncLoaderError",
    "Chunks",
    "ConfigurationError",
    "DatabaseError",
    "Feed",
    "FeedExhausted",
    "Histogram",
    "Lifespan",
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
    "delete_all",
    "delete_rows",
    "disable_fast_paths",
    "enable_batch_inserting",
    "enable_batching",
    "enable_fast_paths",
    "feed",
    "insert_rows",
    "merge",
    "merge_all",
    "run",
    "update_rows",
]


_WHERE = {
    "concurrency.stop": "Stop",
    "errors": (
        "AsyncLoaderError ConfigurationError DatabaseError MissingExtraError SetupError "
        "TeardownError"
    ),
    "inserts": (
        "delete_all delete_rows enable_batch_inserting enable_batching insert_rows merge_all "
        "update_rows"
    ),
    "load.metrics.snapshot": "Snapshot",
    "load.pacing.limits": "Limit",
    "load.pacing.schedules": "Stage",
    "load.pacing.throttles": "ArrivalRate Chunks Ramp Semaphore Throttle",
    "load.runner.library": "run",
    "load.arguments": "Argument",
    "load.asgi": "Lifespan",
    "load.context": "OperationContext",
    "load.feeds": "Feed FeedExhausted feed",
    "load.workload": "Operation Workload",
    "reads": "disable_fast_paths enable_fast_paths",
    "results.parts": "OperationResult",
    "results.run": "RunResult merge",
    "results.histogram": "Histogram",
}
_MODULES = {name: module for module, names in _WHERE.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """
    Import a name where it is first used.

    The insert path alone needs no runner, and the command can be interrupted from its first
    moment on, before SQLAlchemy is there.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
