"""
What a user's own tests need.

Importing this imports none of it: `plugin.py` is loaded by every pytest of an environment.

    plugin.py      the fixtures and the marker, as pytest finds them
    fixture.py     a load in a test: what the fixture `load_test` is
    budgets.py     what a test may ask of its database: `query_budget`
    statements.py  the statements of a test, seen while it runs
    carrying.py    threads that a test starts, which are its own
    fake_clock.py  a clock that jumps
    interrupts.py  cutting a job off where a kill would; exactly_once.py: at each of its commits
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .budgets import Budget, QueryBudget, QueryBudgetExceeded
    from .exactly_once import NotExactlyOnceError, assert_exactly_once
    from .fake_clock import FakeClock
    from .fixture import LoadTest, LoadTestFailed, LoadTestResult
    from .interrupts import Interrupted, interrupt_after
    from .plugin import load_test, query_budget

__all__ = [
    "Budget",
    "FakeClock",
    "Interrupted",
    "LoadTest",
    "LoadTestFailed",
    "LoadTestResult",
    "NotExactlyOnceError",
    "QueryBudget",
    "QueryBudgetExceeded",
    "assert_exactly_once",
    "interrupt_after",
    "load_test",
    "query_budget",
]

_WHERE = {
    "budgets": "Budget QueryBudget QueryBudgetExceeded",
    "exactly_once": "NotExactlyOnceError assert_exactly_once",
    "fake_clock": "FakeClock",
    "interrupts": "Interrupted interrupt_after",
    "fixture": "LoadTest LoadTestFailed LoadTestResult",
    "plugin": "load_test query_budget",
}
_MODULES = {name: module for module, names in _WHERE.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import a name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
