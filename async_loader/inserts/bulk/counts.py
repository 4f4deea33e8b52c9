"""What came of a call, which `await` gives, too: one call serves either kind of session."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Self


class RowCount(int):
    """How many rows went in."""

    def __await__(self) -> Generator[Any, None, int]:
        yield from ()
        return int(self)


class Ready:
    """A result that is there already."""

    def __await__(self) -> Generator[Any, None, Self]:
        yield from ()
        return self


@dataclass(frozen=True)
class Upserted(Ready):
    """How many rows were new, changed a row, and left it as it was; and what came back of them."""

    inserted: int
    updated: int
    unchanged: int
    rows: Sequence[Any] = ()


@dataclass(frozen=True)
class Updated(Ready):
    """How many rows were changed, were as given already, and were not there."""

    updated: int
    unchanged: int
    missing: int


@dataclass(frozen=True)
class Deleted(Ready):
    """How many rows were deleted, and how many keys had none."""

    deleted: int
    missing: int
