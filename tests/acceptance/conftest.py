"""The command as a user runs it: a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.forked import Forks

ROOT = Path(__file__).parents[2]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(**extra: str) -> dict[str, str]:
    """Return this environment without what would change the command's settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ASYNC_LOADER_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default", **extra}


@pytest.fixture
def command(request: pytest.FixtureRequest, tmp_path: Path, forking: Forks) -> Command:
    """Run the command in an empty folder and return what it printed."""
    marked = request.node.get_closest_marker("timeout")
    timeout = (marked.args[0] if marked else 120) - 10  # so that it ends before its test

    def run(*argv: str, within: float = timeout, **extra: str) -> subprocess.CompletedProcess[str]:
        return forking.run(argv, cwd=tmp_path, env=environment(**extra), timeout=within)

    return run
