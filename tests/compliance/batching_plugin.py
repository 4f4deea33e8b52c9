"""A pytest plugin that turns batching on for every session of SQLAlchemy's own test-suite.

Loaded by name with `-p batching_plugin`; it imports nothing of SQLAlchemy before pytest is
configured, because the suite's own bootstrap wants to be first.
"""

from __future__ import annotations

from typing import Any


def pytest_sessionstart() -> None:
    """Enable batching on the class that all of the suite's sessions come from."""
    from sqlalchemy.orm import Session

    from async_loader.inserts import enable_batch_inserting
    from async_loader.inserts.adding import add_all

    enable_batch_inserting(Session)
    suite: Any = Session
    suite.add_all = add_all  # as the subclasses have it
