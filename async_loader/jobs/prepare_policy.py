"""What is done with rows before their transaction, and how: nothing here does it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypedDict

from ..concurrency.rates import parse_rate
from ..errors import ConfigurationError

Compare = Literal["version", "columns", "xmin"]
Changed = Literal["again", "skip"]
Retries = Mapping[type[Exception], int]
NO_RETRIES: Retries = MappingProxyType({})
MOST_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class PrepareContext:
    """
    Which row is prepared, and for the how manieth time.

    `key` names the job, its arguments and tables, the row and its version, and is the same in
    every attempt, after a kill too: for a service that does a thing once for each key.
    `attempt` counts from 1 in this process.
    """

    key: str
    attempt: int
    arguments: Mapping[str, str]


Prepare = Callable[[Any, PrepareContext], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class PreparePolicy:
    """How rows are prepared: how many at once and a second, how often again, and what changed."""

    concurrency: int = 8
    rate: float = math.inf  # calls a second
    retries: Retries = field(default_factory=dict)
    changed: Changed = "again"
    compare: Compare = "version"
    function: Prepare | None = None

    def __post_init__(self) -> None:
        if self.changed not in ("again", "skip"):
            raise ConfigurationError("prepare_changed is 'again' or 'skip'")
        if self.compare not in ("version", "columns", "xmin"):
            raise ConfigurationError("prepare_compare is 'version', 'columns' or 'xmin'")
        _check_numbers(self.concurrency, self.retries)

    def retries_of(self, error: Exception) -> int:
        """Return how often a row is tried again behind an error, by the nearest class named."""
        return next((self.retries[k] for k in type(error).__mro__ if k in self.retries), 0)


def _check_numbers(concurrency: object, retries: object) -> None:
    if not isinstance(concurrency, int) or not 1 <= concurrency <= MOST_AT_ONCE:
        raise ConfigurationError(f"prepare_concurrency is 1 to {MOST_AT_ONCE:,} calls at once")
    if not isinstance(retries, Mapping):
        raise ConfigurationError("prepare_retries has a number for classes of exceptions")
    for kind, times in retries.items():
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ConfigurationError("prepare_retries has a number for classes of exceptions")
        if not isinstance(times, int) or times < 0:
            raise ConfigurationError(
                f"prepare_retries of {kind.__name__} is a number of times, 0 or more"
            )


class PrepareOptions(TypedDict, total=False):
    """What a `BatchJob` is told of its prepare."""

    prepare_concurrency: int
    prepare_rate: str
    prepare_retries: Retries
    prepare_changed: Changed
    prepare_compare: Compare


def policy_of(
    *,
    prepare_concurrency: int = 8,
    prepare_rate: str = "",
    prepare_retries: Retries = NO_RETRIES,
    prepare_changed: Changed = "again",
    prepare_compare: Compare = "version",
) -> PreparePolicy:
    """Return a policy by the options of a job; raises `ConfigurationError`."""
    rate = math.inf
    if prepare_rate != "":
        try:
            rate = parse_rate(prepare_rate)
        except (ValueError, AttributeError) as error:
            raise ConfigurationError(
                f"prepare_rate {prepare_rate!r}: a rate looks like 500/s, 30/m or 10/h, and is "
                "above 0"
            ) from error
    return PreparePolicy(
        prepare_concurrency, rate, prepare_retries, prepare_changed, prepare_compare
    )


def with_context(function: Callable[..., Awaitable[Any]]) -> Prepare:
    """Return a prepare that takes a context, of a function of (row) or both."""
    wanted = len(inspect.signature(function).parameters)
    if wanted not in (1, 2) or not inspect.iscoroutinefunction(function):
        raise ConfigurationError("prepare is `async def prepare(row)` or with a second: context")
    if wanted == 2:
        return function

    async def prepare(row: Any, _context: PrepareContext) -> Any:
        return await function(row)

    return prepare
