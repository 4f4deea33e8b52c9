"""The statements that operations waited longest for, each with the parameters of its slowest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from ...failures.source_lines import user_place_here, written
from .times import current_times

# Distinct statements that are watched: values written into SQL make a new one each time.
_MOST = 500


@dataclass(slots=True)
class SlowStatement:
    """How often a statement was sent, and its slowest call."""

    operation: str
    source: str | None = None
    calls: int = 0
    total_ns: int = 0
    slowest_ns: int = -1
    parameters: Any = None

    @property
    def mean_ns(self) -> float:
        """How long a call took, as the client waited for it."""
        return self.total_ns / self.calls if self.calls else 0.0


class SlowStatements:
    """The statements of a run, in bounded memory."""

    def __init__(self) -> None:
        self._found: dict[str, SlowStatement] = {}
        self._since: dict[int, int] = {}

    def clear(self) -> None:
        """Forget those of the warm-up."""
        self._found.clear()

    def slowest(self, count: int) -> list[tuple[str, SlowStatement]]:
        """Return so many statements, those with the longest calls on average first."""
        found = sorted(self._found.items(), key=lambda item: -item[1].mean_ns)
        return found[:count]

    @contextmanager
    def listening(self, engine: Engine) -> Iterator[None]:
        """Watch what an engine sends, until the block ends."""
        listeners = (
            ("before_cursor_execute", self._before),
            ("after_cursor_execute", self._after),
        )
        for name, listener in listeners:
            event.listen(engine, name, listener)
        try:
            yield
        finally:
            for name, listener in listeners:
                event.remove(engine, name, listener)

    def _before(
        self, _c: Connection, cursor: Any, _statement: str, _p: Any, _context: Any, many: bool
    ) -> None:
        if not many and current_times.get() is not None:
            self._since[id(cursor)] = perf_counter_ns()

    def _after(
        self,
        _c: Connection,
        cursor: Any,
        statement: str,
        parameters: Any,
        _context: Any,
        many: bool,
    ) -> None:
        since, times = self._since.pop(id(cursor), None), current_times.get()
        if since is None or times is None or many:
            return
        taken = perf_counter_ns() - since
        found = self._found.get(statement)
        if found is None:
            if len(self._found) >= _MOST:
                return
            place = user_place_here()
            source = None if place is None else written(place)
            found = self._found[statement] = SlowStatement(times.operation, source)
        found.calls += 1
        found.total_ns += taken
        if taken > found.slowest_ns:
            found.slowest_ns, found.parameters = taken, parameters
