"""A pytest plugin that turns the fast paths on for every session of somebody else's test-suite.

Loaded by name with `-p fast_paths_plugin`; see `batching_plugin`, which is made alike.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_count = 0


def pytest_sessionstart() -> None:
    """Enable them on the class that all of the suite's sessions come from, and count."""
    from sqlalchemy.orm import Session

    from async_loader.reads import enable_fast_paths, selectin

    enable_fast_paths(Session)
    loader: Any = selectin
    original = loader._built

    def built(*arguments: Any) -> None:
        global _count  # noqa: PLW0603 - a plugin is a module
        _count += 1
        original(*arguments)

    loader._built = built


def pytest_sessionfinish() -> None:
    """Leave the number of statements that were kept: a suite with none shows nothing."""
    report = os.environ.get("OURS")
    if report:
        Path(report).write_text(str(_count), encoding="utf-8")
