"""How work that is performed elsewhere ends, as it is told to whoever had it performed."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from ..errors import AsyncLoaderError


class FailedElsewhereError(AsyncLoaderError):
    """What ended somebody's work, in that one's own words and with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # an instance stands for any of the tree


class Found(Struct, frozen=True, tag=True):
    """It has come to a result, which is as its `to_dict` writes it."""

    result: dict[str, Any]


class Failed(Struct, frozen=True, tag=True):
    """It has not: an error, whose exception would have to be imported here."""

    message: str
    exit_code: int

    @classmethod
    def of(cls, error: AsyncLoaderError) -> Failed:
        """Return what is told of an error of ours."""
        return cls(str(error), error.exit_code)

    def error(self, who: str | None = None) -> FailedElsewhereError:
        """Return what to raise here; `who` it was is said first."""
        message = self.message if who is None else f"{who}: {self.message}"
        return FailedElsewhereError(message, self.exit_code)


class Unbegun(Struct, frozen=True, tag=True):
    """Somebody asked it to end before there was anything to report."""


Answer = Found | Failed | Unbegun
