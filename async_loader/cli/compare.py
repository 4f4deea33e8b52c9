"""The same stream of operations in several ways, in turns, each run in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

from ..database.embedded import embedded_server
from ..database.urls import parse_url
from ..errors import ConfigurationError
from ..results.run import RunResult
from ..settings.option_types import CompareMode
from ..settings.run import CompareSettings, RunSettings
from .child import Stopped, run_in_child

Say = Callable[[str], None]


def compare(settings: CompareSettings, say: Say) -> Iterator[RunResult]:
    """
    Yield each run's result as it ends: A B C A B C, every one on tables of its own.

    `say` is told which run comes next. A stop ends the comparison after the run it met.
    Raises an `AsyncLoaderError` that a run ended with.
    """
    runs = [(way, run_settings(settings, way)) for way in settings.modes]
    with ExitStack() as stack:
        if settings.database_url is None:
            # Held over all runs: each joins the running server instead of starting one.
            stack.enter_context(embedded_server(settings.server_directory))
        for number in range(1, settings.rounds + 1):
            for way, run in runs:
                say(f"round {number} of {settings.rounds}: {way}")
                try:
                    result = run_in_child(run, settings.progress)
                except Stopped:
                    return
                yield result
                if result.outcome == "interrupted":
                    return


def run_settings(settings: CompareSettings, way: CompareMode) -> RunSettings:
    """Return the settings of one run of the comparison."""
    shared = {
        name: getattr(settings, name)
        for name in RunSettings.model_fields
        if name in CompareSettings.model_fields and name not in ("out", "html", "junit", "config")
    }
    shared["server_side"] = False  # the sync ways have none, and ways are compared as they are
    if way == "unbounded":
        shared["pool_size"] = settings.unbounded_pool_size
    if way == "stock":
        alone = {"batch_inserts": False, "fast_paths": False}
        return RunSettings(**shared | {"mode": "semaphore"} | alone)
    return RunSettings(**shared, mode=way)


def check(settings: CompareSettings) -> None:
    """Raise `ConfigurationError` before any work for what no run of it could do."""
    if len(set(settings.modes)) != len(settings.modes):
        raise ConfigurationError("--modes names a mode twice")
    if settings.database_url is not None:
        parse_url(settings.database_url.get_secret_value())
