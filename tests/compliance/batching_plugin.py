"""A pytest plugin that turns batching on for every session of somebody else's test-suite.

Loaded by name with `-p batching_plugin`; it imports nothing of SQLAlchemy before pytest is
configured, because the suite's own bootstrap wants to be first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# What only statements of ours have.
_OURS = ("unnest(", "generate_series(", "MERGE INTO")
_count = 0


def pytest_sessionstart() -> None:
    """Enable batching on the class that all of the suite's sessions come from."""
    from sqlalchemy.orm import Session

    from async_loader.inserts import enable_batch_inserting
    from async_loader.inserts.adding import add_all

    enable_batch_inserting(Session)
    suite: Any = Session
    suite.add_all = add_all  # as the subclasses have it
    _count_ours()


def _count_ours() -> None:
    """Count our statements where all statements go through."""
    from sqlalchemy.engine.default import DefaultDialect

    original: Any = DefaultDialect.do_execute

    def do_execute(self: Any, cursor: Any, statement: str, *rest: Any) -> Any:
        global _count  # noqa: PLW0603 - a plugin is a module
        _count += any(mark in statement for mark in _OURS)
        return original(self, cursor, statement, *rest)

    dialect: Any = DefaultDialect
    dialect.do_execute = do_execute


def pytest_sessionfinish() -> None:
    """Leave the number of statements that were batched: a suite with none shows nothing."""
    report = os.environ.get("OURS")
    if report:
        Path(report).write_text(str(_count), encoding="utf-8")
