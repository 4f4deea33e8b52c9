"""What a test may ask of its database, and the failure of one that asks for more."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import inf
from types import TracebackType
from typing import Any

from ..load.metrics.repeats import LEAST
from .statements import Tally, Watch, shown

_MOST_SHOWN = 30


class QueryBudgetExceeded(AssertionError):  # noqa: N818  what it says of the test, in its report
    """A test sent more statements than it may: which, how often and from which line."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a test may ask of its database; None: as much as it likes."""

    max_statements: int | None = None
    max_n_plus_one: int | None = 0
    """Statements that may be sent again and again, `LEAST` times or more."""
    max_ms_database: float | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for what is no limit."""
        for name, whole in (("max_statements", True), ("max_n_plus_one", True),
                            ("max_ms_database", False)):  # fmt: skip
            value: Any = getattr(self, name)
            kinds = int if whole else (int, float)
            right = isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value < inf
            if value is not None and not right:
                kind = "a whole number" if whole else "milliseconds"
                raise ValueError(f"query_budget: {name} is {kind} from 0 on, not {value!r}")

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Limits:
        """Return the limits that a marker names; raises `ValueError`, one line."""
        unknown = [name for name in kwargs if name not in cls.__slots__]
        if args or unknown:
            names = ", ".join(f"{name}=" for name in cls.__slots__)
            what = f"{unknown[0]}=" if unknown else repr(args[0])
            raise ValueError(f"query_budget takes {names}, not {what}")
        return cls(**kwargs)


@dataclass(slots=True)
class Budget:
    """
    Limits and what was sent since they were set; a context manager ends them at its end.

    `statements` and `ms_database` are what has been used of it so far.
    """

    limits: Limits
    _watch: Watch
    _tally: Tally = field(default_factory=Tally)
    over: bool = False

    def __post_init__(self) -> None:
        """Begin to count."""
        self._watch.tallies.append(self._tally)

    @property
    def statements(self) -> int:
        """How many statements were sent; a batch is one."""
        return self._tally.statements

    @property
    def ms_database(self) -> float:
        """How long they were waited for, in milliseconds."""
        return self._tally.ms_database

    @property
    def repeated(self) -> dict[str, int]:
        """The statements that were sent again and again, and how often."""
        times: Counter[str] = Counter()
        for (statement, _), one in self._tally.sent.items():
            times[statement] += one.count - one.batches
        return {statement: count for statement, count in times.items() if count >= LEAST}

    def end(self) -> None:
        """Count no further."""
        if not self.over:
            self.over = True
            self._watch.tallies.remove(self._tally)

    def check(self) -> None:
        """Raise `QueryBudgetExceeded` where more was sent than may be."""
        __tracebackhide__ = True
        if (broken := self.broken()) is not None:
            raise QueryBudgetExceeded(broken)

    def __enter__(self) -> Budget:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        __tracebackhide__ = True
        self.end()
        if error is None:
            self.check()

    def broken(self) -> str | None:
        """Return what is broken, and everything that was sent; None where nothing is."""
        limits, repeated = self.limits, self.repeated
        found = []
        if limits.max_statements is not None and self.statements > limits.max_statements:
            sent = "1 statement" if self.statements == 1 else f"{self.statements} statements"
            found.append(f"{sent}, max_statements={limits.max_statements}")
        if limits.max_n_plus_one is not None and len(repeated) > limits.max_n_plus_one:
            found.append(
                f"{len(repeated)} sent {LEAST} times or more (N+1), "
                f"max_n_plus_one={limits.max_n_plus_one}"
            )
        if limits.max_ms_database is not None and self.ms_database > limits.max_ms_database:
            found.append(
                f"{self.ms_database:.1f} ms in the database, "
                f"max_ms_database={limits.max_ms_database:g}"
            )
        if not found:
            return None
        lines = list(shown(self._tally.sent, frozenset(repeated)))
        left = len(lines) // 2 - _MOST_SHOWN
        if left > 0:
            lines = [*lines[: 2 * _MOST_SHOWN], f"       … and {left} more"]
        return "\n".join([f"the query budget is exceeded: {'; '.join(found)}", *lines])


class QueryBudget:
    """What the fixture `query_budget` is: called, it limits what follows in the test."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.budgets: list[Budget] = []

    def __call__(
        self,
        *,
        max_statements: int | None = None,
        max_n_plus_one: int | None = 0,
        max_ms_database: float | None = None,
    ) -> Budget:
        """
        Limit what the test sends from here on, to its end or that of a `with` block.

        `max_n_plus_one`: of statements that are sent five times or more. Raises `ValueError`.
        """
        limits = Limits(max_statements, max_n_plus_one, max_ms_database)
        budget = Budget(limits, self._watch)
        self.budgets.append(budget)
        return budget
