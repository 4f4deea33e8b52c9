"""What a job is, apart from any run of it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Select, SelectBase
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import InstrumentedAttribute

from ..errors import ConfigurationError
from .keyset import Keyset
from .outcomes import ends_told
from .prepare_policy import PreparePolicy
from .selects import require_select
from .throttles import ThrottleHook

Arguments = Mapping[str, str]
Sessions = async_sessionmaker[Any]
# Not Select[Any]: in SQLAlchemy 2.1 that is a select of one column.
SelectOf = SelectBase | Callable[[Arguments], SelectBase] | None
Setup = Callable[[Sessions, Arguments], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    Which chunk is applied.

    `key` is the same whenever this chunk is tried again: for effects outside the database,
    which happen at least once.
    """

    run: int
    partition: int
    number: int
    arguments: Arguments

    @property
    def key(self) -> str:
        """The stable key: run, partition and chunk."""
        return f"{self.run}/{self.partition}/{self.number}"


# In bytes, of which an index of PostgreSQL's takes 2,704 in all.
LONGEST_NAME, _LONGEST_ARGUMENTS = 200, 1_500

# The session, the rows, what was prepared of each, and the chunk.
Apply = Callable[[AsyncSession, Sequence[Any], Sequence[Any], Chunk], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Definition:
    """A job's name, what it reads and how it goes about it; seconds where times are."""

    name: str
    select: SelectOf
    key: Sequence[InstrumentedAttribute[Any]] = ()
    chunk: int = 500
    partitions: int = 0  # 0: by the workers of whoever starts the run
    until_empty: bool = False
    skip_limit: int = 0
    throttles: tuple[ThrottleHook, ...] = ()
    lease: float = 30.0
    grace: float = 30.0
    patience: float = 300.0
    setup: Setup | None = None
    preparing: PreparePolicy | None = None

    def __post_init__(self) -> None:
        if not self.name or self.name.isdigit():
            raise ConfigurationError("a job's name is a word: numbers name runs")
        check_line("a job's name", self.name, LONGEST_NAME)
        if self.chunk < 1 or self.chunk > 10_000:
            raise ConfigurationError("a job's chunk has 1 to 10,000 rows")
        if self.partitions < 0 or self.lease <= 0 or self.skip_limit < 0:
            raise ConfigurationError(
                "a job's partitions and skip_limit are 0 or more, its lease is a time"
            )
        if self.until_empty and self.select is None:
            raise ConfigurationError("until_empty needs a select")
        if self.preparing is not None and self.select is None:
            raise ConfigurationError("prepare needs a select: it is called for each of its rows")

    def for_workers(self, workers: int) -> Definition:
        """Return it with a number of partitions: enough for all to be busy to the end."""
        return replace(self, partitions=self.partitions or max(8, 4 * workers))

    def keyset(self, arguments: Arguments) -> Keyset | None:
        """Return the pages to read; None for a job of one transaction."""
        if self.select is None:
            return None
        keyset = Keyset(self.select_of(arguments), self.key)
        if self.preparing is not None:
            keyset.lock_rows()
        return keyset

    def select_of(self, arguments: Arguments) -> Select[Any]:
        """Return the select of a run with these arguments."""
        with ends_told("select"):
            return require_select(self.select(arguments) if callable(self.select) else self.select)


def check_apply(function: Callable[..., Awaitable[None]]) -> int:
    """Return how many parameters an apply has; raises `ConfigurationError` for what is none."""
    wanted = len(inspect.signature(function).parameters)
    if wanted not in (2, 3, 4) or not inspect.iscoroutinefunction(function):
        raise ConfigurationError(
            "apply is `async def apply(session, rows)`, with a third: chunk; or, with a prepare, "
            "`async def apply(session, rows, prepared)`, with a fourth: chunk"
        )
    return wanted


def bound_apply(function: Callable[..., Awaitable[None]], *, prepared: bool) -> Apply:
    """Return an apply of all four parameters, of a function of two or more."""
    wanted = check_apply(function) - prepared
    if wanted not in (2, 3):
        raise ConfigurationError(
            "apply takes what was prepared as its third parameter: (session, rows, prepared)"
            if prepared
            else "apply has four parameters, and there is no @job.prepare"
        )

    async def apply(
        session: AsyncSession, rows: Sequence[Any], values: Sequence[Any], chunk: Chunk
    ) -> None:
        await function(session, rows, *[values] * prepared, *[chunk] * (wanted == 3))

    return apply


def check_arguments(arguments: Arguments) -> None:
    """Raise `ConfigurationError` for arguments that no run can be found by."""
    for name, value in arguments.items():
        check_line("an argument", f"{name}={value}", _LONGEST_ARGUMENTS)
    if len(canonical(arguments)) > _LONGEST_ARGUMENTS:
        raise ConfigurationError(f"a job's arguments have at most {_LONGEST_ARGUMENTS:,} bytes")


def check_line(what: str, text: str, longest: int) -> None:
    """Raise `ConfigurationError` for what is more than one line of so many bytes."""
    if not text.isprintable():
        raise ConfigurationError(f"{what} is one line of printable characters")
    if len(text.encode()) > longest:
        raise ConfigurationError(f"{what} has at most {longest:,} bytes")


def canonical(arguments: Arguments) -> str:
    """Return arguments as text that is equal for equal arguments."""
    return json.dumps({str(k): str(v) for k, v in arguments.items()}, sort_keys=True)
