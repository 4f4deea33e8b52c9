"""Setting attributes of other people's classes and modules for a time, whoever does so beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Wrap = Callable[[Any], Any]


class Patches:
    """What was replaced, to be put back; of two that replace one attribute the last goes first."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any, Any]] = []

    def wrap(self, owner: Any, name: str, wrapper: Wrap) -> None:
        """Replace an attribute of a class or module by what the wrapper makes of it."""
        original = vars(owner)[name]
        ours = wrapper(original)
        self._undo.append((owner, name, original, ours))
        setattr(owner, name, ours)

    def restore(self) -> None:
        """Put everything back that nobody has replaced in turn."""
        for owner, name, original, ours in reversed(self._undo):
            if vars(owner).get(name) is ours:
                setattr(owner, name, original)
        self._undo.clear()
