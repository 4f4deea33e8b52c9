"""
Timing what dialects ask of the database, and counting their statements.

The dialects' methods, not events: COMMIT and ROLLBACK fire none after them. The classes', not
one dialect's: an engine that an application makes in the middle of a run has the same ones.
"""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

from ..metrics.repeats import repeat_site
from .patches import Patches
from .times import OperationTimes, Wait, current_times
from .windows import awaited, waiting, window

_EXECUTES = ("do_execute", "do_execute_no_params")
_ENDS = ("do_begin", "do_commit", "do_rollback")
_TWO_PHASE = ("do_begin_twophase", "do_prepare_twophase")


class Unattributed:
    """Statements of threads that do not know whose operation they work for."""

    statements = 0


unattributed = Unattributed()


class DialectPatches:
    """The classes of dialects whose methods are timed, those that are imported later too."""

    def __init__(self, patches: Patches) -> None:
        self._patches = patches
        self._known: set[type] = set()
        for kind in _with_subclasses(DefaultDialect):
            self._patch(kind)

    def see(self, dialect: object) -> None:
        """Time a dialect that is about to be used, if it is of a class that was not there."""
        if type(dialect) not in self._known:
            for kind in type(dialect).__mro__:
                self._patch(kind)

    def _patch(self, kind: type) -> None:
        if kind in self._known or not issubclass(kind, DefaultDialect):
            return
        self._known.add(kind)
        for name, wrap in _WRAPPERS.items():
            if name in vars(kind):
                self._patches.wrap(kind, name, wrap)


def _with_subclasses(kind: type) -> Iterator[type]:
    yield kind
    subclasses: list[type] = kind.__subclasses__()
    for each in subclasses:
        yield from _with_subclasses(each)


def _timed(wait: Wait) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the wrapper of methods that wait for this; what is within another wait is that."""

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(dialect: Any, *args: Any, **kwargs: Any) -> Any:
            if dialect.is_async and wait == "database":
                return method(dialect, *args, **kwargs)  # whoever drives the task counts it
            times = current_times.get()
            if times is None or not _is_new(wait):
                return method(dialect, *args, **kwargs)
            with waiting(times, wait, blocks=not dialect.is_async):
                return method(dialect, *args, **kwargs)

        return timed

    return wrap


def _is_new(wait: Wait) -> bool:
    """Whether a wait is of its own: in what opens a connection, statements are not."""
    within = window.get()
    return within is None or (wait == "ping" and within.wait == "pool")


def _timed_execute(method: Callable[..., Any]) -> Callable[..., Any]:
    many = method.__name__ == "do_executemany"
    # SQLAlchemy's own asks the driver, and nobody else; another dialect's may go on to its.
    asks_on = method.__qualname__.partition(".")[0] != DefaultDialect.__name__

    @wraps(method)
    def execute(dialect: Any, cursor: Any, statement: Any, *args: Any, **kwargs: Any) -> Any:
        times = current_times.get()
        if times is None and not dialect.is_async and _get_running_loop() is None:
            unattributed.statements += 1
        if times is None or not _is_new("database"):
            return method(dialect, cursor, statement, *args, **kwargs)
        _count(times, statement, args[0] if args else (), many=many)
        if not dialect.is_async:
            with waiting(times, "database", blocks=True):
                return method(dialect, cursor, statement, *args, **kwargs)
        if not asks_on:  # who drives the task takes for the database what is nothing else
            return method(dialect, cursor, statement, *args, **kwargs)
        token = awaited("database")
        try:
            return method(dialect, cursor, statement, *args, **kwargs)
        finally:
            window.reset(token)

    return execute


def _count(times: OperationTimes, statement: str, parameters: Any, *, many: bool) -> None:
    times.statements += len(parameters) if many else 1
    if times.n_plus_one and not many:
        times.seen[statement] = seen = times.seen.get(statement, 0) + 1
        # Once an operation: the look at the stack is what costs.
        if seen == times.n_plus_one and (site := repeat_site()) is not None:
            times.repeated[statement] = site


_WRAPPERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys((*_EXECUTES, "do_executemany"), _timed_execute),
    **dict.fromkeys((*_ENDS, *_TWO_PHASE), _timed("database")),
    "do_ping": _timed("ping"),
}
