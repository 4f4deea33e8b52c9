"""The running counts of an operation's own checks, in bounded memory."""

from __future__ import annotations

import re

from ...failures.redaction import printable
from ...results.parts import CheckResult

MOST_NAMES = 50
"""How many names of checks are kept as they are, and as many of checks that failed."""

_LONGEST_NAME = 200
_VARYING = re.compile(
    r"\b[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}\b|'[^']*'|\"[^\"]*\""
    r"|[\w.+-]+@[\w.-]+|\S*\d\S*"
)
_OTHERS = "(other checks)"


class CheckTally:
    """
    How often each check held, by name.

    A check that is named by what it checks, `f"order {id} is there"`, has a name for each
    operation. Beyond 50 those that are new are counted by what they have in common, `order …
    is there`; one that fails keeps its own name, as long as there are no more than 50 of those.
    """

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}
        self._failing = 0

    def count(self, name: str, passed: bool) -> None:
        """Count one check."""
        counts = self._counts.get(name)
        if counts is None:
            counts = self._counts_of(name, passed)
        counts[not passed] += 1

    def _counts_of(self, name: str, passed: bool) -> list[int]:
        """Return the counts that a check belongs to that has none of its own yet."""
        name = printable(str(name)[:_LONGEST_NAME])
        if name not in self._counts and len(self._counts) >= MOST_NAMES:
            if not passed and self._failing < MOST_NAMES:
                self._failing += 1
            else:
                name = _VARYING.sub("…", name)
                if name not in self._counts and len(self._counts) >= 3 * MOST_NAMES:
                    name = _OTHERS
        return self._counts.setdefault(name, [0, 0])

    def result(self) -> dict[str, CheckResult]:
        """Return how often each held."""
        return {name: CheckResult(*counts) for name, counts in self._counts.items()}
