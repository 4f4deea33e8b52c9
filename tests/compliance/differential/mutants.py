"""Mended faults, broken again: the tester has to find each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class Patch(Protocol):
    """What pytest's `monkeypatch` and the command line have in common."""

    def setattr(self, target: Any, name: str, value: Any, /) -> None:
        """Set an attribute, for as long as the patch lasts."""


@dataclass(frozen=True)
class Mutant:
    """A fault, and which of the kinds of the promise it breaks."""

    breaks: str
    apply: Callable[[Patch], None]


def _unsorted_keys(patch: Patch) -> None:
    """Keys that come back are handed out from the end."""
    from async_loader.inserts.insert import Insert

    original = Insert._in_order

    def reversed_rows(self: Any, *arguments: Any, **keywords: Any) -> Any:
        return list(original(self, *arguments, **keywords))[::-1]

    patch.setattr(Insert, "_in_order", reversed_rows)


MUTANTS: dict[str, Mutant] = {
    "keys_of_others": Mutant("objects get the keys of their own rows", _unsorted_keys),
}
