"""
What to measure after a closed run at full speed, as the command to type.

Such a run measures throughput. Latencies are valid at a rate below that, which leaves the event
loop time of its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from ..load.workloads import BUILT_IN
from ..results.run import RunResult
from ..verdict.knee import rate_below

# What of the run's own options makes it the same work on the same connections, with the defaults.
_KEPT = {
    "workload": "mixed",
    "concurrency": 40,
    "write_ratio": None,
    "seed": 0,
    "read_via": "execute",
    "read_from": "first",
    "pool_size": None,
    "processes": None,
    "cluster": None,
    "op_timeout": 30.0,
    "max_tries": 1,
    "server_directory": None,
}


def next_lines(result: RunResult, width: int) -> list[str]:
    """Return the sentence and the command, its lines continued; nothing after another run."""
    rate = rate_below(result)
    if rate is None or result.environment.get("database") is None:
        return []
    words = ["async_loader", f"--rate {rate}", "--duration 30s", *_options(result)]
    return [
        "Latencies without our own queue, at 70 % of that throughput on the same database:",
        *_continued(words, width),
    ]


def next_command(result: RunResult) -> str | None:
    """Return the same in one line, None after another run."""
    lines = next_lines(result, _ONE_LINE)
    return lines[1].strip() if lines else None


_ONE_LINE = 100_000


def _options(result: RunResult) -> Iterator[str]:
    for name, default in _KEPT.items():
        value = result.settings.get(name, default)
        if value != default:
            yield f"--{name.replace('_', '-')} {shlex.quote(_text(value))}"
    url = result.environment["database"].get("url")
    if url is not None and result.settings.get("workload", "mixed") in BUILT_IN:
        yield f"--database-url {shlex.quote(url)}"  # an own workload may bring its engine


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _continued(words: Sequence[str], width: int) -> Iterator[str]:
    line = f"  {words[0]}"
    for word in words[1:]:
        if len(line) + len(word) + 3 > width:
            yield f"{line} \\"
            line = "   "
        line += f" {word}"
    yield line
