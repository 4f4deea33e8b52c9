"""The names that users import, and what importing them must not do."""

from __future__ import annotations

import inspect
import subprocess
import sys

import async_loader

PUBLIC = {
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


ALL_NAMES = "import async_loader, sys; [getattr(async_loader, n) for n in async_loader.__all__]; "


def test_the_names_import_no_driver_and_nothing_that_batches() -> None:
    """Who imports a name pays for the name: drivers are the engine's, the rest is for its use."""
    for_use = (
        "asyncpg", "psycopg", "sqlalchemy.dialects.postgresql", "multiprocessing",
        "async_loader.inserts.unit_of_work", "async_loader.inserts.bulk.loading",
        "async_loader.inserts.plans", "async_loader.load.runner.runner",
        "async_loader.load.metrics.metrics", "async_loader.results.form", "async_loader.verdict",
    )  # fmt: skip
    code = f"{ALL_NAMES} print(sorted(set({for_use!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_signatures_are_there_before_what_they_call() -> None:
    expected = {
        "insert_rows": [
            "session",
            "model",
            "rows",
            "on_conflict",
            "key",
            "set",
            "returning",
            "duplicates",
            "progress",
        ],
        "update_rows": ["session", "model", "rows", "key", "duplicates", "progress"],
        "delete_rows": ["session", "model", "keys", "key", "progress"],
        "delete_all": ["session", "objects"],
        "merge_all": ["session", "objects", "options"],
        "enable_batch_inserting": ["target", "reserve", "statement_bytes"],
        "run": ["workload", "sessions", "read_sessions", "stop", "on_progress", "clock", "options"],
    }
    found = {name: inspect.signature(getattr(async_loader, name)) for name in expected}
    assert {name: list(signature.parameters) for name, signature in found.items()} == expected
