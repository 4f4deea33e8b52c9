"""What a comparison with a baseline found: frozen, and to and from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

# regression: the whole interval lies past the tolerance; improved: likewise on the good side.
# holds: none of it lies past the tolerance. inconclusive: a part does, or nothing is known.
Finding = Literal["regression", "improved", "holds", "inconclusive"]
Unit = Literal["ms", "/s", "share"]


@dataclass(frozen=True, slots=True)
class Change:
    """
    One figure now and in the baseline.

    `check` is how it was asked for. `before` and `now` in milliseconds, operations a second,
    or shares (0 to 1), which `unit` tells; None where there is no such figure. `change` is
    relative (0.1: 10 % more), of shares the difference; `low` to `high` is its 95 % interval.
    `tolerance` is in the same measure. `reason` says why a finding is inconclusive. `fails`:
    whether a regression is asked to fail the run.
    """

    check: str
    unit: Unit
    tolerance: float
    fails: bool = True
    before: float | None = None
    now: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    finding: Finding = "inconclusive"
    reason: str = ""

    @property
    def before_text(self) -> str:
        """The baseline's figure, for a reader."""
        return self._figure(self.before)

    @property
    def now_text(self) -> str:
        """The run's figure, for a reader."""
        return self._figure(self.now)

    @property
    def change_text(self) -> str:
        """The change, for a reader."""
        return self._change(self.change)

    @property
    def interval_text(self) -> str:
        """The 95 % interval of the change, for a reader."""
        return "-" if self.low is None else f"{self._change(self.low)} to {self._change(self.high)}"

    @property
    def sentence(self) -> str:
        """What was found, in one line."""
        sure = "" if self.low is None else f" (95 %: {self.interval_text})"
        why = f": {self.reason}" if self.reason else ""
        return (
            f"{self.check}: {self.finding}, {self.now_text}, was {self.before_text}, "
            f"{self.change_text}{sure}{why}"
        )

    def _figure(self, figure: float | None) -> str:
        if figure is None:
            return "-"
        if self.unit == "share":
            return f"{figure:.2%}"
        return f"{figure:,.3f} ms" if self.unit == "ms" else f"{figure:,.0f}/s"

    def _change(self, change: float | None) -> str:
        if change is None:
            return "-"
        return f"{100 * change:+.2f} points" if self.unit == "share" else f"{change:+.1%}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    A run held against a baseline of one or more earlier ones, whose files are `baselines`.

    `differences`: what else was not the same as then, a sentence each.
    """

    baselines: tuple[str, ...]
    differences: tuple[str, ...]
    changes: tuple[Change, ...]

    @property
    def regressions(self) -> tuple[Change, ...]:
        """The regressions that fail the run."""
        return tuple(c for c in self.changes if c.finding == "regression" and c.fails)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "baselines": list(self.baselines),
            "differences": list(self.differences),
            "changes": [change.to_dict() for change in self.changes],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> Self | None:
        """Return what `to_dict` wrote, None for nothing."""
        if data is None:
            return None
        return cls(
            tuple(data["baselines"]),
            tuple(data["differences"]),
            tuple(Change(**change) for change in data["changes"]),
        )
