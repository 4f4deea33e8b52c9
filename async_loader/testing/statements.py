"""
The statements of a test, seen while it runs: on all engines of SQLAlchemy's, sync and async.

A context variable names the test that is at work, so that statements of fixtures, of their tasks
and of their threads are nobody's. A watch over a whole process takes them all.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from ..failures.redaction import shortened
from ..failures.source_lines import user_place_here, written
from ..load.metrics.repeats import repeat_site

ELSEWHERE = "a line that is nobody's"


@dataclass(slots=True)
class Sent:
    """How often a statement was sent from a line, and how long its answers took."""

    count: int = 0
    time_ns: int = 0
    batches: int = 0
    """Of these, how many were one of several batches of rows."""
    cause: str | None = None


@dataclass(slots=True)
class Tally:
    """The statements that were sent since this began, by their text and the line."""

    sent: dict[tuple[str, str], Sent] = field(default_factory=dict)

    @property
    def statements(self) -> int:
        """How many were sent; a batch is one."""
        return sum(one.count for one in self.sent.values())

    @property
    def ms_database(self) -> float:
        """How long they were waited for, in milliseconds."""
        return sum(one.time_ns for one in self.sent.values()) / 1e6


class Watch:
    """What one test sends, told to every tally that has begun and not ended."""

    def __init__(self) -> None:
        self.tallies: list[Tally] = []
        self._lock = threading.Lock()

    def sent(self, statement: str) -> list[Sent]:
        """Count a statement that is being sent; return where its time is to be added."""
        site = repeat_site()
        place = user_place_here()
        key = (statement, ELSEWHERE if place is None else written(place))
        with self._lock:
            found = [tally.sent.setdefault(key, Sent()) for tally in self.tallies]
            for one in found:
                one.count += 1
                one.batches += site is None
                one.cause = one.cause or (site and site.cause)
        return found


# A context variable: tasks of the test's own, and asyncio.to_thread, take it along.
current_watch: ContextVar[Watch | None] = ContextVar("current_watch", default=None)


class _Listening:
    """The listeners on all engines, while there is a watch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self.of_all: list[Watch] = []
        self._under_way: dict[int, tuple[int, list[Sent]]] = {}

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                for name, listener in self._listeners():
                    event.listen(Engine, name, listener)

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                for name, listener in self._listeners():
                    event.remove(Engine, name, listener)
                self._under_way.clear()

    def _listeners(self) -> Iterator[tuple[str, Any]]:
        yield "before_cursor_execute", self.before
        yield "after_cursor_execute", self.after
        yield "handle_error", self.failed

    def before(
        self, _c: Connection, cursor: Any, statement: str, _p: Any, _context: Any, _many: bool
    ) -> None:
        watch = current_watch.get()
        found = [] if watch is None else watch.sent(statement)
        for each in self.of_all:
            found += each.sent(statement)
        if found:
            self._under_way[id(cursor)] = perf_counter_ns(), found

    def after(
        self, _c: Connection, cursor: Any, _s: str, _p: Any, _context: Any, _many: bool
    ) -> None:
        self._ended(cursor)

    def failed(self, context: Any) -> None:
        self._ended(getattr(context.execution_context, "cursor", None))

    def _ended(self, cursor: Any) -> None:
        begun = self._under_way.pop(id(cursor), None)
        if begun is not None:
            taken = perf_counter_ns() - begun[0]
            for one in begun[1]:
                one.time_ns += taken


_listening = _Listening()


@contextmanager
def listening() -> Iterator[None]:
    """Have the watches told of what all engines of the process send, until the block ends."""
    _listening.enter()
    try:
        yield
    finally:
        _listening.leave()


@contextmanager
def at_work(watch: Watch) -> Iterator[None]:
    """Have what is sent from this context counted as this watch's."""
    token = current_watch.set(watch)
    try:
        yield
    finally:
        current_watch.reset(token)


@contextmanager
def all_counted(watch: Watch) -> Iterator[None]:
    """Have whatever is sent in the process counted as this watch's, too."""
    with ExitStack() as stack:
        stack.enter_context(listening())
        _listening.of_all.append(watch)
        stack.callback(_listening.of_all.remove, watch)
        yield


def shown(sent: dict[tuple[str, str], Sent], repeated: frozenset[str]) -> Iterator[str]:
    """Yield a line for each statement, the most frequent first; literals are masked."""
    for (statement, place), one in sorted(sent.items(), key=lambda item: -item[1].count):
        cause = f" ({one.cause})" if one.cause else ""
        mark = "  N+1" if statement in repeated else ""
        yield f"{one.count:>5}x  {shortened(statement)}{mark}"
        yield f"        at {place}{cause}, {one.time_ns / 1e6:.1f} ms"
