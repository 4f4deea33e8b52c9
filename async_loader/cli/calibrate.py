"""What a database can do, and how long operations take below that: four runs, one command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from ..database.embedded import embedded_server
from ..database.urls import parse_url
from ..results.run import RunResult
from ..settings.run import RunSettings
from ..verdict.knee import rate_text
from ..verdict.verdict import judge
from .child import Stopped, run_in_child

Say = Callable[[str], object]

SHARES = (0.5, 0.7, 0.9)
_SECONDS = 10.0


def calibrate(settings: RunSettings, say: Say) -> Iterator[RunResult]:
    """
    Yield a closed run at full speed, then an open one at each share of its throughput.

    A stop ends it after the run it met, and so does a first run that failed.
    """
    if settings.database_url is not None:
        parse_url(settings.database_url.get_secret_value())
    with ExitStack() as stack:
        if settings.database_url is None:
            # Held over all runs: each joins the running server instead of starting one.
            stack.enter_context(embedded_server(settings.server_directory))
        say("at full speed")
        try:
            full = run_in_child(run_settings(settings), settings.progress)
            yield full
            if full.outcome != "done" or judge(full).word == "failed":
                return
            for share in SHARES:
                rate = rate_text(share * full.throughput)
                say(f"at {share:.0%} of that: {rate}")
                result = run_in_child(run_settings(settings, rate), settings.progress)
                yield result
                if result.outcome != "done":
                    return
        except Stopped:
            return


def run_settings(settings: RunSettings, rate: str | None = None) -> RunSettings:
    """Return the settings of the run at full speed, or of one at a rate."""
    changed: dict[str, Any] = {"calibrate": False, "rate": rate}
    if settings.ops is None and settings.duration is None:
        changed["duration"] = _SECONDS
    return settings.model_copy(update=changed)
