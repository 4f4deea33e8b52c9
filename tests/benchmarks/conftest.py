"""Benchmarks, on demand (`pytest -m benchmark -s`): in turns, medians, ratios against bars."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import environment

ROUNDS = 5


@pytest.fixture
def peer(request: pytest.FixtureRequest) -> Path:
    """The plain script that users write today."""
    path = request.config.getoption("--peer")
    if path is None:
        pytest.skip("no --peer script given")
    return Path(path).resolve()


def load(*argv: str) -> dict[str, Any]:
    """Return the JSON result of one run of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "async_loader", *argv, "--progress", "none", "--out", "json=-"],
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def in_turns(
    first: Callable[[], float], second: Callable[[], float], rounds: int = ROUNDS
) -> tuple[float, float, float]:
    """Return both medians and the median of the pairwise ratios, first over second."""
    pairs = [(first(), second()) for _ in range(rounds)]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )


def quote(what: str, figures: Sequence[str]) -> None:
    print(f"\n{what}: {', '.join(figures)}")
