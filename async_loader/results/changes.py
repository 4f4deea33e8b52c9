"""What a comparison with a baseline found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from .annotations import NotNegative
from .part import Part

# regression: the whole interval lies past the tolerance; improved: likewise on the good side.
# holds: none of it lies past the tolerance. inconclusive: a part does, or nothing is known.
Finding = Literal["regression", "improved", "holds", "inconclusive"]
Unit = Literal["ms", "/s", "share"]


@dataclass(frozen=True, slots=True)
class Change(Part):
    """One figure now and in the baseline; null where there is no such figure."""

    check: Annotated[str, Meta(description="how it was asked for")]
    unit: Annotated[Unit, Meta(description="milliseconds, operations a second, share (0 to 1)")]
    tolerance: Annotated[NotNegative, Meta(description="as `change`")]
    fails: Annotated[bool, Meta(description="whether a regression fails the run")] = True
    before: float | None = None
    now: float | None = None
    change: Annotated[
        float | None, Meta(description="relative (0.1: 10 % more), of shares the difference")
    ] = None
    low: Annotated[float | None, Meta(description="where its 95 % interval begins")] = None
    high: Annotated[float | None, Meta(description="where its 95 % interval ends")] = None
    finding: Finding = "inconclusive"
    reason: Annotated[str, Meta(description="why it is inconclusive")] = ""

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


@dataclass(frozen=True, slots=True)
class Comparison(Part):
    """A run held against a baseline of one or more earlier ones."""

    baselines: Annotated[tuple[str, ...], Meta(description="their files")]
    differences: Annotated[
        tuple[str, ...], Meta(description="what else was not the same as then, a sentence each")
    ]
    changes: tuple[Change, ...]

    @property
    def regressions(self) -> tuple[Change, ...]:
        """The regressions that fail the run."""
        return tuple(c for c in self.changes if c.finding == "regression" and c.fails)
