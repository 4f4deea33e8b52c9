"""The checks of one try of an operation, which count if nothing is tried again after it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

Check = Callable[[str, bool], None]


class TryChecks:
    """What one try has checked so far: to be kept, or dropped when the try is given up."""

    def __init__(self) -> None:
        self._held: list[tuple[Check, str, bool]] | None = []

    def add(self, count: Check, name: str, passed: bool) -> None:
        """Count a check when the try is kept; at once where it is already."""
        if self._held is None:
            count(name, passed)
        else:
            self._held.append((count, name, passed))

    def keep(self) -> None:
        """Count what was checked."""
        held, self._held = self._held or [], None
        for count, name, passed in held:
            count(name, passed)


# Tasks and threads of the try's own take it along.
current_checks: ContextVar[TryChecks | None] = ContextVar("current_checks", default=None)


def counted_when_kept(count: Check) -> Check:
    """Return the function that an operation's checks are told to."""

    def check(name: str, passed: bool) -> None:
        checks = current_checks.get()
        if checks is None:
            count(name, passed)
        else:
            checks.add(count, name, passed)

    return check
