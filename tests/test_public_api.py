"""The names that users import, and what importing them must not do."""

from __future__ import annotations

import subprocess
import sys

import async_loader

PUBLIC = {
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
    "delete_all",
    "enable_batch_inserting",
    "enable_batching",
    "insert_rows",
    "merge",
    "run",
}

SIDE_EFFECTS = """
import asyncio, gc, logging, os, signal, sys, threading
class Watched(dict):
    touched = []
    def __getitem__(self, key):
        if str(key).startswith("ASYNC_LOADER"):
            self.touched.append(key)
        return super().__getitem__(key)
import sqlalchemy.ext.asyncio
before = (
    logging.root.handlers[:], logging.root.level, signal.getsignal(signal.SIGINT),
    signal.getsignal(signal.SIGTERM), asyncio.get_event_loop_policy().__class__,
    threading.active_count(), gc.get_threshold(), sys.excepthook,
)
os.environ["ASYNC_LOADER_OPS"] = "nonsense"
import async_loader
for name in async_loader.__all__:
    getattr(async_loader, name)
after = (
    logging.root.handlers[:], logging.root.level, signal.getsignal(signal.SIGINT),
    signal.getsignal(signal.SIGTERM), asyncio.get_event_loop_policy().__class__,
    threading.active_count(), gc.get_threshold(), sys.excepthook,
)
assert before == after, (before, after)
optional = {"pydantic", "pydantic_settings", "rich", "uvloop", "platformdirs", "psycopg"}
assert not optional & set(sys.modules), optional & set(sys.modules)
"""


def test_the_public_names() -> None:
    assert set(async_loader.__all__) == PUBLIC
    assert async_loader.__all__ == sorted(async_loader.__all__)
    for name in PUBLIC:
        assert getattr(async_loader, name).__doc__, f"{name} has no docstring"


def test_importing_has_no_side_effect() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", SIDE_EFFECTS], check=True)


def test_the_package_alone_imports_no_sqlalchemy() -> None:
    """So the command has its signal handlers before what takes long: Ctrl-C is never a trace."""
    code = (
        "import async_loader, sys; assert not {'sqlalchemy', 'hdrh', 'msgspec'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
